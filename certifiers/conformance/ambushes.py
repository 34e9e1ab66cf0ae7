"""Counterexamples in ambush, new from each seed: hidden units that no gradient points to, with exact radii.

All numbers are multiples of small powers of two, so that float32 computes the classifiers without rounding.
"""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from certifiers.certificate import Norm, ThreatModel
from certifiers.conformance.truth import Truth, linear_layer
from ensembles.aggregation import Aggregation, MaxMargin
from ensembles.ensemble import Ensemble

INPUTS = 8

#: Which members answer otherwise at the counterexample: one of two, both, or none (only their sum does).
Where = Literal["alone", "one", "all", "sum"]
#: Where the counterexample lies in the box [0, 1].
Place = Literal["inside", "edge", "outside"]


def corner(
    generator: torch.Generator,
    threat: ThreatModel,
    where: Where = "alone",
    aggregation: Aggregation | None = None,
    place: Place = "inside",
) -> Truth:
    """A unit that is silent but in one corner of the linf ball: `u(x) = sum_i s_i (x_i - c_i) / d`, `s_i = -1 or 1`.

        b(x) = 32 relu(u(x) - t),   z_0 - z_1 = 1/2 - b(x)

    The answer changes where u reaches rho, t + 1/64 for one member: at rho in linf, `sqrt(d) rho` in l2, `d rho` in l1,
    and in all three first along s. Of a sample of the linf ball about none has u above half of rho.

    Args:
        generator: of the image, the corner and the distance.
        threat: the norm.
        where: a network alone; one member of two, or of three where the largest gap decides; all of two; or `sum`: one
            member always answers 1 and the other 0, and each gives in by less than half a margin, so that only the
            ensemble's answer changes.
        aggregation: of the two members, of logits.
        place: where the corner of radius rho lies: inside the box, at one of its corners, or outside, where no input of
            the box is answered otherwise.
    """
    signs = 2.0 * torch.randint(0, 2, (INPUTS,), generator=generator) - 1
    rho = float(torch.randint(6, 13, (), generator=generator)) / 64
    x = torch.randint(20, 45, (INPUTS,), generator=generator) / 64
    if place != "inside":
        # The far corner of the box is at `edge` in the direction of the signs.
        edge = rho if place == "edge" else rho - 1 / 128
        x = torch.where(signs > 0, 1 - edge, torch.tensor(edge))
    direction = signs / INPUTS
    offset = -float(direction @ x)

    def bump(threshold: float, cap: float | None) -> tuple[Tensor, Tensor, Tensor]:
        """Weights, biases and outer weights of `32 relu(u - threshold)`, at most `cap`."""
        if cap is None:
            return direction[None], torch.tensor([offset - threshold]), torch.tensor([32.0])
        biases = torch.tensor([offset - threshold, offset - threshold - cap / 32])
        return direction.expand(2, INPUTS), biases, torch.tensor([32.0, -32.0])

    classifier = _placed(bump, rho, where, aggregation, generator)
    factor = {Norm.LINF: 1.0, Norm.L2: INPUTS**0.5, Norm.L1: float(INPUTS)}[threat.norm]
    radius = float("inf") if place == "outside" else rho * factor
    name = f"a corner {place}, {_described(where, aggregation)}"
    return _truth(name, classifier, x[None], threat, radius)


