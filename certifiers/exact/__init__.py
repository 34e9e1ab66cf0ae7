"""Exact certificates, and the best that linear programs can do: closed forms, LP, MILP."""

from certifiers.exact.closed_form import AffineForm, ClosedForm, ClosedFormMargins, affine_form
from certifiers.exact.encoding import Encoder, Program
from certifiers.exact.escapes import Escape, escapes, linear_escape
from certifiers.exact.linear_program import LinearProgram, LinearProgramBounds, TriangleProgram
from certifiers.exact.milp import MILP
from certifiers.exact.minimum import ExactBounds, Minimum, minimal_margin
from certifiers.exact.weak_duality import dual_bound, least_over_ball
from certifiers.exact.witness import Witness, replayed

__all__ = [
    "MILP",
    "AffineForm",
    "ClosedForm",
    "ClosedFormMargins",
    "Encoder",
    "Escape",
    "ExactBounds",
    "LinearProgram",
    "LinearProgramBounds",
    "Minimum",
    "Program",
    "TriangleProgram",
    "Witness",
    "affine_form",
    "dual_bound",
    "escapes",
    "least_over_ball",
    "linear_escape",
    "minimal_margin",
    "replayed",
]
