"""Bounds by auto_LiRPA (Xu et al., NeurIPS 2020), which is imported here alone, and only when bounds are asked for."""

import contextlib
import importlib
import importlib.metadata
import inspect
import math
import sys
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from certifiers.certificate import Norm, Unsupported
from certifiers.networks import Network
from certifiers.relaxation.affine import cast
from certifiers.relaxation.ball import Ball
from certifiers.relaxation.lirpa_networks import Joint, boundable, input_shift, is_square
from certifiers.relaxation.lirpa_repairs import quiet, repair_members, repaired, skip_second_padding
from certifiers.relaxation.relaxation import Bounds

#: What auto_LiRPA computes: intervals; backward bounds over them; backward bounds throughout; the same, optimised.
Method = Literal["ibp", "crown-ibp", "crown", "alpha-crown"]

#: What a bound gives away for rounding: times the largest value in the networks at the center, or 1, for each output
#: that it sums, and times the bound. Two things are paid from it. The bound itself is computed in float64, where the
#: error of every layer, `gamma_n |A| (|W| |x| + |b|)` (see `rounding`), is ten million times smaller, unless what
#: cancels is that much larger than the values: the coefficients A are not known outside auto_LiRPA. And the classifier
#: runs in float32: logits of the architectures here are off by less than 6e-8 times their size.
SLACK = 5e-6

#: How far, times its size, a neuron's lower bound may exceed its upper one by rounding before both are disbelieved.
CROSSING = 1e-4

_NAMES = {"ibp": "IBP", "crown-ibp": "CROWN-IBP", "crown": "CROWN", "alpha-crown": "CROWN-Optimized"}
_ORDERS = {Norm.L1: 1.0, Norm.L2: 2.0, Norm.LINF: math.inf}

_recordings: "weakref.WeakKeyDictionary[Network, dict[Any, tuple[Any, Tensor]]]" = weakref.WeakKeyDictionary()


def library() -> Any:
    """The package auto_LiRPA, repaired where it is 0.3.

    Raises:
        Unsupported: it is not installed, or cannot be imported.
    """
    try:
        if "auto_LiRPA" in sys.modules:
            found = importlib.import_module("auto_LiRPA")
        else:
            with repaired(old=_is_old()):
                found = importlib.import_module("auto_LiRPA")
    except ImportError as error:
        if error.name == "auto_LiRPA":
            raise Unsupported(
                "auto_LiRPA is not installed. Install it: `pip install --no-deps auto-LiRPA==0.3`; "
                "native-crown needs nothing."
            ) from None
        raise Unsupported(
            f"auto_LiRPA cannot be imported ({error}). Install what it needs; native-crown needs nothing."
        ) from error
    repair_members(found.BoundedModule)
    return found


def record(module: nn.Module, example: Float[Tensor, "1 *shape"], **options: Any) -> Any:
    """The `BoundedModule` of a module; 0.3 can make one only here, where what it misses is there."""
    package = library()
    with repaired(old=_is_old()):
        return package.BoundedModule(module, example, device=str(example.device), **options)


def _is_old() -> bool:
    """Whether the installed version is 0.3 or before; one without metadata is a newer one, from its repository."""
    try:
        version = importlib.metadata.version("auto_LiRPA")
    except importlib.metadata.PackageNotFoundError:
        return False
    return tuple(int(part) for part in version.split(".")[:2]) <= (0, 3)


