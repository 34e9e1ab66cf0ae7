"""The certifiers that let auto_LiRPA compute the bounds; the twins of the `native-` ones, and alpha-CROWN."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from certifiers.registry import register
from certifiers.relaxation.ball import Ball
from certifiers.relaxation.certifiers import RelaxationCertifier
from certifiers.relaxation.lirpa import LirpaBounds
from certifiers.relaxation.relaxation import Bounds
from ensembles.parameters import PositiveFloat, PositiveInt, execution_field


@register("ibp")
@dataclass(frozen=True, kw_only=True)
class IBP(RelaxationCertifier):
    """Interval bound propagation by auto_LiRPA: `W m + b -+ |W| d` for center m and half width d, layer by layer.

    In l1 and l2 the first layer is bounded over the ball, `W x + b -+ radius ||W_k||_dual`, and not over the box [0, 1]
    too, as in `native-ibp`. Source: Gowal et al., ICCV 2019, section 3; Xu et al., NeurIPS 2020.

    Attributes:
        batch_size: images at once; halved when memory runs out.
    """

    version: ClassVar[int] = 2

    batch_size: PositiveInt = execution_field(default=32)

    def bounds(self, ball: Ball) -> Bounds:
        """Intervals."""
        return LirpaBounds(ball, "ibp")


@register("crown-ibp")
@dataclass(frozen=True, kw_only=True)
class CROWNIBP(RelaxationCertifier):
    """CROWN-IBP by auto_LiRPA: backward linear bounds, `min over the ball of a . x + c`, over intervals of the layers.

    For an unstable ReLU on [l, u]: `alpha z <= relu(z) <= u (z - l) / (u - l)`, alpha 1 where u > -l, else 0. Source:
    Zhang et al., ICLR 2020, section 3; Xu et al., NeurIPS 2020.

    Attributes:
        batch_size: images at once; halved when memory runs out.
    """

    version: ClassVar[int] = 2

    batch_size: PositiveInt = execution_field(default=32)

    def bounds(self, ball: Ball) -> Bounds:
        """Backward bounds with intermediate bounds from intervals."""
        return LirpaBounds(ball, "crown-ibp")


@register("crown")
@dataclass(frozen=True, kw_only=True)
class CROWN(RelaxationCertifier):
    """CROWN by auto_LiRPA: backward linear bounds as in `crown-ibp`, of the neurons that intervals leave unstable too.

    Source: Zhang et al., NeurIPS 2018, section 3.3; Xu et al., NeurIPS 2020. Images are bounded one after the other.
    """

    version: ClassVar[int] = 2

    def bounds(self, ball: Ball) -> Bounds:
        """Backward bounds, intermediate ones too."""
        return LirpaBounds(ball, "crown")


@register("alpha-crown")
@dataclass(frozen=True, kw_only=True)
class AlphaCROWN(RelaxationCertifier):
    """alpha-CROWN by auto_LiRPA: CROWN, then `max over alpha of min over the ball of a(alpha) . x + c(alpha)`.

    The slopes alpha in [0, 1] of unstable ReLUs in the bounds of the margins are optimised by Adam; the bounds of
    neurons stay those of CROWN. Never below CROWN. Source: Xu et al., ICLR 2021, section 3.1.

    Attributes:
        steps: of Adam.
        learning_rate: of Adam; falls by 2% a step.
    """

    version: ClassVar[int] = 2
    example: ClassVar[Mapping[str, Any]] = MappingProxyType({"steps": 5})

    steps: PositiveInt = 20
    learning_rate: PositiveFloat = 0.5

    def bounds(self, ball: Ball) -> Bounds:
        """Optimised backward bounds."""
        return LirpaBounds(ball, "alpha-crown", self.steps, self.learning_rate)
