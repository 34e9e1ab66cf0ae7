"""The certifiers of this family: a relaxation, asked for the margins of a classifier at a radius."""

import functools
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from certifiers.certificate import Norm, ThreatModel
from certifiers.decision import DecisionCertifier, Margins
from certifiers.networks import Prepared, prepare
from certifiers.randomness import KeyedRandomness
from certifiers.registry import register
from certifiers.relaxation.backward import Intermediate
from certifiers.relaxation.ball import Ball
from certifiers.relaxation.ensemble_margins import ensemble_margins
from certifiers.relaxation.relaxation import BackwardBounds, Bounds, IntervalBounds, SeparateBounds
from ensembles.parameters import PositiveInt, execution_field


@dataclass(frozen=True, kw_only=True)
class RelaxationCertifier(DecisionCertifier):
    """Margins of networks and ensembles from a relaxation of their ReLUs.

    Single members, weighted averages and max-margin ensembles of logits or confidences: see `ensemble_margins`. Balls
    are cut to the box [0, 1].

    Attributes:
        batch_size: images at once; halved when memory runs out.
    """

    norms: ClassVar[frozenset[Norm]] = frozenset(Norm)

    batch_size: PositiveInt = execution_field(default=8)

    @abstractmethod
    def bounds(self, ball: Ball) -> Bounds:
        """The relaxation over a ball."""

    def inputs(self, x: Float[Tensor, "batch *shape"]) -> Tensor:
        """The images in the precision in which bounds are computed."""
        return x.double()

    def margins(
        self,
        classifier: nn.Module,
        x: Float[Tensor, "batch *shape"],
        prediction: Int64[Tensor, "batch"],
        radius: Float64[Tensor, "batch"],
        threat: ThreatModel,
        rng: KeyedRandomness,
    ) -> Float64[Tensor, "batch classes"]:
        """The lower bounds on the margins."""
        return self.bounded(classifier, x, prediction, radius, threat)

    def bounded(
        self,
        classifier: nn.Module,
        x: Float[Tensor, "batch *shape"],
        prediction: Int64[Tensor, "batch"],
        radius: Float64[Tensor, "batch"],
        threat: ThreatModel,
        *,
        rounding: bool = True,
    ) -> Float64[Tensor, "batch classes"]:
        """`margins`, or what they would be if nothing were given away for rounding."""
        prepared, inputs = prepare(classifier, x), self.inputs(x)
        balls = functools.partial(Ball.around, threat=threat, rounding=rounding)
        return torch.cat(
            self.in_parts(
                len(x),
                lambda part: ensemble_margins(
                    prepared, self.bounds(balls(inputs[part], radius[part])), prediction[part]
                ),
            )
        )

    def in_parts(self, count: int, compute: Callable[[slice], Tensor]) -> list[Tensor]:
        """What is computed of `batch_size` images at a time, or fewer where memory runs out.

        Raises:
            MemoryError, RuntimeError: memory runs out for a single image.
        """
        found: list[Tensor] = []
        first, at_once = 0, self.batch_size
        while first < count:
            try:
                found.append(compute(slice(first, first + at_once)))
            except (MemoryError, RuntimeError) as error:
                if at_once == 1 or not _is_out_of_memory(error):
                    raise
                at_once //= 2
            else:
                first += at_once
        return found


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error)


@dataclass(frozen=True, kw_only=True)
class NativeCertifier(RelaxationCertifier):
    """Bounds computed in this package, in plain torch.

    Attributes:
        dtype: the precision; float32 is about twice as fast and gives away more to rounding (see `rounding`).
        show_rounding: search a second time with nothing given away, and report as evidence what would be certified
            so, `unrounded_radius`. It takes twice the time. Certificates are the same.
    """

    dtype: Literal["float64", "float32"] = "float64"
    show_rounding: bool = False

    def inputs(self, x: Float[Tensor, "batch *shape"]) -> Tensor:
        """The images in `dtype`."""
        return x.to(getattr(torch, self.dtype))

    def without_rounding(self) -> Margins | None:
        """The bounds with nothing given away, if `show_rounding`."""
        return functools.partial(self.bounded, rounding=False) if self.show_rounding else None


@register("native-ibp")
@dataclass(frozen=True, kw_only=True)
class NativeIBP(NativeCertifier):
    """Interval bound propagation (Gowal et al., ICCV 2019) in plain torch, the last layer merged with the margins."""

    version: ClassVar[int] = 3

    def bounds(self, ball: Ball) -> Bounds:
        """Intervals."""
        return IntervalBounds(ball)


@dataclass(frozen=True, kw_only=True)
class BackwardCertifier(NativeCertifier):
    """Backward linear bounds, with intermediate bounds as the subclass says.

    Attributes:
        joint: the linear functions of an ensemble's members are added before they are bounded over the ball, so that
            what the members disagree on cancels; otherwise each member is bounded alone.
    """

    intermediate: ClassVar[Intermediate]

    joint: bool = True

    def bounds(self, ball: Ball) -> Bounds:
        """Backward bounds."""
        return self._combined(BackwardBounds(ball, self.intermediate))

    def _combined(self, bounds: BackwardBounds) -> Bounds:
        return bounds if self.joint else SeparateBounds(bounds)

    def descending(
        self,
        classifier: nn.Module,
        x: Float[Tensor, "batch *shape"],
        prediction: Int64[Tensor, "batch"],
        radii: Float64[Tensor, "level batch"],
        threat: ThreatModel,
    ) -> Float64[Tensor, "level batch classes"]:
        """`margins` at several radii an image, the largest first, all from the bounds on neurons at the largest one."""
        of = functools.partial(self._descended, prepare(classifier, x), self.inputs(x), prediction, radii, threat)
        return torch.cat(self.in_parts(len(x), of), dim=1)

    def _descended(
        self,
        prepared: Prepared,
        inputs: Tensor,
        prediction: Tensor,
        radii: Tensor,
        threat: ThreatModel,
        part: slice,
    ) -> Tensor:
        balls = [Ball.around(inputs[part], radius[part], threat) for radius in radii]
        largest = BackwardBounds(balls[0], self.intermediate)
        bounds = [self._combined(largest.within(ball)) for ball in balls]
        return torch.stack([ensemble_margins(prepared, own, prediction[part]) for own in bounds])


@register("native-crown-ibp")
@dataclass(frozen=True, kw_only=True)
class NativeCROWNIBP(BackwardCertifier):
    """CROWN-IBP (Zhang et al., ICLR 2020) in plain torch: backward linear bounds over intervals of the layers."""

    version: ClassVar[int] = 3
    intermediate: ClassVar[Intermediate] = "ibp"


@register("native-crown")
@dataclass(frozen=True, kw_only=True)
class NativeCROWN(BackwardCertifier):
    """CROWN (Zhang et al., NeurIPS 2018) in plain torch, each sample's unstable neurons bounded alone.

    Members of a weighted average of logits are bounded jointly: their linear functions of the input are added first.
    """

    version: ClassVar[int] = 3
    intermediate: ClassVar[Intermediate] = "crown"