class LirpaBounds(Bounds):
    """Bounds by auto_LiRPA in float64, less `SLACK`; several networks are bounded jointly, as one graph.

    What is known to go wrong in it is kept out: every computation gets a new tensor with the ball itself, so that
    nothing of an earlier ball is used; a graph is recorded for one set of networks, method and norm, and for
    `alpha-crown` anew in every call, because slopes survive in it; layers that it gets wrong are rewritten or
    refused (`boundable`). A bound is NaN where any number on the way is NaN or infinite (0.3 drops some NaN), where
    bounds cross, and where it exceeds the value at the center.

    Attributes:
        ball: the inputs.
        method: see `Method`.
        steps: of the optimisation of `alpha-crown`.
        learning_rate: of its slopes, which lie in [0, 1].
    """

    def __init__(self, ball: Ball, method: Method, steps: int = 20, learning_rate: float = 0.5) -> None:
        self.ball = ball
        self.method = method
        self.steps = steps
        self.learning_rate = learning_rate

    def lower(
        self, networks: Sequence[Network], specifications: Sequence[Float[Tensor, "batch rows outputs"]]
    ) -> Float[Tensor, "batch rows"]:
        """Lower bounds on `sum_i specifications[i] . networks[i](x)` over the ball of each sample.

        Raises:
            Unsupported: auto_LiRPA is not installed, or a layer has no bounds in it.
        """
        if self.method == "ibp":
            # Intervals of a joint graph would be added too, but without merging the last layers with the specification.
            parts = [self._joint([network], [own]) for network, own in zip(networks, specifications, strict=True)]
            return torch.stack(parts).sum(0)
        return self._joint(networks, specifications)

    def _joint(
        self, networks: Sequence[Network], specifications: Sequence[Float[Tensor, "batch rows outputs"]]
    ) -> Float[Tensor, "batch rows"]:
        center = self.ball.center.double()
        specification = torch.cat([each.to(center) for each in specifications], dim=2)
        values = [cast(network, center).values(center) for network in networks]
        value = torch.einsum("bro,bo->br", specification, torch.cat([own[-1] for own in values], dim=1))
        largest = torch.stack([own.flatten(1).abs().amax(1) for each in values for own in each]).amax(0).clamp(min=1)
        size = specification.abs().sum(2) * largest[:, None]
        found = torch.full_like(value, torch.nan)
        try:
            for part in _parts(self.ball, apart=self.method in ("crown", "alpha-crown")):
                found[part] = self._bounded(networks, specification[part], part).to(found)
        except (AssertionError, NotImplementedError) as error:
            raise Unsupported(
                f"auto_LiRPA has no {self.method} bounds for this network ({type(error).__name__} {error}); "
                "native-crown may have."
            ) from error
        found = found - SLACK * (size + found.abs())
        return torch.where(torch.isfinite(found) & (found <= value), found, torch.nan)

    def _bounded(
        self, networks: Sequence[Network], specification: Float[Tensor, "part rows outputs"], part: list[int]
    ) -> Float[Tensor, "part rows"]:
        """The bounds of some samples as they come."""
        ask = {"C": specification, "bound_upper": self.method == "ibp"}
        with quiet(), _double(), torch.no_grad():
            module, shift = self._graph(networks)
            name = "CROWN" if self.method == "alpha-crown" else _NAMES[self.method]
            lower = module.compute_bounds(x=(_bounded_tensor(self.ball, part, shift),), method=name, **ask)[0].detach()
            lower = torch.where(_broken(module, len(part)).to(lower.device)[:, None], torch.nan, lower)
            if self.method == "alpha-crown" and bool(torch.isfinite(lower).all()):
                lower = torch.fmax(lower, self._optimized(module, part, shift, ask, lower))
        return lower

    def _optimized(self, module: Any, part: list[int], shift: Tensor, ask: dict[str, Any], crown: Tensor) -> Tensor:
        """The bounds with optimised slopes; bounds on neurons stay those that CROWN just found."""
        inputs = [node.inputs[0] for node in module.optimizable_activations]
        known = {node.name: (node.lower.detach().clone(), node.upper.detach().clone()) for node in inputs}
        if not any(bool(((low < 0) & (high > 0)).any()) for low, high in known.values()):
            return crown
        accepted = inspect.signature(module.compute_bounds).parameters
        fixed = {"interm_bounds" if "interm_bounds" in accepted else "intermediate_layer_bounds": known}
        begin = module.init_alpha if hasattr(module, "init_alpha") else module.init_slope
        with torch.enable_grad():
            # Slopes for the bounds of the outputs alone: by itself it makes some for those of every neuron.
            begin((_bounded_tensor(self.ball, part, shift),), c=ask["C"], bound_upper=False, **fixed)
            for node in module.optimizable_activations:
                # Slopes of max pooling are float32 whatever is asked for, and what is done with them then fails.
                for start, slopes in getattr(node, "alpha", {}).items():
                    node.alpha[start] = slopes.detach().double().requires_grad_()
            x = (_bounded_tensor(self.ball, part, shift),)
            found = module.compute_bounds(x=x, method=_NAMES[self.method], **ask, **fixed)
        return found[0].detach()  # type: ignore[no-any-return]

    def _graph(self, networks: Sequence[Network]) -> tuple[Any, Tensor]:
        """The graph of the networks and what is to be added to its input; recorded once as long as they live."""
        if self.method == "alpha-crown":
            return self._recorded(networks)
        key = (self.method, self.ball.norm, self.ball.center.device, tuple(map(weakref.ref, networks[1:])))
        known = _recordings.setdefault(networks[0], {})
        if key not in known:
            known[key] = self._recorded(networks)
        return known[key]

    def _recorded(self, networks: Sequence[Network]) -> tuple[Any, Tensor]:
        device, linear = self.ball.center.device, self.method != "ibp"
        shift = input_shift(networks) if linear else None
        forms = [boundable(each, self.ball.norm, linear=linear, moved=shift is not None) for each in networks]
        options = {
            "conv_mode": "patches" if all(map(is_square, forms)) else "matrix",
            "sparse_features_alpha": False,  # 0.3 mixes the indices up where most neurons are unstable
            "optimize_bound_args": {"iteration": self.steps, "lr_alpha": self.learning_rate, "init_alpha": False},
        }
        with _double():
            example = torch.zeros(1, *networks[0].shapes[0], device=device)
            module = record(Joint(forms).to(device), example, bound_opts=options)
            if _is_old():
                skip_second_padding(module)
            return module, torch.zeros((), device=device) if shift is None else shift.to(example)


