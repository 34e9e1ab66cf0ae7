"""Certifiers that are broken on purpose, one line each, and the honest ones that they were made from.

`certify` is final and sanitises, so a mutant is an author's method: what is wrong with it survives sanitising.
"""

from tests.certifiers.conformance.mutants.bounds import NormalizedEpsilon, RunnerUpOnly
from tests.certifiers.conformance.mutants.honest import Intervals, LayerNorms
from tests.certifiers.conformance.mutants.table import CAUGHT_BY, HONEST

__all__ = ["CAUGHT_BY", "HONEST", "Intervals", "LayerNorms", "NormalizedEpsilon", "RunnerUpOnly"]
