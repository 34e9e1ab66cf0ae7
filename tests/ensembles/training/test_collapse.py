from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy.stats import binom

from ensembles import Ensemble, architectures
from ensembles.training import EpochReport, Schedule, create, train
from ensembles.training.report import chance_level, collapsed_members


def report(*accuracies: float) -> EpochReport:
    return EpochReport(
        epoch=1,
        epochs=9,
        loss=0.0,
        terms={},
        validation_accuracy=0.5,
        member_accuracies=accuracies,
        collapsed=(),
        seconds=0.0,
        seconds_left=0.0,
    )


@pytest.mark.parametrize(
    ("accuracies", "earlier", "last", "expected"),
    [
        ((0.9, 0.8), [], False, ()),
        ((0.1, 0.8), [], False, ()),  # at chance in the first epoch: not yet learned, not collapsed
        ((0.1, 0.1), [(0.1, 0.1)], False, ()),  # still learning
        ((0.1, 0.8), [(0.5, 0.5)], False, (0,)),  # was better
        ((0.8, 0.1), [(0.5, 0.5), (0.6, 0.1)], False, (1,)),  # better at any time before
        ((0.1, 0.1), [(0.5, 0.1)], False, (0,)),  # one fell, the other never rose
        ((0.1, 0.1), [(0.5, 0.1)], True, (0, 1)),  # at the end both are at chance
        ((0.1, 0.9), [], True, (0,)),
        ((0.2, 0.9), [(0.9, 0.9)], False, (0,)),  # the level itself is chance
        ((0.21, 0.9), [(0.9, 0.9)], True, ()),
        ((0.1, 0.1), [(0.2, 0.2)], False, ()),  # nor is it better
        ((), [], True, ()),
    ],
)
def test_collapsed_are_those_at_chance_that_were_better_or_never_were(
    accuracies: tuple[float, ...], earlier: list[tuple[float, ...]], last: bool, expected: tuple[int, ...]
) -> None:
    before = [report(*row) for row in earlier]
    assert collapsed_members(accuracies, before, 0.2, last=last) == expected


@pytest.mark.parametrize(("classes", "examples"), [(2, 200), (3, 200), (10, 500), (10, 5000), (100, 20_000)])
def test_guessing_stays_below_the_chance_level_but_for_a_thousandth(classes: int, examples: int) -> None:
    level = chance_level(classes, [number % classes for number in range(examples)])
    above = binom.sf(int(level * examples), examples, 1 / classes)
    assert 0.0003 < above < 0.002  # the normal approximation says .001
    assert level < 1 / classes + 4 * (classes * examples) ** -0.5
    assert chance_level(10, []) > 0.1, "no examples, no error"


def test_to_answer_the_largest_class_always_is_guessing() -> None:
    assert 0.6 < chance_level(2, [1] * 3000 + [0] * 2000) < 0.63
    assert chance_level(3, [1] * 30) == 1


def ensemble_of(*seeds: int) -> Ensemble:
    return Ensemble(
        [architectures.create("mlp", input_shape=(1, 4, 4), classes=3, seed=seed, hidden=(8,)) for seed in seeds]
    )


def test_a_member_that_never_learns_is_reported_at_the_last_epoch(literal: Any) -> None:
    # All weights zero: features, their gradients and so all but the bias of the head stay zero for ever.
    ensemble, images = ensemble_of(1, 2), literal.Images(count=90)
    with torch.no_grad():
        for parameter in ensemble.members[1].parameters():
            parameter.zero_()
    reports = train(
        ensemble, create("gaussian", sigma=0.1), Schedule(epochs=4, batch_size=10, learning_rate=0.1), images, images, 0
    )
    assert [one.collapsed for one in reports] == [(), (), (), (1,)]
    assert reports[-1].member_accuracies[0] > 0.9
    assert reports[-1].member_accuracies[1] == pytest.approx(1 / 3)


def test_a_member_that_falls_is_reported_as_it_happens(literal: Any) -> None:
    # In the second epoch, somebody zeroes a member that had learned.
    ensemble, images = ensemble_of(1, 2, 3), literal.Images(count=90)
    told: list[EpochReport] = []

    def on_epoch(one: EpochReport) -> None:
        told.append(one)
        if one.epoch == 2:
            with torch.no_grad():
                for parameter in ensemble.members[1].parameters():
                    parameter.zero_()

    schedule = Schedule(epochs=5, batch_size=10, learning_rate=0.1, momentum=0.0)
    train(ensemble, create("gaussian", sigma=0.1), schedule, images, images, 0, on_epoch)
    assert [one.collapsed for one in told] == [(), (), (1,), (1,), (1,)]


def test_an_absurd_learning_rate_collapses_members(literal: Any) -> None:
    # One step of a hundred kills the ReLUs: constant answers, at chance, and all numbers are finite.
    ensemble, images = ensemble_of(1, 2), literal.Images(count=90)
    rates: Callable[[float], Any] = lambda rate: Schedule(epochs=3, batch_size=10, learning_rate=rate)  # noqa: E731
    reports = train(ensemble, create("gaussian", sigma=0.1), rates(100.0), images, images, 0)
    collapsed = reports[-1].collapsed
    assert collapsed
    for number in collapsed:
        assert reports[-1].member_accuracies[number] <= chance_level(3, [number % 3 for number in range(90)])
    sane = train(ensemble_of(1, 2), create("gaussian", sigma=0.1), rates(0.1), images, images, 0)
    assert all(one.collapsed == () for one in sane)


def test_accuracies_of_members_are_their_own(literal: Any) -> None:
    # Members that answer one class each, on labels 0 0 0 1 1 2: 3/6, 2/6 and 1/6.
    class Unequal(literal.Images):
        def __init__(self) -> None:
            super().__init__(count=6)
            self.labels = torch.tensor([0, 0, 0, 1, 1, 2])

    ensemble = ensemble_of(1, 2, 3)
    with torch.no_grad():
        for number, member in enumerate(ensemble.members):
            for parameter in member.parameters():
                parameter.zero_()
            member.head.bias[number] = 1.0
    reports = train(ensemble, create("gaussian"), Schedule(epochs=1, learning_rate=1e-9), Unequal(), Unequal(), 0)
    assert reports[0].member_accuracies == pytest.approx((3 / 6, 2 / 6, 1 / 6))
    # Equal confidences of all classes: the ensemble answers the lowest class.
    assert reports[0].validation_accuracy == pytest.approx(3 / 6)
