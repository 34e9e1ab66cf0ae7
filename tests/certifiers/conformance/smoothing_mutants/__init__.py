"""Smoothing with one mistake each, of the kind that published code has made. The kit must catch them all."""

from tests.certifiers.conformance.smoothing_mutants import bounds, laws, looks, members, samples
from tests.certifiers.conformance.smoothing_mutants.honest import Mutant, OnGrid, Plain, PlainLooks, PlainPhases

#: All of them, a family a file.
MUTANTS: tuple[Mutant, ...] = (
    *samples.MUTANTS,
    *bounds.MUTANTS,
    *looks.MUTANTS,
    *laws.MUTANTS,
    *members.MUTANTS,
)

__all__ = ["MUTANTS", "OnGrid", "Plain", "PlainLooks", "PlainPhases"]
