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
from ensembles.ensemble import Ensemble, members_of

#: The dual of each norm: |a.delta| <= ||a||_dual ||delta||.
DUAL_ORDER = {Norm.L1: float("inf"), Norm.L2: 2.0, Norm.LINF: 1.0}


_UNIT = torch.finfo(torch.float64).eps  # twice the unit roundoff, which leaves room for rounding the bounds


@dataclass(frozen=True)
class AffineForm:
    """`z(x) = weight x + bias` on flattened inputs, in float64 on the CPU, known up to errors of rounding.

    Each entry of `weight` and `bias` is off by at most that of `weight_error` and `bias_error`.
    """

    weight: Float64[Tensor, "classes inputs"]
    bias: Float64[Tensor, "classes"]
    weight_error: Float64[Tensor, "classes inputs"]
    bias_error: Float64[Tensor, "classes"]

    def margins(
        self, x: Float[Tensor, "batch *shape"], prediction: Int64[Tensor, "batch"]
    ) -> tuple[Float64[Tensor, "batch classes"], Float64[Tensor, "batch classes"]]:
        """`z_y - z_j` at x for y = prediction and all j, and a bound on their error.

        That is the error of the form, and the a priori one of an inner product, `gamma_k (|w| |x| + |b|)`.
        """
        flat = x.flatten(1).double().cpu()
        difference, offset = _pairs(self.weight, prediction), _pairs(self.bias, prediction)
        margins = torch.einsum("bji,bi->bj", difference, flat) + offset
        size = torch.einsum("bji,bi->bj", difference.abs(), flat.abs()) + offset.abs()
        form_error = flat.abs() @ self.weight_error.T + self.bias_error
        error = form_error + form_error.gather(1, prediction.cpu()[:, None])
        return margins, _gamma(flat.shape[1] + 3) * size + error * (1 + _gamma(flat.shape[1] + 3))

    def dual_norms(self, prediction: Int64[Tensor, "batch"], norm: Norm) -> Float64[Tensor, "batch classes"]:
        """`||w_y - w_j||` in the dual norm, for y = prediction and all j, or a few roundings more."""
        order = DUAL_ORDER[norm]
        norms: Tensor = torch.linalg.vector_norm(_pairs(self.weight, prediction), ord=order, dim=-1)
        errors: Tensor = torch.linalg.vector_norm(self.weight_error, ord=order, dim=-1)
        return (norms + errors[prediction.cpu()][:, None] + errors) * (1 + _gamma(self.weight.shape[1] + 8))


def affine_form(classifier: nn.Module, example: Float[Tensor, "1 *shape"]) -> AffineForm:
    """The affine map that a classifier computes, in float64.

    Linear are: Linear, Flatten, Identity, Normalize, Dropout in eval mode, sequences of them, and ensembles
    of such members under a single member or a weighted average of logits. Subclasses, hooks and a `forward` of an
    object's own may compute anything else, so they are refused.

    Raises:
        Unsupported: some layer or the aggregation is not affine; says which.
    """
    if type(classifier) is not Ensemble:
        return _form_of_chain(classifier, example)
    members = members_of(classifier)
    if members == [classifier]:
        raise Unsupported("closed-form cannot see what the ensemble's hooks, or its own forward, do. Remove them.")
    forms = [affine_form(member, example) for member in members]
    aggregation = classifier.aggregation
    if type(aggregation) is Single:
        return forms[0]
    if type(aggregation) is WeightedAverage and aggregation.of == "logit":
        given = aggregation.used_weights or (1.0,) * len(forms)
        weights = torch.tensor(given, dtype=torch.float64) / sum(given)
        mean = [
            torch.einsum("m,m...->...", weights, torch.stack(parts))
            for parts in (
                [form.weight for form in forms],
                [form.bias for form in forms],
                [form.weight_error + _gamma(2 * len(forms) + 2) * form.weight.abs() for form in forms],
                [form.bias_error + _gamma(2 * len(forms) + 2) * form.bias.abs() for form in forms],
            )
        ]
        slack = 1 + _gamma(2 * len(forms) + 2)
        return AffineForm(mean[0], mean[1], mean[2] * slack, mean[3] * slack)
    raise Unsupported(
        f"closed-form needs scores that are linear in the input; the aggregation {aggregation.name!r} of "
        'confidences, gaps or votes is not. Use weighted-average of = "logit", or a certifier for networks.'
    )


