"""Certified radii of small fully connected networks from semidefinite programs, in l2."""

import weakref
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from certifiers.certificate import Norm, Unsupported
from certifiers.lipschitz.global_bound import GlobalBounds, GlobalLipschitzCertifier
from certifiers.lipschitz.lipschitz_bounds import global_constants
from certifiers.lipschitz.semidefinite import Chain, Program, Solver
from certifiers.networks import Network
from certifiers.registry import register
from certifiers.relaxation.ball import Ball
from ensembles.parameters import PositiveInt

_UNIT = float(torch.finfo(torch.float64).eps)

_known: "weakref.WeakKeyDictionary[Network, dict[tuple[Solver, int, bytes], float]]" = weakref.WeakKeyDictionary()


class SemidefiniteBounds(GlobalBounds):
    """The constants of LipSDP, each solved for once and remembered as long as the network lives; never above others.

    Args:
        ball: the inputs.
        solver: of cvxpy.
        iterations: of SCS, at most.
        largest: the most neurons a network may have.
    """

    def __init__(self, ball: Ball, solver: Solver = "scs", iterations: int = 500, largest: int = 128) -> None:
        super().__init__(ball)
        self.solver: Solver = solver
        self.iterations = iterations
        self.largest = largest

    def own(
        self, network: Network, specification: Float[Tensor, "batch rows outputs"]
    ) -> Float64[Tensor, "batch rows"]:
        """The constants of one network.

        Raises:
            Unsupported: it is not a chain of linear layers and ReLUs, or too large a one.
        """
        chain = Chain.of(network)
        everywhere = global_constants(network, specification, Norm.L2)
        if not chain.hidden:
            return everywhere  # a linear network: exact
        if chain.neurons > self.largest:
            raise Unsupported(
                f"lipsdp is for small networks: this one has {chain.neurons} ReLUs, and largest = {self.largest}. "
                "Raise it (the time grows with its fourth power or faster), or use lipschitz."
            )
        known = _known.setdefault(network, {})
        rows = specification.double().cpu().flatten(0, 1)
        # A direction is a multiple of one that is solved for: s and -s have the same constant.
        length = rows.abs().amax(1)
        distinct, places = torch.unique(rows / length.clamp(min=1e-300)[:, None], dim=0, return_inverse=True)
        constants = torch.zeros(len(distinct), dtype=torch.float64)
        for number, direction in enumerate(distinct):
            first = direction[direction != 0][:1]
            if not len(first):
                continue
            canonical = (direction * first.sign() + 0.0).numpy()  # no zero is negative
            key = (self.solver, self.iterations, canonical.tobytes())
            if key not in known:
                known[key] = Program(chain, self.solver, self.iterations).constant(canonical)
            constants[number] = known[key]
        found = constants[places] * length * (1 + 8 * _UNIT)
        return torch.fmin(everywhere, found.reshape(everywhere.shape))


@register("lipsdp")
@dataclass(frozen=True, kw_only=True)
class LipSDP(GlobalLipschitzCertifier):
    """Margin over a Lipschitz constant from semidefinite programming: LipSDP-Neuron (Fazlyab et al., NeurIPS 2019).

    For fully connected ReLU networks in l2; one program a pair of classes and network, solved once. The solver's answer
    becomes a proof by adding what it lacks: see `proved_square`. No constant is above that of `lipschitz`. Ensembles as
    there.

    Attributes:
        solver: scs or clarabel, through cvxpy; clarabel is more precise, and far slower above 40 ReLUs.
        iterations: of scs, at most; more make constants up to a per cent or two smaller.
        largest: the most ReLUs a network may have.
    """

    version: ClassVar[int] = 2
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L2})

    solver: Solver = "scs"
    iterations: PositiveInt = 500
    largest: PositiveInt = 128

    def bounds(self, ball: Ball) -> GlobalBounds:
        """Constants of semidefinite programs."""
        return SemidefiniteBounds(ball, self.solver, self.iterations, self.largest)
