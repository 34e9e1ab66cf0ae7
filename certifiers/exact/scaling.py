"""Programs in units of their own: what a solver does by absolute tolerances then means the same for all networks.

A ReLU network computes the same function when the inputs of a hidden unit are multiplied by a number and its outgoing
weights divided by it. HiGHS, whose tolerances are absolute, then sees another program: where values are large, rounding
exceeds its tolerance and it calls possible what is impossible and the reverse; where coefficients are small, it drops
them.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy import sparse

from certifiers.exact.escapes import TOLERANCE, Escape

#: A coefficient that is smaller, beside the largest of its row, is left out, and its row widened by what it could add.
#: HiGHS drops those below 1e-12 without widening.
NEGLIGIBLE = 1e-11


@dataclass(frozen=True, eq=False)
class Scaled:
    """`matrix w <= limit`, `lower <= w <= upper`: the program of an escape, its variables being `units * w`.

    Units and factors of rows are powers of two, so that scaling does not round: variables lie in [-2, 2], and the
    largest coefficient of a row is in [1, 2). Those that are 0 or 1 keep their unit. The slack's unit is the size of
    the terms that it is added to.

    Raises:
        RuntimeError: a number is beyond float64.
    """

    matrix: sparse.csr_array
    limit: Float64[np.ndarray, "constraints"]
    lower: Float64[np.ndarray, "variables"]
    upper: Float64[np.ndarray, "variables"]
    units: Float64[np.ndarray, "variables"]

    @classmethod
    def of(cls, escape: Escape) -> "Scaled":
        """The program of an escape."""
        largest = np.maximum(np.abs(escape.lower), np.abs(escape.upper))
        largest[-1] = escape.tolerance / TOLERANCE
        largest[escape.integral] = 1.0
        units = _powers(largest)
        matrix = escape.matrix.copy()
        rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
        with np.errstate(invalid="ignore", over="ignore"):  # looked for below
            matrix.data = matrix.data * units[matrix.indices]
            factors = 1 / _powers(abs(matrix).max(axis=1).toarray().ravel())
            matrix.data = matrix.data * factors[rows]
            lower, upper, limit = escape.lower / units, escape.upper / units, escape.limit * factors
        if not all(np.isfinite(part).all() for part in (escape.matrix.data, matrix.data, limit, units, factors)):
            raise RuntimeError("HiGHS failed: it takes no numbers beyond float64. Are there huge weights?")
        # The slack is unbounded, and never left out.
        most = np.maximum(np.abs(lower), np.abs(upper))[matrix.indices]
        small = (np.abs(matrix.data) < NEGLIGIBLE) & np.isfinite(most)
        added = np.bincount(rows[small], np.abs(matrix.data[small]) * most[small], minlength=matrix.shape[0])
        matrix.data[small] = 0.0
        matrix.eliminate_zeros()
        widened = np.nextafter(limit + added * (1 + 1e-12), np.inf)
        return cls(matrix, np.where(added > 0, widened, limit), lower, upper, units)


def _powers(sizes: Float64[np.ndarray, "some"]) -> Float64[np.ndarray, "some"]:
    """For each size the largest power of two that is not above it; 1 for 0."""
    with np.errstate(divide="ignore"):
        exponents = np.floor(np.log2(np.where(sizes > 0, sizes, 1.0)))
    return np.exp2(exponents)
