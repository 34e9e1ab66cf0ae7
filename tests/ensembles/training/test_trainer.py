import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ensembles import Ensemble, MaxMargin, ParameterError, Single, architectures, seeded_generator, weights_digest
from ensembles.training import EpochReport, Gaussian, Objective, Schedule, TrainingError, noisy_accuracy, train

SHAPE, CLASSES = (1, 4, 4), 3


class Patterns:
    """Images that are easy to tell apart: a class has its own bright pixels."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(count) % CLASSES
        self.x = 0.3 * torch.rand(count, *SHAPE, generator=generator)
        self.x[torch.arange(count), 0, self.labels] += 0.7
        self.asked: list[NDArray[np.int64]] = []

    def images(self, positions: NDArray[np.int64]) -> Tensor:
        self.asked.append(positions)
        return self.x[torch.from_numpy(positions)]


@pytest.fixture
def training() -> Patterns:
    return Patterns(50, seed=1)


@pytest.fixture
def validation() -> Patterns:
    return Patterns(30, seed=2)


def ensemble_of(members: int = 1, name: str = "mlp", seed: int = 0, **options: Any) -> Ensemble:
    return Ensemble(
        [
            architectures.create(name, input_shape=SHAPE, classes=CLASSES, seed=seed + number, **options)
            for number in range(members)
        ]
    )


SCHEDULE = Schedule(epochs=3, batch_size=16, learning_rate=0.05)


@pytest.mark.parametrize(
    ("schedule", "optimizer"),
    [
        (
            Schedule(epochs=3, batch_size=16, learning_rate=0.05, momentum=0.8, weight_decay=0.01, decay_every=2),
            lambda weights: torch.optim.SGD(weights, lr=0.05, momentum=0.8, weight_decay=0.01),
        ),
        (
            Schedule(epochs=3, batch_size=16, optimizer="adam", learning_rate=0.05, weight_decay=0.01, decay_every=2),
            lambda weights: torch.optim.Adam(weights, lr=0.05, weight_decay=0.01),
        ),
    ],
)
def test_training_equals_a_plain_loop(
    schedule: Schedule, optimizer: Callable[..., torch.optim.Optimizer], training: Patterns, validation: Patterns
) -> None:
    ensemble = ensemble_of(2, hidden=(8,))
    twin = copy.deepcopy(ensemble)
    reports = train(ensemble, Gaussian(sigma=0.3), schedule, training, validation, seed=5)

    step = optimizer(twin.parameters())
    for epoch in (1, 2, 3):
        for group in step.param_groups:
            group["lr"] = 0.05 if epoch <= 2 else 0.005
        order = torch.randperm(50, generator=seeded_generator(5, "order", epoch))
        noise = seeded_generator(5, "noise", epoch)
        total = 0.0
        for rows in order.split(16):
            x, y = training.x[rows], training.labels[rows]
            noisy = x + 0.3 * torch.randn(x.shape, generator=noise)
            loss = sum(cross_entropy(member(noisy), y) for member in twin.members)
            step.zero_grad()
            loss.backward()
            step.step()
            total += float(loss) * len(rows)
        assert reports[epoch - 1].loss == pytest.approx(total / 50, rel=1e-4)
    for mine, theirs in zip(ensemble.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def test_same_seed_same_weights_and_another_seed_others(training: Patterns, validation: Patterns) -> None:
    def digest(seed: int) -> str:
        ensemble = ensemble_of(2, "conv_small")
        train(ensemble, Gaussian(sigma=0.3), SCHEDULE, training, validation, seed=seed)
        return weights_digest(list(ensemble.members))

    before = torch.get_rng_state()
    assert digest(1) == digest(1)
    assert digest(1) != digest(2)
    assert torch.equal(torch.get_rng_state(), before)


def test_training_learns_what_is_easy(training: Patterns, validation: Patterns) -> None:
    ensemble = ensemble_of(2)
    schedule = Schedule(epochs=12, batch_size=10, learning_rate=0.1)
    reports = train(ensemble, Gaussian(sigma=0.1), schedule, training, validation, seed=0)
    assert reports[-1].validation_accuracy > 0.95
    assert reports[-1].loss < 0.2 * reports[0].loss


def test_every_example_is_seen_once_an_epoch_in_an_order_of_its_own(training: Patterns, validation: Patterns) -> None:
    train(ensemble_of(hidden=()), Gaussian(), SCHEDULE, training, validation, seed=0)
    batches = [len(positions) for positions in training.asked]
    assert batches == [16, 16, 16, 2] * 3
    orders = [np.concatenate(training.asked[first : first + 4]).tolist() for first in (0, 4, 8)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_members_are_left_ready_to_be_certified(training: Patterns, validation: Patterns) -> None:
    ensemble = ensemble_of(2, "conv_small")
    # Whatever mode the caller's callback leaves them in.
    once = replace(SCHEDULE, epochs=1)
    train(ensemble, Gaussian(sigma=0.3), once, training, validation, 0, on_epoch=lambda report: ensemble.train())
    assert not any(module.training for module in ensemble.modules())
    for parameter in ensemble.parameters():
        assert parameter.grad is None
        assert parameter.requires_grad
        assert parameter.is_contiguous()


def test_weights_that_are_frozen_stay(training: Patterns, validation: Patterns) -> None:
    ensemble = ensemble_of(hidden=(8,))
    body = ensemble.members[0].body
    body.requires_grad_(requires_grad=False)
    before = {name: tensor.clone() for name, tensor in ensemble.state_dict().items()}
    train(ensemble, Gaussian(), SCHEDULE, training, validation, seed=0)
    changed = {name for name, tensor in ensemble.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"members.0.head.weight", "members.0.head.bias"}


def test_reports_tell_of_every_epoch_as_it_ends(training: Patterns, validation: Patterns) -> None:
    told: list[EpochReport] = []
    reports = train(ensemble_of(2), Gaussian(sigma=0.3), SCHEDULE, training, validation, 0, told.append)
    assert told == reports
    assert [(report.epoch, report.epochs) for report in reports] == [(1, 3), (2, 3), (3, 3)]
    seconds = [report.seconds for report in reports]
    assert 0 < seconds[0] < seconds[1] < seconds[2]
    for report in reports:
        assert set(report.terms) == {"cross_entropy"}
        assert report.loss == sum(report.terms.values())
        assert 0 <= report.validation_accuracy <= 1
        assert report.seconds_left == pytest.approx(report.seconds / report.epoch * (3 - report.epoch))


@pytest.mark.parametrize("aggregation", [MaxMargin(), Single(member=1)])
def test_noisy_accuracy_is_the_share_of_right_answers_under_its_noise(aggregation: Any, validation: Patterns) -> None:
    ensemble = ensemble_of(2).with_aggregation(aggregation)
    noise = torch.randn(30, *SHAPE, generator=seeded_generator(4, "validation"))
    right = 0
    for image, delta, label in zip(validation.x, noise, validation.labels.tolist(), strict=True):
        right += int(ensemble((image + 0.5 * delta)[None]).argmax()) == label
    assert noisy_accuracy(ensemble, Gaussian(sigma=0.5), validation, seed=4) == right / 30


def test_noisy_accuracy_of_more_examples_than_a_batch() -> None:
    class Alternating:
        labels = torch.arange(2345) % 2

        def images(self, positions: NDArray[np.int64]) -> Tensor:
            assert len(positions) <= 1000
            return torch.from_numpy(positions % 4).float()[:, None]

    class Bit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([torch.zeros_like(x), (x == 1).float()], 1)

    # Labels 0 1 0 1 ..., answers 0 1 0 0 ...: of the 2345 one in four is wrong, 586 in all.
    assert noisy_accuracy(Ensemble([Bit()]), Gaussian(), Alternating(), seed=0) == (2345 - 586) / 2345


@dataclass(frozen=True, kw_only=True)
class Breaking(Objective):
    """Breaks at the tenth batch: the value of its second term, or the gradient of it."""

    name: ClassVar[str] = "breaking"
    value: float = math.nan
    calls: ClassVar[list[int]] = []

    def terms(self, ensemble: Ensemble, x: Tensor, y: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        self.calls.append(1)
        loss = cross_entropy(ensemble.members[0](x), y)
        weight = ensemble.members[0].head.weight
        if len(self.calls) < 10:
            second = 0 * loss
        elif self.value == 0:
            second = (0 * weight).sum().sqrt()  # zero, with an infinite derivative
        else:
            second = weight.sum() * 0 + self.value
        return {"fine": loss, "broken": second}


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (math.nan, "the term 'broken' is nan at epoch 3, batch 2 "),
        (math.inf, "the term 'broken' is inf at epoch 3, batch 2 "),
        (0.0, "the gradient of the term 'broken' is not finite at epoch 3, batch 2 "),
    ],
)
def test_first_number_that_is_not_finite_stops_training(
    value: float, told: str, training: Patterns, validation: Patterns
) -> None:
    ensemble, reports = ensemble_of(), []
    Breaking.calls.clear()
    with pytest.raises(TrainingError) as caught:
        train(ensemble, Breaking(value=value), replace(SCHEDULE, epochs=5), training, validation, 0, reports.append)
    assert str(caught.value) == (
        f"Training with 'breaking' stopped: {told}(learning rate 0.05). "
        "Lower the learning rate or the weight of that term."
    )
    assert len(reports) == 2
    assert all(bool(torch.isfinite(parameter).all()) for parameter in ensemble.parameters())


def test_absurd_learning_rate_ends_in_the_error(training: Patterns, validation: Patterns) -> None:
    schedule = Schedule(epochs=5, batch_size=10, learning_rate=1e20)
    with pytest.raises(TrainingError, match=r"Training with 'gaussian' stopped: .* at epoch 1, batch \d"):
        train(ensemble_of(), Gaussian(), schedule, training, validation, seed=0)


def test_objective_that_compares_members_needs_two(training: Patterns, validation: Patterns) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Pairwise(Gaussian):
        name: ClassVar[str] = "pairs"
        pairwise: ClassVar[bool] = True

    with pytest.raises(ValueError, match=r"Objective 'pairs' compares members .* needs at least two, got 1\. Raise"):
        train(ensemble_of(1), Pairwise(), SCHEDULE, training, validation, seed=0)


def test_learning_rate_decays_after_every_so_many_epochs() -> None:
    schedule = Schedule(epochs=7, learning_rate=0.4, decay_every=3, decay_factor=0.5)
    rates = [schedule.learning_rate_at(epoch) for epoch in range(1, 8)]
    assert rates == pytest.approx([0.4, 0.4, 0.4, 0.2, 0.2, 0.2, 0.1])
    constant = Schedule(epochs=7, learning_rate=0.4)
    assert [constant.learning_rate_at(epoch) for epoch in (1, 7)] == [0.4, 0.4]


def test_optimizers_have_the_schedules_numbers() -> None:
    weights = [nn.Parameter(torch.zeros(2))]
    sgd = Schedule(epochs=1, learning_rate=0.2, momentum=0.7, weight_decay=0.1).build(weights)
    assert isinstance(sgd, torch.optim.SGD)
    assert [sgd.param_groups[0][key] for key in ("lr", "momentum", "weight_decay")] == [0.2, 0.7, 0.1]
    adam = Schedule(epochs=1, optimizer="adam", learning_rate=0.2, weight_decay=0.1).build(weights)
    assert isinstance(adam, torch.optim.Adam)
    assert [adam.param_groups[0][key] for key in ("lr", "weight_decay")] == [0.2, 0.1]


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("decay_every", -1, r"decay_every = -1 is negative\. Use 0 for no decay"),
        ("epochs", 0, "epochs = 0 is not allowed"),
        ("batch_size", 0, "batch_size = 0 is not allowed"),
        ("learning_rate", 0.0, r"learning_rate = 0\.0 is not allowed"),
        ("learning_rate", math.inf, "learning_rate = inf is not allowed"),
    ],
)
def test_schedules_are_checked(field: str, value: float, problem: str) -> None:
    with pytest.raises(ParameterError, match=f"Schedule: {problem}"):
        Schedule(**{"epochs": 1, field: value})
