"""All mutants, each with the check that catches it, and what they were made from."""

from typing import Any

from tests.certifiers.conformance.mutants import aggregations, bounds, conduct, evidence, lipschitz
from tests.certifiers.conformance.mutants.honest import Intervals, LayerNorms

HONEST: tuple[type[Any], ...] = (Intervals, LayerNorms)

#: Each mutant, and the check that catches it. Its honest parent passes that check.
CAUGHT_BY: dict[type[Any], str] = {
    **bounds.CAUGHT_BY,
    **aggregations.CAUGHT_BY,
    **conduct.CAUGHT_BY,
    **evidence.CAUGHT_BY,
    **lipschitz.CAUGHT_BY,
}
