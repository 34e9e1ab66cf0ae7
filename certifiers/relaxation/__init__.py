"""Certifiers that bound the margins of ReLU networks by relaxing their nonlinear layers."""

from certifiers.relaxation.backward import Planes, Relaxed, relaxed
from certifiers.relaxation.ball import Ball
from certifiers.relaxation.certifiers import NativeCROWN, NativeCROWNIBP, NativeIBP, RelaxationCertifier
from certifiers.relaxation.ensemble_margins import ensemble_margins
from certifiers.relaxation.lirpa import LirpaBounds
from certifiers.relaxation.lirpa_certifiers import CROWN, CROWNIBP, IBP, AlphaCROWN
from certifiers.relaxation.relaxation import BackwardBounds, Bounds, IntervalBounds

__all__ = [
    "CROWN",
    "CROWNIBP",
    "IBP",
    "AlphaCROWN",
    "BackwardBounds",
    "Ball",
    "Bounds",
    "IntervalBounds",
    "LirpaBounds",
    "NativeCROWN",
    "NativeCROWNIBP",
    "NativeIBP",
    "Planes",
    "RelaxationCertifier",
    "Relaxed",
    "ensemble_margins",
    "relaxed",
]
