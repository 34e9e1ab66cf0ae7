"""Closed forms: the exact certified radius of linear models, and of ensembles that are linear."""

from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from certifiers.certificate import Findings, Norm, ThreatModel, Unsupported
from certifiers.certifier import RadiusCertifier
from certifiers.decision import DecisionCertifier
from certifiers.randomness import KeyedRandomness
from certifiers.registry import register
from ensembles.aggregation import Single, WeightedAverage
from ensembles.architectures import Classifier, Normalize
from ensembles.ensemble import Ensemble

#: The dual of each norm: |a.delta| <= ||a||_dual ||delta||.
DUAL_ORDER = {Norm.L1: float("inf"), Norm.L2: 2.0, Norm.LINF: 1.0}


@dataclass(frozen=True)
class AffineForm:
    """`z(x) = weight x + bias` on flattened inputs, in float64."""

    weight: Float64[Tensor, "classes inputs"]
    bias: Float64[Tensor, "classes"]

    def margins(
        self, x: Float[Tensor, "batch *shape"], prediction: Int64[Tensor, "batch"]
    ) -> tuple[Float64[Tensor, "batch classes"], Float64[Tensor, "batch classes"]]:
        """`z_y - z_j` at x for y = prediction and all j, and a bound on the error of computing it.

        The error is the standard a priori one of an inner product, `gamma_k (|w| |x| + |b|)` with
        `gamma_k = k u / (1 - k u)` and u the unit roundoff (Higham, 2002, section 3.1).
        """
        flat = x.flatten(1).double()
        difference = self.weight[prediction][:, None, :] - self.weight[None]
        offset = self.bias[prediction][:, None] - self.bias[None]
        margins = torch.einsum("bji,bi->bj", difference, flat) + offset
        operations = flat.shape[1] + 3
        unit = torch.finfo(torch.float64).eps
        gamma = operations * unit / (1 - operations * unit)
        size = torch.einsum("bji,bi->bj", difference.abs(), flat.abs()) + offset.abs()
        return margins, gamma * size

    def dual_norms(self, prediction: Int64[Tensor, "batch"], norm: Norm) -> Float64[Tensor, "batch classes"]:
        """`||w_y - w_j||` in the dual norm, for y = prediction and all j."""
        difference = self.weight[prediction][:, None, :] - self.weight[None]
        norms: Tensor = torch.linalg.vector_norm(difference, ord=DUAL_ORDER[norm], dim=-1)
        return norms


def affine_form(classifier: nn.Module, example: Float[Tensor, "1 *shape"]) -> AffineForm:
    """The affine map that a classifier computes, in float64.

    Linear are: Linear, Flatten, Identity, Normalize, Dropout in eval mode, sequences of them, and ensembles
    of such members under a single member or a weighted average of logits.

    Raises:
        Unsupported: some layer or the aggregation is not affine; says which.
    """
    if isinstance(classifier, Ensemble):
        forms = [affine_form(member, example) for member in classifier.used_members()]
        aggregation = classifier.aggregation
        if isinstance(aggregation, Single):
            return forms[0]
        if isinstance(aggregation, WeightedAverage) and aggregation.of == "logit":
            given = aggregation.weights or (1.0,) * len(forms)
            weights = torch.tensor(given, dtype=torch.float64) / sum(given)
            return AffineForm(
                torch.einsum("m,mci->ci", weights, torch.stack([form.weight for form in forms])),
                torch.einsum("m,mc->c", weights, torch.stack([form.bias for form in forms])),
            )
        raise Unsupported(
            f"closed-form needs scores that are linear in the input; the aggregation {aggregation.name!r} of "
            'confidences or gaps is not. Use weighted-average of = "logit", or a certifier for networks.'
        )
    _require_affine(classifier)
    # An affine map is read off its values at zero and at the unit vectors, in the precision of a float64 copy.
    double = deepcopy(classifier).double().cpu()
    inputs = example[0].numel()
    points = torch.cat([torch.zeros(1, inputs), torch.eye(inputs)]).double().reshape(inputs + 1, *example.shape[1:])
    values = double(points)
    return AffineForm((values[1:] - values[:1]).T.contiguous(), values[0])


def _require_affine(module: nn.Module) -> None:
    affine = (nn.Linear, nn.Flatten, nn.Identity, nn.Dropout, Normalize)
    containers = (nn.Sequential, Classifier)
    if isinstance(module, affine):
        return
    if not isinstance(module, containers):
        raise Unsupported(
            f"closed-form certifies linear models; the layer {type(module).__name__} is not linear. "
            "Use smoothing, or a certifier for networks."
        )
    for child in module.children():
        _require_affine(child)


@register("closed-form")
@dataclass(frozen=True, kw_only=True)
class ClosedForm(RadiusCertifier):
    """The distance of x to the nearest decision boundary of a linear model: exact, in l1, l2 and linf.

        radius = min over j != y of (z_y(x) - z_j(x)) / ||w_y - w_j||_dual

    The boundary itself is excluded by rounding: margins lose their float64 error bound before the division.
    Balls are not cut to the box [0, 1], where the radius could be larger; a model without a boundary gets the
    diameter of the box.
    """

    version: ClassVar[int] = 1
    norms: ClassVar[frozenset[Norm]] = frozenset(Norm)

    def radii(
        self,
        classifier: nn.Module,
        x: Float[Tensor, "batch *shape"],
        threat: ThreatModel,
        rng: KeyedRandomness,
    ) -> Findings:
        """The distances to the boundary."""
        form = affine_form(classifier, x[:1])
        prediction = (x.flatten(1).double() @ form.weight.T + form.bias).argmax(1)
        margins, error = form.margins(x, prediction)
        norms = form.dual_norms(prediction, threat.norm) * (1 + 1e-12)
        distances = ((margins - error) / norms).scatter(1, prediction[:, None], torch.inf)
        nearest = distances.min(1)
        return Findings(
            radius=nearest.values.clamp(max=threat.box_diameter(x[0].numel())),
            prediction=prediction,
            bound_passes=1,
            evidence={
                "margin": margins.gather(1, nearest.indices[:, None])[:, 0],
                "runner_up": nearest.indices,
            },
        )


@register("closed-form-margins")
@dataclass(frozen=True, kw_only=True)
class ClosedFormMargins(DecisionCertifier):
    """The same truth asked one radius at a time: the least margin of a linear model over the ball.

        min over ||delta|| <= r of z_y - z_j = (z_y(x) - z_j(x)) - r ||w_y - w_j||_dual

    It shows how a decision certifier is written, and checks the search against `closed-form`.
    """

    version: ClassVar[int] = 1
    norms: ClassVar[frozenset[Norm]] = frozenset(Norm)

    def margins(
        self,
        classifier: nn.Module,
        x: Float[Tensor, "batch *shape"],
        prediction: Int64[Tensor, "batch"],
        radius: Float64[Tensor, "batch"],
        threat: ThreatModel,
        rng: KeyedRandomness,
    ) -> Float64[Tensor, "batch classes"]:
        """The least margins, less the error of computing them."""
        form = affine_form(classifier, x[:1])
        margins, error = form.margins(x, prediction)
        return margins - error - radius[:, None] * form.dual_norms(prediction, threat.norm) * (1 + 1e-12)
