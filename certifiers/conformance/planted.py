"""Planted counterexamples: classifiers that change their answer at a known distance, where a method may not look.

All numbers are multiples of small powers of two, so that float32 computes these classifiers without rounding.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor, nn

from certifiers.certificate import Norm, ThreatModel
from certifiers.conformance.truth import linear_layer


@dataclass(frozen=True, eq=False)
class Planted:
    """A classifier, an image, and an input near it whose answer is not the image's.

    Attributes:
        name: of the family.
        classifier: in float32. Its mode is part of the trap: `dropout` is in train mode.
        x: one image.
        threat: the norm of the distance.
        distance: of the witness; a certificate of this radius or a larger one is false.
        safe: the exact radius, a little below: smaller certificates are true.
        witness: answered otherwise in eval mode, or with a tie, or with NaN.
    """

    name: str
    classifier: nn.Module
    x: Float32[Tensor, "1 inputs"]
    threat: ThreatModel
    distance: float
    safe: float
    witness: Float32[Tensor, "1 inputs"]


def unanswered(scores: Float[Tensor, "batch classes"], prediction: int) -> Bool[Tensor, "batch"]:
    """Whether scores do not answer `prediction`: another class has as much or more, or some score is not finite."""
    others = torch.cat([scores[:, :prediction], scores[:, prediction + 1 :]], dim=1)
    return (others >= scores[:, prediction, None]).any(1) | ~torch.isfinite(scores).all(1)


#: Inputs of every image here, and its value at all of them.
INPUTS, MIDDLE = 4, 0.5


def halfspace(threat: ThreatModel, distance: float = 0.125) -> Planted:
    """Class 1 beyond a hyperplane, in any norm: `z_0 = 0`, `z_1 = sum_i (x_i - c_i) - b`.

    `sum_i delta_i` reaches `distance` times 1 in l1, 2 in l2 and 4 in linf; b is 63/64 of that.
    """
    ones = torch.ones(1, INPUTS)
    weight, bias, safe, witness = _plane(threat, distance)
    classifier = nn.Sequential(nn.Flatten(), linear_layer(weight, bias))
    return Planted("halfspace", classifier.eval(), MIDDLE * ones, threat, distance, safe, witness)


def spike(threat: ThreatModel, distance: float = 0.125, width: float = 2.0**-7) -> Planted:
    """Class 1 in a spike of l1 radius `width / 2` around w, and nowhere else: `w = x + distance e_0`.

        z_0 = 1/2,   z_1 = relu(1 - sum_i |x_i - w_i| / width)

    Elsewhere the scores do not depend on the input, so that neither sampling nor gradients find it. The nearest point
    of the spike lies in the direction of w, in every norm.
    """
    x = torch.full((1, INPUTS), MIDDLE)
    witness = x.clone()
    witness[0, 0] += distance
    identity = torch.eye(INPUTS)
    classifier = nn.Sequential(
        nn.Flatten(),
        linear_layer(torch.cat([identity, -identity]), torch.cat([-witness[0], witness[0]])),
        nn.ReLU(),
        linear_layer(torch.full((1, 2 * INPUTS), -1 / width), torch.ones(1)),
        nn.ReLU(),
        linear_layer(torch.tensor([[0.0], [1.0]]), torch.tensor([0.5, 0.0])),
    )
    return Planted("spike", classifier.eval(), x, threat, distance, distance - width / 2, witness)


def tie(threat: ThreatModel) -> Planted:
    """A tie at the image itself, `z_1 = z_0 + sum_i (x_i - c_i)`: no positive radius is true, and x is the witness."""
    x = torch.full((1, INPUTS), MIDDLE)
    weight = torch.stack([torch.zeros(INPUTS), torch.ones(INPUTS)])
    classifier = nn.Sequential(nn.Flatten(), linear_layer(weight, torch.tensor([0.0, -MIDDLE * INPUTS])))
    return Planted("tie", classifier.eval(), x, threat, 0.0, 0.0, x.clone())


class NaNBeyond(nn.Module):
    """Logits (1, 0), and NaN where the first input is at least `limit`."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, x: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch 2"]:
        """The logits."""
        first = x.flatten(1)[:, :1]
        logits = torch.cat([torch.ones_like(first), torch.zeros_like(first)], dim=1)
        return logits + torch.where(first >= self.limit, torch.nan, 0.0)

    def extra_repr(self) -> str:
        """The limit, which takes part in the digest of the weights."""
        return f"limit={self.limit}"


def nan_region(threat: ThreatModel, distance: float = 0.125) -> Planted:
    """Logits that are not numbers at `distance` and beyond, along the first input."""
    x = torch.full((1, INPUTS), MIDDLE)
    witness = x.clone()
    witness[0, 0] += distance
    return Planted("nan region", NaNBeyond(MIDDLE + distance).eval(), x, threat, distance, distance, witness)


def dropout(threat: ThreatModel, distance: float = 0.125) -> Planted:
    """The half-space behind a `Dropout(p=1)` that was left in train mode, where the answer is 0 whatever the input.

    In eval mode, which is what a certificate speaks about, dropout does nothing.
    """
    plain = halfspace(threat, distance)
    assert isinstance(plain.classifier, nn.Sequential)  # noqa: S101
    flatten, linear = plain.classifier
    classifier = nn.Sequential(flatten, nn.Dropout(1.0), linear).train()
    return Planted("dropout", classifier, plain.x, threat, distance, plain.safe, plain.witness)


def _plane(threat: ThreatModel, distance: float) -> tuple[Tensor, Tensor, float, Tensor]:
    """Weight and bias of the half-space, its exact distance, and the point of it at `distance`."""
    x = torch.full((1, INPUTS), MIDDLE)
    deviation = {
        Norm.L1: torch.tensor([[distance, 0.0, 0.0, 0.0]]),
        Norm.L2: torch.full((1, INPUTS), distance / 2),
        Norm.LINF: torch.full((1, INPUTS), distance),
    }[threat.norm]
    weight = torch.stack([torch.zeros(INPUTS), torch.ones(INPUTS)])
    share = 63 / 64
    bias = torch.tensor([0.0, -MIDDLE * INPUTS - share * float(deviation.sum())])
    return weight, bias, share * distance, x + deviation


#: Every family, by name.
FAMILIES: dict[str, Callable[[ThreatModel], Planted]] = {
    "halfspace": halfspace,
    "spike": spike,
    "tie": tie,
    "nan region": nan_region,
    "dropout": dropout,
}


def planted(threat: ThreatModel) -> list[Planted]:
    """One classifier of every family."""
    return [build(threat) for build in FAMILIES.values()]
