"""Exact answers of small ReLU networks: every activation pattern that occurs, and a linear program in each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from scipy.optimize import linprog
from torch import Tensor, nn

from certifiers.certificate import Norm, ThreatModel, Unsupported
from certifiers.conformance.polytopes import distance_to_polytope
from ensembles.aggregation import Aggregation, MaxMargin, Single, WeightedAverage
from ensembles.ensemble import Ensemble, members_of

#: Regions in which some neuron reaches no further than this past its kink are left out; outputs there are those of the
#: region beside it, within this times the weights behind the neuron.
THINNEST = 1e-9

#: The order of the dual of each norm.
_DUAL = {Norm.L1: np.inf, Norm.L2: 2, Norm.LINF: 1}

#: An affine map `weight x + bias` of the input.
Affine = tuple[Float64[np.ndarray, "outputs inputs"], Float64[np.ndarray, "outputs"]]


@dataclass(frozen=True, eq=False)
class Region:
    """A part of the box in which all members are affine: the x with `matrix x <= limit`.

    Attributes:
        matrix: of the conditions.
        limit: of the conditions.
        inner: a point of it.
        outputs: of each member that was gone through, in this region.
    """

    matrix: Float64[np.ndarray, "conditions inputs"]
    limit: Float64[np.ndarray, "conditions"]
    inner: Float64[np.ndarray, "inputs"]
    outputs: tuple[Affine, ...] = ()

    def cut(self, slope: Float64[np.ndarray, "inputs"], offset: float) -> "Region | None":
        """The part where `slope . x + offset >= 0`, or None where that nowhere exceeds `THINNEST`."""
        inner = self.inner
        if slope @ inner + offset <= THINNEST:
            # What the box does not reach no part of it does.
            if slope.clip(min=0).sum() + offset <= THINNEST:
                return None
            best = _minimised(-slope, self.matrix, self.limit, np.ones(len(slope)))
            if best is None or offset - best[0] <= THINNEST:
                return None
            inner = best[1]
        return Region(np.vstack([self.matrix, -slope]), np.append(self.limit, offset), inner, self.outputs)

    def least(self, slope: Float64[np.ndarray, "inputs"], offset: float, ball: "_Ball") -> float:
        """The least value of `slope . x + offset` in the region and the ball, infinite if they do not meet."""
        return ball.minimised(self, np.append(slope, np.zeros(ball.extra)), offset)

    def least_distance(self, center: Float64[np.ndarray, "inputs"], norm: Norm) -> float:
        """The distance from a point to the farthest of the half-spaces that the region is the intersection of."""
        if not len(self.limit):
            return 0.0
        sizes = np.linalg.norm(self.matrix, ord=_DUAL[norm], axis=1).clip(min=1e-300)
        return max(0.0, float(((self.matrix @ center - self.limit) / sizes).max()))

    def distance(self, center: Float64[np.ndarray, "inputs"], norm: Norm) -> float:
        """The distance from a point to the region, infinite if that is empty."""
        if norm is Norm.L2:
            box = np.eye(len(center))
            matrix, limit = np.vstack([self.matrix, box, -box]), np.concatenate([self.limit, box.sum(0), 0 * center])
            return distance_to_polytope(center, matrix, limit)
        ball = _Ball(center, float(len(center)), norm)
        return ball.minimised(self, ball.length, 0.0)


def _minimised(
    costs: Float64[np.ndarray, "variables"],
    matrix: Float64[np.ndarray, "conditions variables"],
    limit: Float64[np.ndarray, "conditions"],
    upper: Float64[np.ndarray, "variables"],
) -> tuple[float, Float64[np.ndarray, "variables"]] | None:
    """The least `costs . v` with `matrix v <= limit` and `0 <= v <= upper`, and where; None if there is no such v."""
    best = linprog(
        costs,
        matrix,
        limit,
        bounds=[(0.0, float(side)) for side in upper],
        method="highs",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    return (float(best.fun), np.asarray(best.x)) if best.status == 0 and best.fun is not None else None


class _Ball:
    """A ball in linf or l1 as linear conditions on x and on the lengths of its deviations.

    linf has one length t with `|x_i - c_i| <= t <= radius`, l1 one each, `|x_i - c_i| <= t_i`, `sum t_i <= radius`.
    """

    def __init__(self, center: Float64[np.ndarray, "inputs"], radius: float, norm: Norm) -> None:
        if norm is Norm.L2:
            raise Unsupported("regions are gone through by linear programs, which have no l2 balls; use linf or l1.")
        count = len(center)
        self.extra = 1 if norm is Norm.LINF else count
        own, lengths = np.eye(count), np.ones((count, 1)) if norm is Norm.LINF else np.eye(count)
        self.matrix = np.block([[own, -lengths], [-own, -lengths], [np.zeros((1, count)), np.ones((1, self.extra))]])
        self.limit = np.concatenate([center, -center, [radius]])
        self.length = np.append(np.zeros(count), np.ones(self.extra))

    def minimised(self, region: Region, costs: Float64[np.ndarray, "variables"], offset: float) -> float:
        """The least `costs . (x, lengths) + offset` in a region and the ball, infinite if they do not meet."""
        conditions = np.hstack([region.matrix, np.zeros((len(region.matrix), self.extra))])
        matrix, limit = np.vstack([conditions, self.matrix]), np.append(region.limit, self.limit)
        upper = np.append(np.ones(region.matrix.shape[1]), np.full(self.extra, np.inf))
        best = _minimised(costs, matrix, limit, upper)
        return np.inf if best is None else best[0] + offset


def least_margins(
    classifier: nn.Module,
    x: Float[Tensor, "batch *shape"],
    prediction: Int64[Tensor, "batch"],
    radius: Float64[Tensor, "batch"],
    threat: ThreatModel,
) -> Float64[Tensor, "batch classes"]:
    """The least `s_y - s_j` over each image's ball, cut to [0, 1], for y = prediction and all j; infinite at j = y.

    The minimum over all activation patterns of the exact minimum of a linear program, up to about 1e-8.

    Raises:
        Unsupported: not a small ReLU network, or an ensemble of them under single or a weighted average of logits.
    """
    if isinstance(classifier, Ensemble) and isinstance(classifier.aggregation, MaxMargin):
        raise Unsupported("the scores of a max-margin ensemble jump and have no least margin; ask for exact_radii.")
    regions = list(_regions(classifier, x))
    found = []
    for image, answer, size in zip(_flat(x), prediction.tolist(), radius.tolist(), strict=True):
        ball = _Ball(image, size, threat.norm)
        rows = [_margins(region, ball, answer, _scores(classifier, region)) for region in regions]
        found.append(np.min(rows, axis=0))
    return torch.from_numpy(np.stack(found))


def exact_radii(
    classifier: nn.Module,
    x: Float[Tensor, "batch *shape"],
    threat: ThreatModel,
    regions: Sequence[tuple[int, Region]] | None = None,
) -> Float64[Tensor, "batch"]:
    """The distance from each image to the nearest input of the box [0, 1] with another answer or a tie.

        min over patterns and wrong classes j of  min ||x' - x||  where s_j(x') >= s_y(x')

    For a max-margin ensemble of logits every region is divided further, by the two top classes of each member, where
    all gaps are affine; wrong is what a member with another answer decides with a gap at least as large as all others'.
    Infinite where no input of the box has another answer, 0 where x itself is on a boundary; exact up to about 1e-8.
    A tie that nowhere turns into another answer is not seen.

    Args:
        classifier: a small ReLU network, or an ensemble of them.
        x: images.
        threat: the norm.
        regions: the classifier's `answer_regions`, which are the same in every norm; None: gone through here.

    Raises:
        Unsupported: not a small ReLU network, or an ensemble of them under another aggregation of logits.
    """
    parts = answer_regions(classifier, x) if regions is None else regions
    found = []
    for image, answer in zip(_flat(x), _answers(classifier, x), strict=True):
        found.append(_nearest([part for other, part in parts if other != answer], image, threat.norm))
    return torch.tensor(found, dtype=torch.float64)


def answer_regions(classifier: nn.Module, x: Float[Tensor, "batch *shape"]) -> tuple[tuple[int, Region], ...]:
    """Parts of the box in which a class is answered, or ties, with that class; they cover it.

    Raises:
        Unsupported: as `exact_radii`.
    """
    return tuple(found for region in _regions(classifier, x) for found in _decided(classifier, region))


def _nearest(parts: Sequence[Region], center: Float64[np.ndarray, "inputs"], norm: Norm) -> float:
    """The least distance from a point to one of these regions, infinite without any.

    Regions are looked at by the distance to the farthest of their half-spaces: the region itself is no nearer.
    """
    best = np.inf
    near = sorted(((part.least_distance(center, norm), number) for number, part in enumerate(parts)))
    for least, number in near:
        if least > best:
            break
        best = min(best, parts[number].distance(center, norm))
    return best


def _flat(x: Tensor) -> Float64[np.ndarray, "batch inputs"]:
    return x.detach().flatten(1).double().cpu().numpy()


def _answers(classifier: nn.Module, x: Tensor) -> list[int]:
    with torch.no_grad():
        return classifier(x).argmax(1).tolist()  # type: ignore[no-any-return]


def _margins(region: Region, ball: _Ball, answer: int, scores: Affine) -> list[float]:
    weight, bias = scores
    return [
        np.inf if other == answer else region.least(weight[answer] - weight[other], bias[answer] - bias[other], ball)
        for other in range(len(bias))
    ]


def _layers(network: nn.Module) -> list[nn.Module]:
    """Linear layers and ReLUs of nested sequences.

    Raises:
        Unsupported: another layer.
    """
    if isinstance(network, nn.Sequential):
        return [layer for child in network for layer in _layers(child)]
    if isinstance(network, nn.Flatten):
        return []
    if not isinstance(network, (nn.Linear, nn.ReLU)):
        raise Unsupported(f"patterns are enumerated of Linear, ReLU and Flatten in sequence, not {network}.")
    return [network]


def _regions(classifier: nn.Module, x: Float[Tensor, "batch *shape"]) -> Iterator[Region]:
    """All regions of the box in which the members are affine together."""
    inputs = x[0].numel()
    box = Region(np.zeros((0, inputs)), np.zeros(0), np.full(inputs, 0.5))
    members = [_layers(member) for member in members_of(classifier)]
    identity = (np.eye(inputs), np.zeros(inputs))

    def through(region: Region, member: int, layer: int, value: Affine) -> Iterator[Region]:
        if member == len(members):
            yield region
        elif layer == len(members[member]):
            done = Region(region.matrix, region.limit, region.inner, (*region.outputs, value))
            yield from through(done, member + 1, 0, identity)
        elif isinstance(linear := members[member][layer], nn.Linear):
            weight = linear.weight.detach().double().cpu().numpy()
            bias = np.zeros(len(weight)) if linear.bias is None else linear.bias.detach().double().cpu().numpy()
            yield from through(region, member, layer + 1, (weight @ value[0], weight @ value[1] + bias))
        else:
            for part, active in _patterns(region, value):
                kept = (value[0] * active[:, None], value[1] * active)
                yield from through(part, member, layer + 1, kept)

    return through(box, 0, 0, identity)


def _patterns(region: Region, value: Affine, unit: int = 0) -> Iterator[tuple[Region, Float64[np.ndarray, "units"]]]:
    """The parts of a region by which units are active, depth first: a part that is empty is not divided further."""
    weight, bias = value
    if unit == len(bias):
        yield region, np.zeros(unit)
        return
    parts = [(region.cut(weight[unit], bias[unit]), 1.0), (region.cut(-weight[unit], -bias[unit]), 0.0)]
    if parts[0][0] is None and parts[1][0] is None:
        parts = [(region, 0.0)]  # the unit is zero up to `THINNEST` everywhere
    for part, on in parts:
        if part is not None:
            for inner, active in _patterns(part, value, unit + 1):
                active[unit] = on
                yield inner, active


def _aggregation(classifier: nn.Module) -> Aggregation | None:
    opened = members_of(classifier) != [classifier] and isinstance(classifier, Ensemble)
    return classifier.aggregation if opened and isinstance(classifier, Ensemble) else None


def _scores(classifier: nn.Module, region: Region) -> Affine:
    """The scores of a classifier that is affine where its members are."""
    aggregation = _aggregation(classifier)
    if aggregation is None or isinstance(aggregation, Single):
        return region.outputs[0]
    if isinstance(aggregation, WeightedAverage) and aggregation.of == "logit":
        weights = np.array(aggregation.used_weights or (1.0,) * len(region.outputs))
        parts = list(zip(weights / weights.sum(), region.outputs, strict=True))
        return (
            np.sum([share * weight for share, (weight, _) in parts], axis=0),
            np.sum([share * bias for share, (_, bias) in parts], axis=0),
        )
    raise Unsupported(f"the scores of {aggregation} are not affine in regions; aggregate logits.")


def _decided(classifier: nn.Module, region: Region) -> Iterator[tuple[int, Region]]:
    """Parts of a region in which a classifier answers a class, or ties with it."""
    aggregation = _aggregation(classifier)
    if not isinstance(aggregation, MaxMargin) or len(region.outputs) == 1:
        scores = _scores(classifier, region) if not isinstance(aggregation, MaxMargin) else region.outputs[0]
        for answer in range(len(scores[1])):
            if (part := _best(region, scores, answer, ())) is not None:
                yield answer, part
        return
    if aggregation.of != "logit":
        raise Unsupported("gaps of confidences are not affine in regions; use MaxMargin(of='logit').")
    for part, tops in _ordered(region, 0):
        gaps = [_gap(outputs, *top) for outputs, top in zip(part.outputs, tops, strict=True)]
        for leader, (answer, _) in enumerate(tops):
            won: Region | None = part
            for other, gap in enumerate(gaps):
                if won is not None and other != leader:
                    won = _joined(won, gaps[leader][0] - gap[0], gaps[leader][1] - gap[1])
            if won is not None:
                yield answer, won


def _gap(outputs: Affine, top: int, second: int) -> tuple[Float64[np.ndarray, "inputs"], float]:
    weight, bias = outputs
    return weight[top] - weight[second], float(bias[top] - bias[second])


def _ordered(region: Region, member: int) -> Iterator[tuple[Region, list[tuple[int, int]]]]:
    """The parts of a region by the top class and the runner-up of each member."""
    if member == len(region.outputs):
        yield region, []
        return
    scores = region.outputs[member]
    for top in range(len(scores[1])):
        if (first := _best(region, scores, top, ())) is None:
            continue
        for second in range(len(scores[1])):
            if second != top and (part := _best(first, scores, second, (top,))) is not None:
                for inner, rest in _ordered(part, member + 1):
                    yield inner, [(top, second), *rest]


def _best(region: Region, scores: Affine, chosen: int, besides: tuple[int, ...]) -> Region | None:
    """The part in which no class has more than the chosen one, those `besides` left out."""
    part: Region | None = region
    for other in range(len(scores[1])):
        if part is not None and other != chosen and other not in besides:
            part = _joined(part, *_gap(scores, chosen, other))
    return part


def _joined(region: Region, slope: Float64[np.ndarray, "inputs"], offset: float) -> Region | None:
    """The part where `slope . x + offset >= 0`; all of it where that is zero throughout: a tie is both classes."""
    if not slope.any() and offset == 0:
        return region
    return region.cut(slope, offset)