def needle(
    generator: torch.Generator, threat: ThreatModel, where: Where = "alone", aggregation: Aggregation | None = None
) -> Truth:
    """A needle at a random point w, an l1 ball of a few hundredths: all scores are constant elsewhere.

        b(x) = relu(1 - sum_i |x_i - w_i| / width),   z_0 - z_1 = 1/2 - b(x)

    One coordinate of w - x is the largest by more than the width, so that the nearest point of the needle lies before w
    in that coordinate, in every norm.

    Args:
        generator: of the image and the needle.
        threat: the norm.
        where: as for `corner`.
        aggregation: of the two members, of logits.
    """
    width = 1 / 32
    x = torch.randint(20, 45, (INPUTS,), generator=generator) / 64
    away = torch.randint(-4, 5, (INPUTS,), generator=generator) / 64
    first = int(torch.randint(0, INPUTS, (), generator=generator))
    away[first] = float(2 * torch.randint(0, 2, (), generator=generator) - 1) * 12 / 64
    point = x + away

    def network(height: float, always: float) -> nn.Module:
        """`z_0 = always` (or z_1, where negative), and the bump of this height in the other's favour."""
        identity = torch.eye(INPUTS)
        outer = torch.tensor([[0.0], [height]])
        return nn.Sequential(
            nn.Flatten(),
            linear_layer(torch.cat([identity, -identity]), torch.cat([-point, point])),
            nn.ReLU(),
            linear_layer(torch.full((1, 2 * INPUTS), -1 / width), torch.ones(1)),
            nn.ReLU(),
            linear_layer(outer, torch.tensor([max(always, 0.0), max(-always, 0.0)])),
        )

    # The depth at which the answer changes: `b = depth`, at a distance of `(1 - depth) width` from w in l1.
    if where == "alone":
        classifier, depth = network(1.0, 0.5), 0.5
    elif where == "one":
        members = [network(2.0, 0.5)] + [network(0.0, 0.5) for _ in range(_others(aggregation))]
        classifier, depth = Ensemble(_shuffled(members, generator), aggregation), 0.5
    elif where == "all":
        classifier, depth = Ensemble([network(1.0, 0.5), network(1.0, 0.5)], aggregation), 0.5
    else:
        # Gaps 1 + b / 4 for class 1 and 11/8 - b / 4 for class 0: equal where b = 3/4.
        members = [network(0.25, -1.0), network(0.25, 1.375)]
        classifier, depth = Ensemble(_shuffled(members, generator), aggregation), 0.75
    reach = (1 - depth) * width
    nearest = away.double().abs()
    nearest[first] -= reach
    order = {Norm.L1: 1.0, Norm.L2: 2.0, Norm.LINF: float("inf")}[threat.norm]
    radius = float(torch.linalg.vector_norm(nearest, ord=order))
    return _truth(f"a needle, {_described(where, aggregation)}", classifier, x[None], threat, radius)


def _placed(
    bump: Callable[[float, float | None], tuple[Tensor, Tensor, Tensor]],
    rho: float,
    where: Where,
    aggregation: Aggregation | None,
    generator: torch.Generator,
) -> nn.Module:
    """The members of `corner`, such that the ensemble's answer changes where `u = rho`."""

    def network(unit: tuple[Tensor, Tensor, Tensor], always: float) -> nn.Module:
        weight, bias, outer = unit
        head = torch.stack([torch.zeros_like(outer), outer])
        ends = torch.tensor([max(always, 0.0), max(-always, 0.0)])
        return nn.Sequential(nn.Flatten(), linear_layer(weight, bias), nn.ReLU(), linear_layer(head, ends))

    silent = (torch.zeros(1, INPUTS), torch.zeros(1), torch.zeros(1))
    if where == "alone":
        return network(bump(rho - 1 / 64, None), 0.5).eval()
    if where == "one":
        # b must outweigh two margins, its own and another's: in the sum of two, or as the largest gap of three.
        members = [network(bump(rho - 1 / 32, None), 0.5)] + [network(silent, 0.5) for _ in range(_others(aggregation))]
    elif where == "all":
        members = [network(bump(rho - 1 / 64, None), 0.5) for _ in range(2)]
    else:
        # Class 1 by 1 + b and class 0 by 11/8 - b, b at most 1/4: equal where b = 3/16.
        unit = bump(rho - 3 / 512, 0.25)
        members = [network(unit, -1.0), network(unit, 1.375)]
    return Ensemble(_shuffled(members, generator), aggregation).eval()


def _others(aggregation: Aggregation | None) -> int:
    """How many members know nothing of the counterexample; of three, the average and the largest gap differ."""
    return 2 if isinstance(aggregation, MaxMargin) else 1


def _shuffled(members: list[nn.Module], generator: torch.Generator) -> list[nn.Module]:
    return [members[index] for index in torch.randperm(len(members), generator=generator).tolist()]


def _described(where: Where, aggregation: Aggregation | None) -> str:
    said = {
        "alone": "one network",
        "one": "in one member",
        "all": "in all members",
        "sum": "only in the sum of members",
    }
    return said[where] + ("" if aggregation is None else f", {aggregation.name}")


def _truth(
    name: str, classifier: nn.Module, x: Float32[Tensor, "1 inputs"], threat: ThreatModel, radius: float
) -> Truth:
    return Truth(
        name,
        classifier.eval(),
        x,
        threat,
        torch.zeros(1, dtype=torch.int64),
        torch.tensor([radius], dtype=torch.float64),
    )
