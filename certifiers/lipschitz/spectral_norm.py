"""Upper bounds on largest singular values that are proofs: exact decompositions, and Gram iteration.

Power iteration approaches a spectral norm from below and proves nothing; nothing here uses it.
"""

import math

import torch
from jaxtyping import Complex128, Float64
from torch import Tensor

#: Matrices whose smaller side is at most this are decomposed; larger ones are bounded by Gram iteration.
LARGEST_DECOMPOSED = 1024

#: How far an iterated bound may be above the norm, relatively, before it stops.
GAP = 1e-3

#: Squarings of Gram iteration at most: the bound of a matrix with n columns is then within a factor n^(2^-15).
SQUARINGS = 14

_UNIT = float(torch.finfo(torch.float64).eps)


def largest_singular_value(matrix: Float64[Tensor, "rows columns"]) -> float:
    """A proved upper bound on `||A||_2`, above it by less than 1e-9 of it where A is small enough to be decomposed.

    The root of the largest eigenvalue of `A A^T` or `A^T A`, whichever is smaller. Their entries are off by at most
    `m u |A| |A^T|` (Higham, 2002, section 3.5), of norm at most `m n u ||A||^2` for n rows of m entries, and the
    eigenvalues by those of a slowly growing multiple of `u ||A||^2` more (Golub & Van Loan, section 8.2): `n (m + 16)`
    units, of twice the roundoff u, are given away. Infinite where an entry is not finite.
    """
    if not bool(torch.isfinite(matrix).all()):
        return math.inf
    scale = float(matrix.abs().max())  # squares of very small or large numbers are zero or infinite
    if scale == 0:
        return 0.0
    short = (matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T) / scale
    if len(short) > LARGEST_DECOMPOSED:
        return scale * gram_iteration(short[None])
    square = max(float(torch.linalg.eigvalsh(short @ short.T)[-1]), 0.0)
    return scale * math.sqrt(square * (1 + len(short) * (short.shape[1] + 16) * _UNIT))


def gram_iteration(matrices: Float64[Tensor, "count rows columns"] | Complex128[Tensor, "count rows columns"]) -> float:
    """A proved upper bound on the largest `||A||_2` of several matrices, at most about `GAP` above it.

        G = A^H A,  then t times  G <- G^2:      ||A||_2  <=  ||G||_F^(1 / 2^(t + 1))  <=  n^(1 / 2^(t + 2)) ||A||_2

    since the Frobenius norm lies between the spectral norm and sqrt(n) times it. A matrix whose upper bound is below
    another one's lower bound is dropped. Every product rounds by at most about `n u ||G||_F^2`, which is at most
    `n^1.5 u` of its norm, and the roots halve what came before: less than `16 n (n + m) u` in all, given away.

    Source: Delattre et al., Efficient bound of Lipschitz constant for convolutional layers by Gram iteration, ICML
    2023, theorem 1.
    """
    if not bool(torch.isfinite(torch.view_as_real(matrices) if matrices.is_complex() else matrices).all()):
        return math.inf
    rows, columns = matrices.shape[1:]
    scale = float(matrices.abs().max())
    if scale == 0:
        return 0.0
    matrices = matrices / scale
    gram = matrices.mH @ matrices if columns <= rows else matrices @ matrices.mH
    n = min(rows, columns)
    norm = torch.linalg.matrix_norm(gram)
    gram, norm = gram[norm > 0], norm[norm > 0]  # what is zero by now is below 1e-150 of the largest
    gram = gram / norm[:, None, None]
    log_bound = norm.log()  # of ||A||^2
    dropped, power = -math.inf, 1.0
    for _ in range(SQUARINGS):
        gap = math.log(n) / (2 * power)
        best = float(log_bound.max())
        kept = log_bound >= best - gap
        dropped = max(dropped, float(log_bound[~kept].max()) if not bool(kept.all()) else -math.inf)
        gram, log_bound = gram[kept], log_bound[kept]
        if gap / 2 <= GAP:
            break
        gram, power = gram @ gram, 2 * power
        norm = torch.linalg.matrix_norm(gram)
        gram = gram / norm[:, None, None]
        log_bound = log_bound + norm.log() / power
    bound = math.exp(max(float(log_bound.max()), dropped) / 2)
    return scale * bound * (1 + 16 * n * (rows + columns) * _UNIT)
