"""Certifiers that divide margins by Lipschitz constants: of layers, of balls, of semidefinite programs."""

from certifiers.lipschitz.global_bound import GlobalBounds, GlobalLipschitz, GlobalLipschitzCertifier
from certifiers.lipschitz.layer_norms import operator_norm, operator_norms, value_constants
from certifiers.lipschitz.lipschitz_bounds import LipschitzBounds, global_constants
from certifiers.lipschitz.lipsdp import LipSDP, SemidefiniteBounds
from certifiers.lipschitz.local_bound import LocalBounds, LocalLipschitz
from certifiers.lipschitz.spectral_norm import gram_iteration, largest_singular_value

__all__ = [
    "GlobalBounds",
    "GlobalLipschitz",
    "GlobalLipschitzCertifier",
    "LipSDP",
    "LipschitzBounds",
    "LocalBounds",
    "LocalLipschitz",
    "SemidefiniteBounds",
    "global_constants",
    "gram_iteration",
    "largest_singular_value",
    "operator_norm",
    "operator_norms",
    "value_constants",
]
