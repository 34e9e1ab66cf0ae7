"""Certified radii from Lipschitz constants that hold everywhere."""

from abc import abstractmethod
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from certifiers.certificate import Findings, Norm, ThreatModel
from certifiers.certifier import RadiusCertifier
from certifiers.decision import positive_margins, search_by_bisection
from certifiers.lipschitz.lipschitz_bounds import LipschitzBounds, global_constants
from certifiers.networks import Network, Prepared, prepare
from certifiers.randomness import KeyedRandomness
from certifiers.registry import register
from certifiers.relaxation.ball import Ball
from certifiers.relaxation.ensemble_margins import ensemble_margins, normalized, pairs
from ensembles.aggregation import Single, WeightedAverage

#: Halvings of the bracket where a radius has no closed form.
STEPS = 30


class GlobalBounds(LipschitzBounds):
    """Constants that hold on the whole space; those of several networks add."""

    def constants(
        self, networks: Sequence[Network], specifications: Sequence[Float[Tensor, "batch rows outputs"]]
    ) -> Float64[Tensor, "batch rows"]:
        """`sum_i L_i`."""
        parts = [self.own(*pair) for pair in zip(networks, specifications, strict=True)]
        return torch.stack(parts).sum(0) * (1 + len(parts) * torch.finfo(torch.float64).eps)

    def own(
        self, network: Network, specification: Float[Tensor, "batch rows outputs"]
    ) -> Float64[Tensor, "batch rows"]:
        """The constants of one network."""
        return global_constants(network, specification, self.ball.norm)

    def at(self, radius: Float64[Tensor, "batch"]) -> "GlobalBounds":
        """The same bounds with other radii; nothing is computed again."""
        other = copy(self)
        other.ball = replace(self.ball, radius=radius)
        return other


@dataclass(frozen=True, kw_only=True)
class GlobalLipschitzCertifier(RadiusCertifier):
    """Radii from constants that do not depend on the radius: the margins fall in straight lines.

        radius = min over j != y of (z_y(x) - z_j(x)) / L_yj

    for one network, and for a weighted average of logits with `L_yj = sum_i w_i L_i,yj`. Other ensembles combine
    their members' margins at a radius (see `ensemble_margins`: confidences, and Lemma B.1 of Yang et al., ICLR 2022,
    for max-margin ensembles), and the largest such radius is searched for; only one at which the ensemble's own
    margins were shown positive is reported. Balls are not cut to the box [0, 1]; no radius is above its diameter.

    Evidence: `lipschitz_constant`, of the margin that gives the radius, or the largest of all members' where the radius
    was searched for; `margin`, that margin less its rounding error, or infinite.
    """

    @abstractmethod
    def bounds(self, ball: Ball) -> GlobalBounds:
        """The constants."""

    def radii(
        self,
        classifier: nn.Module,
        x: Float[Tensor, "batch *shape"],
        threat: ThreatModel,
        rng: KeyedRandomness,
    ) -> Findings:
        """The radii at which the margins reach zero."""
        prepared = prepare(classifier, x)
        networks, aggregation = prepared.networks, prepared.aggregation
        bounds = self.bounds(Ball.around(x.double().cpu(), torch.zeros(len(x), dtype=torch.float64), threat))
        logits = torch.stack([bounds.center(network)[0] for network in networks])
        prediction = (logits[0] if aggregation is None else aggregation.scores(logits)).argmax(1)
        limit = torch.tensor(threat.box_diameter(x[0].numel()), dtype=torch.float64)
        specification = pairs(prediction, logits.shape[-1])
        if aggregation is None or type(aggregation) is Single:
            lines = _Lines.of(bounds, networks[:1], [specification], prediction)
        elif type(aggregation) is WeightedAverage and aggregation.of == "logit":
            weights = normalized(aggregation, len(networks))
            lines = _Lines.of(bounds, networks, [weight * specification for weight in weights], prediction)
        else:
            return _searched(prepared, bounds, prediction, specification, limit)
        nearest = lines.zeros.min(1, keepdim=True)
        return Findings(
            radius=torch.minimum(nearest.values[:, 0], limit),
            prediction=prediction,
            bound_passes=1,
            evidence={
                "lipschitz_constant": lines.constants.gather(1, nearest.indices)[:, 0],
                "margin": lines.values.gather(1, nearest.indices)[:, 0],
            },
        )


@dataclass(frozen=True, eq=False)
class _Lines:
    """Margins `value - radius constant`, and where they are zero: infinite in the column of the prediction."""

    values: Float64[Tensor, "batch classes"]
    constants: Float64[Tensor, "batch classes"]
    zeros: Float64[Tensor, "batch classes"]

    @classmethod
    def of(
        cls,
        bounds: GlobalBounds,
        networks: Sequence[Network],
        specifications: Sequence[Tensor],
        prediction: Int64[Tensor, "batch"],
    ) -> "_Lines":
        values, constants = bounds.values(networks, specifications), bounds.constants(networks, specifications)
        # Of constant zero: nowhere, if the margin is positive.
        zeros = torch.where((constants == 0) & (values <= 0), 0.0, values / constants)
        return cls(values, constants, zeros.scatter(1, prediction[:, None], torch.inf))


def _searched(
    prepared: Prepared, bounds: GlobalBounds, prediction: Tensor, specification: Tensor, limit: Tensor
) -> Findings:
    """The largest radius at which the ensemble's margins are positive, by bisection."""
    members = [_Lines.of(bounds, [network], [specification], prediction) for network in prepared.networks]
    finite = torch.stack([own.zeros.scatter(1, prediction[:, None], -torch.inf).amax(1) for own in members])
    # Beyond this radius no margin of any member is positive, and no combination of them either.
    furthest = torch.minimum(finite.amax(0).nan_to_num(nan=0.0, posinf=torch.inf).clamp(min=0), limit)

    def decide(fraction: Tensor) -> Tensor:
        margins = ensemble_margins(prepared, bounds.at(fraction * furthest), prediction)
        return positive_margins(margins, prediction, margins.shape[1])

    return Findings(
        radius=search_by_bisection(decide, len(prediction), 1.0, STEPS) * furthest,
        rounded=True,
        prediction=prediction,
        bound_passes=STEPS,
        evidence={
            "lipschitz_constant": torch.stack([own.constants.amax(1) for own in members]).amax(0),
            "margin": torch.full((len(prediction),), torch.inf, dtype=torch.float64),
        },
    )


@register("lipschitz")
@dataclass(frozen=True, kw_only=True)
class GlobalLipschitz(GlobalLipschitzCertifier):
    """Margin over Lipschitz constant (Tsuzuku et al., NeurIPS 2018), in l1, l2 and linf.

    The constant of a margin is the dual norm of its row through the last affine layers, `||(e_y - e_j) W||_dual`, times
    the product of the operator norms of the layers before, where the branches of a sum add. Operator norms are proved
    upper bounds: see `layer_norms`.
    """

    version: ClassVar[int] = 2
    norms: ClassVar[frozenset[Norm]] = frozenset(Norm)

    def bounds(self, ball: Ball) -> GlobalBounds:
        """Products of operator norms."""
        return GlobalBounds(ball)
