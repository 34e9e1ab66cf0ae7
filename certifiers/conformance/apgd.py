"""Auto-PGD: projected gradient ascent with momentum that halves its step where it stops to climb."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from certifiers.conformance.balls import Ball
from certifiers.conformance.losses import Objective, losses, margin, other_classes

#: Share of the new step beside the momentum, and share of steps that must climb between two checkpoints.
_NEW, _CLIMBING = 0.75, 0.75

#: Wrong answers of one row after which the others need not go on; more than one, as rounding may undo the first.
_ENOUGH = 3

#: Of the inputs that an l1 step moves.
_L1_SHARE = 0.05


def apgd(
    outputs: Callable[[Float[Tensor, "rows *shape"]], Float[Tensor, "member rows classes"]],
    scores: Objective,
    climbed: Objective,
    ball: Ball,
    prediction: Int64[Tensor, "rows"],
    kind: Int64[Tensor, "rows"],
    start: Float[Tensor, "rows *shape"],
    steps: int,
) -> tuple[Float[Tensor, "rows *shape"], Float[Tensor, "rows"]]:
    """For each row the point of an ascent at which the classifier is most wrong, and its margin there.

        x'_{k+1} = P(x_k + step * direction(gradient))
        x_{k+1} = P(x_k + 3/4 (x'_{k+1} - x_k) + 1/4 (x_k - x_{k-1}))

    The step starts at two radii. At checkpoints, ever closer, it is halved and the ascent goes on from its best point
    where fewer than 3/4 of the last steps climbed, or nothing was gained since the last checkpoint at the same step.
    All rows stop once one of them has been wrong for a few steps: they are ascents for the same question.

    Args:
        outputs: the members' outputs, with gradients.
        scores: from these to the classifier's scores, of which the margin is taken.
        climbed: from these to the scores that are climbed: the classifier's, or one member's.
        ball: of each row.
        prediction: of each row, to be changed.
        kind: of loss, a row; see `losses`.
        start: of each row, inside the ball.
        steps: of the ascent.

    Returns:
        Points, and `max_{j != y} s_j - s_y` at them; to be replayed, as both have the rounding of this arithmetic.

    Source: Croce & Hein, ICML 2020, Algorithm 1.
    """
    with torch.no_grad():
        order = other_classes(climbed(outputs(ball.center)), prediction)

    def looked_at(point: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.enable_grad():
            leaf = point.detach().requires_grad_()
            members = outputs(leaf)
            value = losses(climbed(members), prediction, kind, order)
            known = torch.where(torch.isfinite(value), value, 0.0).sum()
            gradient = torch.autograd.grad(known, leaf, allow_unused=True)[0] if known.requires_grad else None
        lost = torch.nan_to_num(value.detach(), nan=-torch.inf)
        slope = torch.zeros_like(point) if gradient is None else gradient.detach()
        return lost, slope, margin(scores(members.detach()), prediction)

    def each(values: Tensor) -> Tensor:
        return values.reshape(ball.each.shape)

    point = previous = ball.project(start)
    loss, gradient, wrong = looked_at(point)
    best, best_loss, best_gradient = point, loss, gradient
    found, most_wrong = point, wrong
    step, climbs = torch.full_like(loss, 2.0), torch.zeros_like(loss)
    halved, loss_before = torch.ones_like(loss, dtype=torch.bool), best_loss
    checkpoints = _checkpoints(steps)
    last, wrongs = 0, (wrong > 0).int()
    for number in range(1, steps + 1):
        moved = ball.move(point, gradient, each(step), _L1_SHARE)
        share = 1.0 if number == 1 else _NEW
        ahead = ball.project(point + share * (moved - point) + (1 - share) * (point - previous))
        previous, point, loss_here = point, ahead, loss
        loss, gradient, wrong = looked_at(point)
        climbs += loss > loss_here
        wrongs += wrong > 0
        better, worse = loss > best_loss, wrong > most_wrong
        best_loss = torch.where(better, loss, best_loss)
        best, best_gradient = torch.where(each(better), point, best), torch.where(each(better), gradient, best_gradient)
        most_wrong, found = torch.where(worse, wrong, most_wrong), torch.where(each(worse), point, found)
        if int(wrongs.max()) >= _ENOUGH:
            break
        if number in checkpoints:
            halve = (climbs < _CLIMBING * (number - last)) | (~halved & (best_loss <= loss_before))
            step = torch.where(halve, step / 2, step)
            point, gradient = torch.where(each(halve), best, point), torch.where(each(halve), best_gradient, gradient)
            loss = torch.where(halve, best_loss, loss)
            previous = torch.where(each(halve), best, previous)
            halved, loss_before, last = halve, best_loss, number
            climbs = torch.zeros_like(climbs)
    return found, most_wrong


def _checkpoints(steps: int) -> frozenset[int]:
    """`p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06)`, times the steps, rounded up."""
    before, share, found = 0, 22, []  # in hundredths: their sums have no rounding
    while share <= 100:
        found.append(-(-share * steps // 100))
        before, share = share, share + max(share - before - 3, 6)
    return frozenset(found)
