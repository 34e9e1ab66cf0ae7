"""Refutation: projected gradient descent for an input in the ball that a classifier answers otherwise."""

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor, nn

from certifiers.certificate import ThreatModel
from certifiers.conformance.balls import Ball
from certifiers.conformance.losses import Objective
from certifiers.undisturbed import undisturbed
from ensembles.aggregation import MaxMargin, WeightedAverage
from ensembles.ensemble import Ensemble, members_of, stack_logits
from ensembles.voting import KConsensus, MajorityVote


class Attack(NamedTuple):
    """What an attack found.

    Attributes:
        found: whether another answer was found, an image.
        witness: the input with another answer, in the precision of the images; the image itself where none was found.
        forward_passes: inputs sent through a member, an image.
    """

    found: Bool[Tensor, "batch"]
    witness: Float[Tensor, "batch *shape"]
    forward_passes: Int64[Tensor, "batch"]


def attack(
    classifier: nn.Module,
    x: Float[Tensor, "batch *shape"],
    prediction: Int64[Tensor, "batch"],
    radius: Float64[Tensor, "batch"],
    threat: ThreatModel,
    *,
    steps: int = 20,
    restarts: int = 2,
    seed: int = 0,
) -> Attack:
    """Search the ball of each image, cut to [0, 1], for an input that is not answered with `prediction`.

    Projected gradient ascent of `max over j != y of s_j - s_y` (Madry et al., ICLR 2018), the first time from x and
    then from random points: signed steps in linf, normalised ones in l2, in l1 signed steps along the steepest inputs
    (Tramer & Boneh, NeurIPS 2019). s are the scores of the classifier, then those of every member of a max-margin
    ensemble, whose own scores jump, and the mean logits of a weighted average of confidences, whose gradients vanish,
    and of votes, which have none. Restarts climb `s_j - s_y` of one class j each, in the order of the scores.

    What is found was replayed in eval mode: it is finite, some other class has a strictly larger score than
    `prediction`, and it lies in the box and, measured in float64, in the ball. A tie is not found. All images start
    from the same random directions, so that an image's answer does not depend on the others. The classifier and the
    global generators are left as they were.

    Args:
        classifier: an `Ensemble`, or any module from inputs to logits.
        x: images in [0, 1].
        prediction: the answers to change.
        radius: of each image's ball.
        threat: the norm.
        steps: of each ascent.
        restarts: ascents an objective; the first starts from x.
        seed: of the random starts.

    Raises:
        ValueError: steps or restarts are less than one.
    """
    if steps < 1 or restarts < 1:
        raise ValueError(f"An attack needs at least one step and one restart, got {steps} and {restarts}.")
    prediction, radius = prediction.to(x.device), radius.to(x.device)
    found, witness = torch.zeros(len(x), dtype=torch.bool, device=x.device), x.detach().clone()
    passes = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    generator = torch.Generator().manual_seed(seed)
    with undisturbed([classifier]):
        for parameter in classifier.parameters():
            parameter.requires_grad_(False)
        for restart in range(restarts):
            for objective in _objectives(classifier):
                start = torch.randn(x.shape[1:], generator=generator, dtype=torch.float64).to(x)
                rows = (~found & (radius > 0)).nonzero()[:, 0]
                if not len(rows):
                    return Attack(found, witness, passes)
                ball = Ball(x[rows].detach(), radius[rows], threat.norm)
                own, points, evaluations = _ascend(classifier, objective, ball, prediction[rows], restart, start, steps)
                passes[rows] += evaluations * len(members_of(classifier))
                found[rows[own]] = True
                witness[rows[own]] = points[own]
    return Attack(found, witness, passes)


def changed(scores: Float[Tensor, "batch classes"], prediction: Int64[Tensor, "batch"]) -> Bool[Tensor, "batch"]:
    """Whether scores are finite and another class has strictly more than `prediction`."""
    own = scores.gather(1, prediction[:, None])
    return ((scores > own).any(1)) & torch.isfinite(scores).all(1)


def _objectives(classifier: nn.Module) -> Iterator[Objective]:
    members = members_of(classifier)
    if members == [classifier] or not isinstance(classifier, Ensemble):
        yield lambda outputs: outputs[0]
        return
    yield classifier.aggregation.scores
    if len(members) > 1 and isinstance(classifier.aggregation, MaxMargin):
        for member in range(len(members)):
            yield lambda outputs, member=member: outputs[member]  # type: ignore[misc]
    elif isinstance(classifier.aggregation, MajorityVote | KConsensus) or (
        isinstance(classifier.aggregation, WeightedAverage) and classifier.aggregation.of == "confidence"
    ):
        yield lambda outputs: outputs.mean(0)


def _others(objective: Objective, members: Sequence[nn.Module], prediction: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The scores of all classes but the predicted, which has minus infinity, and its own."""
    scores = objective(stack_logits([member(x) for member in members]))
    return scores.scatter(1, prediction[:, None], -torch.inf), scores.gather(1, prediction[:, None])[:, 0]


def _ascend(
    classifier: nn.Module,
    objective: Objective,
    ball: Ball,
    prediction: Tensor,
    restart: int,
    start: Tensor,
    steps: int,
) -> tuple[Bool[Tensor, "batch"], Float[Tensor, "batch *shape"], int]:
    """One ascent: which images were answered otherwise at some point of it, and where; and how many were evaluated.

    The first one starts from the image towards any class, the others start elsewhere, each towards one class.
    """
    point = ball.start(start) if restart else ball.center.clone()
    found, witness = torch.zeros(len(point), dtype=torch.bool, device=point.device), ball.center.clone()
    members = members_of(classifier)
    others = functools.partial(_others, objective, members, prediction)
    evaluations = 1
    order = others(ball.center)[0].argsort(dim=1, descending=True, stable=True)
    target = order[:, (restart - 1) % max(1, order.shape[1] - 1), None]
    for number in range(steps + 1):
        point, near = ball.inside(point)
        evaluations += 1
        hit = near & changed(classifier(point), prediction) & ~found
        found, witness = found | hit, torch.where(hit.reshape(ball.each.shape), point, witness)
        if number == steps or bool(found.all()):
            break
        with torch.enable_grad():
            evaluations += 1
            leaf = point.detach().requires_grad_()
            wrong, own = others(leaf)
            climbed = ((wrong.gather(1, target)[:, 0] if restart else wrong.amax(1)) - own).sum()
            gradient = torch.autograd.grad(climbed, leaf, allow_unused=True)[0] if climbed.requires_grad else None
        if gradient is None:
            break
        # Long steps first, short ones at the end.
        point = ball.move(point, gradient, 2.0 * (1 - number / steps) if number else 1.0).detach()
    return found, witness, evaluations