def _form_of_chain(network: nn.Module, example: Tensor) -> AffineForm:
    """The form of a chain of affine layers, and what float64 makes of it.

    The columns of the weight are the values at the unit vectors, without biases and means; the bias is the value at
    zero. An output that k roundings lead to is off by at most `gamma_k = k u / (1 - k u)` times the value of the same
    chain with absolute values in the place of all numbers (Higham, 2002, sections 3.1 and 3.5).
    """
    operations = _operations(network)
    inputs = example[0].numel()
    zero = torch.zeros(1, *example.shape[1:], dtype=torch.float64)
    units = torch.eye(inputs, dtype=torch.float64).reshape(inputs, *example.shape[1:])
    gamma = _gamma(operations + 2)
    return AffineForm(
        weight=_copy(network, offsets=False)(units).T.contiguous(),
        bias=_copy(network)(zero)[0],
        weight_error=gamma * _copy(network, offsets=False, absolute=True)(units).T,
        bias_error=gamma * _copy(network, absolute=True)(zero)[0],
    )


def _copy(network: nn.Module, *, offsets: bool = True, absolute: bool = False) -> nn.Module:
    """A float64 copy; without biases and means, or with absolute values (and means added), as asked."""
    copy = deepcopy(network).double().cpu().eval().requires_grad_(requires_grad=False)
    for layer in copy.modules():
        for name, tensor in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]:
            if name in ("bias", "mean") and not offsets:
                tensor.zero_()
            elif absolute:
                tensor.copy_(-tensor.abs() if name == "mean" else tensor.abs())
    return copy


def _operations(module: nn.Module) -> int:
    """How many roundings lead to an output of a chain of affine layers.

    Raises:
        Unsupported: it is not such a chain.
    """
    kind = type(module)
    if kind not in (nn.Linear, Normalize, nn.Flatten, nn.Identity, nn.Dropout, nn.Sequential, Classifier):
        raise Unsupported(
            f"closed-form certifies linear models; the layer {kind.__name__} is not linear. "
            "Use smoothing, or a certifier for networks."
        )
    if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
        raise Unsupported(
            f"closed-form cannot see what the hooks of the layer {kind.__name__}, or its own forward, do. Remove them."
        )
    if isinstance(module, nn.Linear):
        return module.in_features + 1
    # `children` would skip a layer that occurs twice.
    return 2 * (kind is Normalize) + sum(_operations(child) for child in module._modules.values() if child is not None)


def _pairs(values: Float64[Tensor, "classes *rest"], prediction: Tensor) -> Float64[Tensor, "batch classes *rest"]:
    """`values[y] - values[j]` for y = prediction and all j."""
    return values[prediction.cpu()][:, None] - values[None]


def _gamma(operations: int) -> float:
    return operations * _UNIT / (1 - operations * _UNIT)


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
    complete: ClassVar[bool] = True

    def radii(
        self,
        classifier: nn.Module,
        x: Float[Tensor, "batch *shape"],
        threat: ThreatModel,
        rng: KeyedRandomness,
    ) -> Findings:
        """The distances to the boundary."""
        form = affine_form(classifier, x[:1])
        prediction = (x.flatten(1).double().cpu() @ form.weight.T + form.bias).argmax(1)
        margins, error = form.margins(x, prediction)
        distances = ((margins - error) / form.dual_norms(prediction, threat.norm)).scatter(
            1, prediction[:, None], torch.inf
        )
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
    complete: ClassVar[bool] = True

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
        # The norms have room for the roundings of this line, too: each is less than a unit of the larger number.
        return margins - error - radius.cpu()[:, None] * form.dual_norms(prediction, threat.norm)
