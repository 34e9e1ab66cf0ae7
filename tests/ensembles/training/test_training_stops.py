"""A gradient that is not finite stops training, and the message names the term, the epoch and the batch."""

import re
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ensembles import Ensemble, architectures
from ensembles.training import Objective, Schedule, TrainingError, train
from ensembles.training.smoothadv import SmoothAdv


def small() -> Ensemble:
    return Ensemble([architectures.create("mlp", input_shape=(1, 4, 4), classes=3, seed=1, hidden=(4,))])


def sharp(weight: Tensor) -> Tensor:
    """Zero, with an infinite derivative: the root of `w - w` where the second w is held fixed."""
    entry = weight[0, 0]
    return (entry - entry.detach()).clamp(min=0).sqrt()


@dataclass(frozen=True, kw_only=True)
class Exploding(Objective):
    """The term `steep` has an infinite gradient in the last, smaller batch of the third epoch."""

    name: ClassVar[str] = "exploding"
    armed: bool = False

    def at_epoch(self, epoch: int) -> "Exploding":
        return replace(self, armed=epoch == 3)

    def terms(self, ensemble: Ensemble, x: Tensor, y: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        member = ensemble.members[0]
        steep = sharp(member.head.weight) if self.armed and len(y) == 4 else 0 * member.head.weight.sum()
        return {
            "constant": torch.tensor(2.0),
            "flat": cross_entropy(member(x), y),
            "steep": steep,
            "after": member.head.bias.square().sum(),
        }


def test_the_term_the_epoch_and_the_batch_are_named(literal: Any) -> None:
    images, reports = literal.Images(count=24), []  # batches of 10, 10 and 4
    ensemble = small()
    message = (
        "Training with 'exploding' stopped: the gradient of the term 'steep' is not finite at epoch 3, batch 3 "
        "(learning rate 0.02). Lower the learning rate or the weight of that term."
    )
    schedule = Schedule(epochs=5, batch_size=10, learning_rate=0.02)
    with pytest.raises(TrainingError, match=f"^{re.escape(message)}$"):
        train(ensemble, Exploding(), schedule, images, images, 0, reports.append)
    assert [report.epoch for report in reports] == [1, 2]
    assert reports[0].terms["constant"] == 2.0
    assert reports[0].terms["steep"] == 0.0
    assert all(bool(torch.isfinite(parameter).all()) for parameter in ensemble.parameters()), "no step was taken"


@dataclass(frozen=True, kw_only=True)
class Dice(Objective):
    """One of three terms explodes, which one hangs on the generator."""

    name: ClassVar[str] = "dice"
    thrown: ClassVar[list[int]] = []

    def terms(self, ensemble: Ensemble, x: Tensor, y: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        number = int(torch.randint(3, (), generator=generator))
        self.thrown.append(number)
        member = ensemble.members[0]
        loss = cross_entropy(member(x), y)
        return {f"term{own}": sharp(member.head.weight) if own == number else loss for own in range(3)}


def test_the_search_for_the_term_repeats_the_same_draws(literal: Any) -> None:
    images, seen = literal.Images(), set()
    for seed in range(8):
        Dice.thrown.clear()
        with pytest.raises(TrainingError) as caught:
            train(small(), Dice(), Schedule(epochs=1, batch_size=8), images, images, seed)
        assert len(Dice.thrown) == 2
        assert Dice.thrown[0] == Dice.thrown[1]
        assert f"the term 'term{Dice.thrown[0]}' is not finite at epoch 1, batch 1 " in str(caught.value)
        seen.add(Dice.thrown[0])
    assert seen == {0, 1, 2}


@dataclass(frozen=True, kw_only=True)
class Huge(Objective):
    """Two terms whose values are 0 and whose gradients fit single precision alone, but not together."""

    name: ClassVar[str] = "huge"

    def terms(self, ensemble: Ensemble, x: Tensor, y: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        weight = ensemble.members[0].head.weight
        zero = (weight - weight.detach()).sum()
        return {"one": 2e18 * zero, "two": 5e18 * zero}


def test_gradients_that_overflow_only_together_are_told_as_the_sum(literal: Any) -> None:
    # Twelve entries, so the norms are 0.7e19, 1.7e19 and 2.4e19; the square of the last one is beyond 3.4e38.
    images = literal.Images()
    with pytest.raises(TrainingError, match="the gradient of the term 'sum' is not finite at epoch 1, batch 1 "):
        train(small(), Huge(), Schedule(epochs=1, batch_size=8), images, images, 0)


@dataclass(frozen=True, kw_only=True)
class Epochs(Objective):
    """Its one term is the epoch it was made for."""

    name: ClassVar[str] = "epochs"
    epoch: int = 0

    def at_epoch(self, epoch: int) -> "Epochs":
        return replace(self, epoch=epoch)

    def terms(self, ensemble: Ensemble, x: Tensor, y: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        return {"epoch": 0 * ensemble(x).sum() + self.epoch, "share": 0 * ensemble(x).sum() + len(y)}


def test_each_epoch_has_its_objective_and_terms_are_means_over_examples(literal: Any) -> None:
    images = literal.Images(count=24)
    reports = train(small(), Epochs(), Schedule(epochs=3, batch_size=10), images, images, 0)
    assert [report.terms["epoch"] for report in reports] == pytest.approx([1, 2, 3])
    # Batches of 10, 10 and 4, each weighted by its size: (100 + 100 + 16) / 24.
    assert [report.terms["share"] for report in reports] == pytest.approx([9, 9, 9])
    assert [report.loss for report in reports] == pytest.approx([10, 11, 12])


def test_smoothadv_is_trained_with_the_warmed_up_epsilon(literal: Any) -> None:
    images = literal.Images(count=8)
    member = small().members[0]
    spy = literal.Spy(member)
    # No noise, one step of length 2 epsilon back to the sphere: the training input lies epsilon off, the box allowing.
    objective = SmoothAdv(sigma=0.0, steps=1, epsilon=0.4, draws=1, warmup_epochs=4)
    images.x = images.x.clamp(0.2, 0.8)
    moved = []

    def note(_: Any) -> None:
        attacked = spy.inputs[1]  # the first input is the start, the second the one trained on
        moved.append(float((attacked - spy.inputs[0]).flatten(1).norm(dim=1).max()))
        spy.inputs.clear()

    train(Ensemble([spy]), objective, Schedule(epochs=5, batch_size=8), images, images, 0, note)
    assert moved == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4], rel=1e-4)