def _parts(ball: Ball, *, apart: bool) -> Iterator[list[int]]:
    """The samples that are bounded together; apart: each alone.

    CROWN bounds the neurons that are unstable in any sample of a batch, in all of them, and optimisation stops for all
    at once; a bound must not depend on other samples. For l1 and l2 there is one radius a computation.
    """
    radii = ball.radius.tolist()
    if apart:
        yield from ([sample] for sample in range(len(radii)))
    elif ball.norm is Norm.LINF:
        yield list(range(len(radii)))
    else:
        yield from ([i for i, own in enumerate(radii) if own == radius] for radius in dict.fromkeys(radii))


def _bounded_tensor(ball: Ball, part: list[int], shift: Tensor) -> Any:
    """The balls of some samples, moved and rounded outward, in a new tensor of auto_LiRPA's own."""
    package, center = library(), ball.center[part].double() + shift
    if ball.norm is Norm.LINF:
        lower, upper = _below(ball.lower[part].double() + shift), -_below(-(ball.upper[part].double() + shift))
        perturbation = package.PerturbationLpNorm(norm=math.inf, x_L=lower, x_U=upper)
    else:
        order = _ORDERS[ball.norm]
        unit = torch.finfo(center.dtype).eps
        off = unit * torch.linalg.vector_norm(center.flatten(1), ord=order, dim=1)  # of the sum with the shift
        radius = ((ball.radius[part].double() + 2 * off) * (1 + 4 * unit)).max()
        perturbation = package.PerturbationLpNorm(norm=order, eps=float(radius))
    return package.BoundedTensor(center, perturbation)


def _broken(module: Any, samples: int) -> Tensor:
    """For each sample whether the bounds of some neuron are no interval of finite numbers; all, if a weight is not one.

    All neurons are looked at together: node by node this took a twentieth of the time of the bounds themselves.
    """
    lows, highs, extremes = [], [], []
    for node in module._modules.values():
        lower, upper = getattr(node, "lower", None), getattr(node, "upper", None)
        if not (isinstance(lower, Tensor) and isinstance(upper, Tensor) and lower.is_floating_point()):
            continue
        if node.perturbed:
            lows.append(lower.reshape(samples, -1))
            highs.append(upper.reshape(samples, -1))
        elif lower.numel():
            extremes += [*lower.aminmax(), *(() if upper is lower else upper.aminmax())]
    low, high = torch.cat(lows, dim=1), torch.cat(highs, dim=1)
    # Comparisons with NaN are false; the extremes of numbers with a NaN among them are NaN.
    right = (low <= high + CROSSING * (1 + high.abs())) & torch.isfinite(low) & torch.isfinite(high)
    constant = all(math.isfinite(extreme) for extreme in extremes)
    return ~right.all(1).cpu() if constant else torch.ones(samples, dtype=torch.bool)


def _below(values: Tensor) -> Tensor:
    """The next numbers below."""
    return torch.nextafter(values, torch.full_like(values, -math.inf))


@contextlib.contextmanager
def _double() -> Iterator[None]:
    """While auto_LiRPA computes: the tensors that it makes itself are float64, too."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
