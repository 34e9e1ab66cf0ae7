"""The training loop: seeded, told of every epoch, stopped by the first number that is not finite."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from ensembles.ensemble import Ensemble
from ensembles.parameters import NonNegativeFloat, ParameterError, Parameters, PositiveFloat, PositiveInt
from ensembles.seeds import seeded_generator
from ensembles.training.objective import Objective
from ensembles.training.report import EpochReport, chance_level, collapsed_members
from ensembles.training.resume import TrainingState


@runtime_checkable
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


def train(
    ensemble: Ensemble,
    objective: Objective,
    schedule: Schedule,
    training: Examples,
    validation: Examples,
    seed: int,
    on_epoch: Callable[[EpochReport], None] = lambda report: None,
    *,
    resume_from: TrainingState | None = None,
    on_state: Callable[[TrainingState], None] = lambda state: None,
) -> list[EpochReport]:
    """Train the members in place, on their device, and leave them in eval mode.

    The same seed, data and thread count give the same weights on the same machine. Order and noise of an
    epoch are drawn from generators of their own, derived from `seed` and the epoch.

    Args:
        ensemble: freshly initialised, or trained before (warm start).
        objective: the loss of a batch.
        schedule: epochs, batch size, optimizer, learning rate.
        training: what is learned from.
        validation: what the accuracy of each epoch is measured on, under the objective's noise.
        seed: base of all randomness.
        on_epoch: called with the report of each epoch as it ends.
        resume_from: the state of an interrupted training of this kind, which is continued.
        on_state: called with the state after each epoch but the last, for storing it.

    Returns:
        The reports of all epochs, those before a resumption included.

    Raises:
        TrainingError: a term of the loss or its gradient is NaN or infinite; says which, where, what to try.
        ResumeError: the state is of another training.
        ValueError: an objective that couples members was given fewer than two.
    """
    if objective.pairwise and len(ensemble.members) < 2:
        raise ValueError(
            f"Objective {objective.name!r} compares members with each other and needs at least two, got "
            f"{len(ensemble.members)}. Raise members, or choose an objective that trains each alone."
        )
    device = next(ensemble.parameters()).device
    # channels_last is only a memory layout; convolutions of small images run about 1.4x faster in it.
    ensemble.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    parameters = [parameter for parameter in ensemble.parameters() if parameter.requires_grad]
    optimizer = schedule.build(parameters)
    reports = resume_from.restore(ensemble, optimizer) if resume_from else []
    spent = reports[-1].seconds if reports else 0.0
    started, done_before = time.perf_counter(), len(reports)
    for epoch in range(len(reports) + 1, schedule.epochs + 1):
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate_at(epoch)
        means = _epoch(ensemble, objective.at_epoch(epoch), schedule, optimizer, training, seed, epoch, device)
        accuracy, accuracies, classes = noisy_accuracies(ensemble, objective, validation, seed)
        chance = chance_level(classes, validation.labels.tolist())
        elapsed = time.perf_counter() - started
        report = EpochReport(
            epoch=epoch,
            epochs=schedule.epochs,
            loss=sum(means.values()),
            terms=means,
            validation_accuracy=accuracy,
            member_accuracies=accuracies,
            collapsed=collapsed_members(accuracies, reports, chance, last=epoch == schedule.epochs),
            seconds=spent + elapsed,
            seconds_left=elapsed / (epoch - done_before) * (schedule.epochs - epoch),
        )
        reports.append(report)
        on_epoch(report)
        if epoch < schedule.epochs:
            on_state(TrainingState.of(ensemble, optimizer, reports))
    for parameter in ensemble.parameters():
        parameter.data = parameter.data.contiguous()
        parameter.grad = None
    ensemble.eval()
    return reports


def _epoch(
    ensemble: Ensemble,
    objective: Objective,
    schedule: Schedule,
    optimizer: torch.optim.Optimizer,
    training: Examples,
    seed: int,
    epoch: int,
    device: torch.device,
) -> dict[str, float]:
    """One pass over the training examples; the mean of each term of the loss."""
    ensemble.train()
    labels = training.labels
    order = torch.randperm(len(labels), generator=seeded_generator(seed, "order", epoch)).numpy()
    noise = seeded_generator(seed, "noise", epoch)
    sums: dict[str, float] = {}
    for number, first in enumerate(range(0, len(order), schedule.batch_size), start=1):
        positions = order[first : first + schedule.batch_size]
        x, y = training.images(positions).to(device), labels[torch.from_numpy(positions)].to(device)
        before = noise.get_state()
        terms = objective.terms(ensemble, x, y, noise)
        place = f"epoch {epoch}, batch {number} (learning rate {schedule.learning_rate_at(epoch):g})"
        for name, term in terms.items():
            value = float(term.detach())
            if not math.isfinite(value):
                raise TrainingError(
                    f"Training with {objective.name!r} stopped: the term {name!r} is {value} at {place}. "
                    "Lower the learning rate or the weight of that term."
                )
            sums[name] = sums.get(name, 0.0) + value * len(positions)
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        if not _finite_gradients(ensemble):
            noise.set_state(before)
            name = _exploding_term(ensemble, objective, x, y, noise)
            raise TrainingError(
                f"Training with {objective.name!r} stopped: the gradient of the term {name!r} is not finite at "
                f"{place}. Lower the learning rate or the weight of that term."
            )
        optimizer.step()
    return {name: total / len(order) for name, total in sums.items()}


def _finite_gradients(ensemble: Ensemble) -> bool:
    gradients = [parameter.grad for parameter in ensemble.parameters() if parameter.grad is not None]
    # One number decides: the norm is NaN or infinite as soon as any entry is.
    return bool(torch.isfinite(torch.stack([gradient.norm() for gradient in gradients]).sum())) if gradients else True


def _exploding_term(ensemble: Ensemble, objective: Objective, x: Tensor, y: Tensor, noise: torch.Generator) -> str:
    """The first term whose own gradient is not finite; they are computed again, one by one."""
    for name, term in objective.terms(ensemble, x, y, noise).items():
        ensemble.zero_grad(set_to_none=True)
        if term.requires_grad:
            term.backward(retain_graph=True)  # type: ignore[no-untyped-call]
            if not _finite_gradients(ensemble):
                return name
    return "sum"


def noisy_accuracy(ensemble: Ensemble, objective: Objective, examples: Examples, seed: int) -> float:
    """The share of examples that the ensemble answers rightly under one draw of the objective's noise.

    The draw depends on `seed` alone, so that epochs are compared on the same noisy images.
    """
    return noisy_accuracies(ensemble, objective, examples, seed)[0]


@torch.no_grad()
def noisy_accuracies(
    ensemble: Ensemble, objective: Objective, examples: Examples, seed: int
) -> tuple[float, tuple[float, ...], int]:
    """`noisy_accuracy` of the ensemble and of each member, and the number of classes."""
    device = next(ensemble.parameters()).device
    noise = seeded_generator(seed, "validation")
    ensemble.eval()
    count = len(examples.labels)
    right, member_right, classes = 0, torch.zeros(len(ensemble.members), dtype=torch.int64), 0
    for first in range(0, count, 1000):
        positions = np.arange(first, min(first + 1000, count))
        y = examples.labels[torch.from_numpy(positions)]
        logits = ensemble.logits(objective.noisy(examples.images(positions), noise).to(device))
        right += int((ensemble.aggregation.scores(logits[list(ensemble.used)]).argmax(-1).cpu() == y).sum())
        member_right += (logits.argmax(-1).cpu() == y).sum(-1)
        classes = logits.shape[-1]
    return right / count, tuple((member_right / count).tolist()), classes
