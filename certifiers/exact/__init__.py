"""Exact certificates: closed forms of linear models."""

from certifiers.exact.closed_form import AffineForm, ClosedForm, ClosedFormMargins, affine_form

__all__ = ["AffineForm", "ClosedForm", "ClosedFormMargins", "affine_form"]
