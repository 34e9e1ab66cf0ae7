"""The training loop: seeded, told of every epoch, stopped by the first number that is not finite."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from ensembles.ensemble import Ensemble
from ensembles.parameters import NonNegativeFloat, ParameterError, Parameters, PositiveFloat, PositiveInt
from ensembles.seeds import seeded_generator
from ensembles.training.objective import Objective


class Examples(Protocol):
    """Labelled images: what the loop reads. `images` may decode them from disk."""

    @property
    def labels(self) -> Int[Tensor, "n"]:
        """True classes."""
        ...

    def images(self, positions: NDArray[np.int64]) -> Float[Tensor, "batch *shape"]:
        """The inputs in [0, 1] at these positions."""
        ...


class TrainingError(RuntimeError):
    """Training cannot go on: a loss or a gradient is not finite."""


@dataclass(frozen=True, kw_only=True)
class Schedule(Parameters):
    """How long and how fast to train.

    `optimizer = "sgd"` has momentum; the learning rate is multiplied by `decay_factor` after every
    `decay_every` epochs (0: never).
    """

    epochs: PositiveInt
    batch_size: PositiveInt = 128
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: PositiveFloat = 0.01
    momentum: NonNegativeFloat = 0.9
    weight_decay: NonNegativeFloat = 0.0
    decay_every: int = 0
    decay_factor: PositiveFloat = 0.1

    def __post_init__(self) -> None:
        """Refuse a negative decay."""
        super().__post_init__()
        if self.decay_every < 0:
            raise ParameterError(f"Schedule: decay_every = {self.decay_every} is negative. Use 0 for no decay.")

    def build(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer."""
        if self.optimizer == "adam":
            return torch.optim.Adam(parameters, lr=self.learning_rate, weight_decay=self.weight_decay)
        return torch.optim.SGD(
            parameters, lr=self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay
        )

    def learning_rate_at(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 1."""
        return self.learning_rate * (self.decay_factor ** ((epoch - 1) // self.decay_every) if self.decay_every else 1)


@dataclass(frozen=True)
class EpochReport:
    """What one epoch ended with: mean terms of the loss, noisy validation accuracy, time."""

    epoch: int
    epochs: int
    loss: float
    terms: Mapping[str, float]
    validation_accuracy: float
    seconds: float
    seconds_left: float


def train(
    ensemble: Ensemble,
    objective: Objective,
    schedule: Schedule,
    training: Examples,
    validation: Examples,
    seed: int,
    on_epoch: Callable[[EpochReport], None] = lambda report: None,
) -> list[EpochReport]:
    """Train the members in place, on their device, and leave them in eval mode.

    The same seed, data and thread count give the same weights on the same machine. Order and noise of an
    epoch are drawn from generators of their own, derived from `seed`.

    Args:
        ensemble: freshly initialised, or trained before (warm start).
        objective: the loss of a batch.
        schedule: epochs, batch size, optimizer, learning rate.
        training: what is learned from.
        validation: what the accuracy of each epoch is measured on, under the objective's noise.
        seed: base of all randomness.
        on_epoch: called with the report of each epoch as it ends.

    Returns:
        The reports of all epochs.

    Raises:
        TrainingError: a term of the loss is NaN or infinite; says which, where, and what to try.
    """
    device = next(ensemble.parameters()).device
    # channels_last is only a memory layout; convolutions of small images run about 1.4x faster in it.
    ensemble.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    parameters = [parameter for parameter in ensemble.parameters() if parameter.requires_grad]
    optimizer = schedule.build(parameters)
    labels = training.labels
    reports: list[EpochReport] = []
    started = time.perf_counter()
    for epoch in range(1, schedule.epochs + 1):
        ensemble.train()
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate_at(epoch)
        order = torch.randperm(len(labels), generator=seeded_generator(seed, "order", epoch)).numpy()
        noise = seeded_generator(seed, "noise", epoch)
        sums: dict[str, float] = {}
        for number, first in enumerate(range(0, len(order), schedule.batch_size), start=1):
            positions = order[first : first + schedule.batch_size]
            x, y = training.images(positions).to(device), labels[torch.from_numpy(positions)].to(device)
            terms = objective.terms(ensemble, x, y, noise)
            values = {name: float(term.detach()) for name, term in terms.items()}
            for name, value in values.items():
                if not math.isfinite(value):
                    raise TrainingError(
                        f"Training with {objective.name!r} stopped: the term {name!r} is {value} at epoch {epoch}, "
                        f"batch {number} (learning rate {schedule.learning_rate_at(epoch):g}). Lower the learning "
                        "rate or the weight of that term."
                    )
                sums[name] = sums.get(name, 0.0) + value * len(positions)
            optimizer.zero_grad(set_to_none=True)
            torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        means = {name: total / len(order) for name, total in sums.items()}
        elapsed = time.perf_counter() - started
        report = EpochReport(
            epoch=epoch,
            epochs=schedule.epochs,
            loss=sum(means.values()),
            terms=means,
            validation_accuracy=noisy_accuracy(ensemble, objective, validation, seed),
            seconds=elapsed,
            seconds_left=elapsed / epoch * (schedule.epochs - epoch),
        )
        reports.append(report)
        on_epoch(report)
    for parameter in ensemble.parameters():
        parameter.data = parameter.data.contiguous()
        parameter.grad = None
    ensemble.eval()
    return reports


@torch.no_grad()
def noisy_accuracy(ensemble: Ensemble, objective: Objective, examples: Examples, seed: int) -> float:
    """The share of examples that the ensemble answers rightly under one draw of the objective's noise.

    The draw depends on `seed` alone, so that epochs are compared on the same noisy images.
    """
    device = next(ensemble.parameters()).device
    noise = seeded_generator(seed, "validation")
    ensemble.eval()
    right = 0
    count = len(examples.labels)
    for first in range(0, count, 1000):
        positions = np.arange(first, min(first + 1000, count))
        noisy = objective.noisy(examples.images(positions), noise).to(device)
        right += int((ensemble(noisy).argmax(-1).cpu() == examples.labels[torch.from_numpy(positions)]).sum())
    return right / count
