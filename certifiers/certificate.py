"""What a certifier answers: threat models, verdicts, certificates.

A certificate says: *for every input within `radius` of x in this norm, the certified function still answers
`prediction`*. It never mentions the true label.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

import torch
from jaxtyping import Float64, Int8, Int64
from torch import Tensor

from ensembles.registry import did_you_mean


class Norm(StrEnum):
    """The norm in which distances are measured, in input units."""

    L1 = "l1"
    L2 = "l2"
    LINF = "linf"

    @classmethod
    def _missing_(cls, value: object) -> "Norm":
        allowed = [norm.value for norm in cls]
        raise ValueError(f"Unknown norm {value!r}. {did_you_mean(str(value), allowed)}Allowed: {', '.join(allowed)}.")


@dataclass(frozen=True)
class ThreatModel:
    """The perturbations a certificate speaks of: all `x + delta` with `||delta|| <= radius` in this norm.

    Inputs are images in [0, 1]; a certifier may use that only such inputs can occur.
    """

    norm: Norm

    def __init__(self, norm: Norm | str) -> None:
        object.__setattr__(self, "norm", Norm(norm))

    def box_diameter(self, dimensions: int) -> float:
        """The largest distance between two images in [0, 1]^d: no ball need be larger."""
        return {Norm.L1: float(dimensions), Norm.L2: math.sqrt(dimensions), Norm.LINF: 1.0}[self.norm]


class Verdict(IntEnum):
    """The outcome for one image. Everything but CERTIFIED has radius 0."""

    CERTIFIED = 0
    UNKNOWN = 1
    ABSTAINED = 2
    FALSIFIED = 3
    UNSUPPORTED = 4
    TIMEOUT = 5
    ERROR = 6


class Guarantee(StrEnum):
    """Whether a certificate is a proof, or true except with a stated probability."""

    DETERMINISTIC = "deterministic"
    PROBABILISTIC = "probabilistic"


class Unsupported(Exception):  # noqa: N818  (an answer, not an error)
    """Raised by a certifier that does not apply: says why, and what would work. It ends up on the board."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What an author's method found, before `Certifier.certify` believes any of it.

    Attributes:
        radius: certified radii; not finite, negative or zero means not certified.
        prediction: the class each radius speaks of; None: the classifier's own answer at x.
        verdict: `Verdict` values to report where there is no certificate; None: UNKNOWN. A row marked other
            than CERTIFIED or UNKNOWN is never certified, whatever its radius.
        failure_probability: of each certificate that is given, 0 for proofs.
        evidence: columns of numbers or strings, one value an image: what the radius was computed from.
        reason: why an image has no certificate; empty where nothing is to be said.
        forward_passes: an image's number of member evaluations in the method.
        bound_passes: an image's number of bound computations.
        rounded: the radii are what was proved, not results of arithmetic, and need no rounding down.
    """

    radius: Tensor
    prediction: Tensor | None = None
    verdict: Tensor | None = None
    failure_probability: float = 0.0
    evidence: Mapping[str, Tensor | Sequence[str]] = field(default_factory=dict)
    reason: Sequence[str] | None = None
    forward_passes: Tensor | int = 0
    bound_passes: Tensor | int = 0
    rounded: bool = False


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What each image cost.

    `forward_passes` counts inputs sent through a member, summed over the members that the classifier needs;
    `bound_passes` counts bound computations; both are deterministic. `seconds` is measured; a pass that
    serves several classifiers is shared equally among them.
    """

    forward_passes: Int64[Tensor, "batch"]
    bound_passes: Int64[Tensor, "batch"]
    seconds: Float64[Tensor, "batch"]


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """The answers for a batch of images.

    Attributes:
        prediction: the class the certificate speaks of; -1 where there is none.
        radius: rounded down, in input units; 0 unless CERTIFIED.
        verdict: values of `Verdict`.
        failure_probability: 0 for a proof, else the alpha of each CERTIFIED image.
        evidence: what the radius was computed from, a column a name.
        reason: why there is no certificate; empty where there is one.
        cost: forward passes, bound passes, seconds.
    """

    prediction: Int64[Tensor, "batch"]
    radius: Float64[Tensor, "batch"]
    verdict: Int8[Tensor, "batch"]
    failure_probability: Float64[Tensor, "batch"]
    evidence: Mapping[str, Tensor | Sequence[str]]
    reason: tuple[str, ...]
    cost: Cost

    def __len__(self) -> int:
        return len(self.radius)

    @property
    def certified(self) -> "torch.Tensor":
        """The mask of CERTIFIED images."""
        return self.verdict == Verdict.CERTIFIED
