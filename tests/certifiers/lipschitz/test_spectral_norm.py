import math

import pytest
import torch

from certifiers.lipschitz import gram_iteration, largest_singular_value
from certifiers.lipschitz.spectral_norm import GAP


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 8), (8, 3), (60, 60), (20, 500)])
def test_against_singular_values(rows: int, columns: int) -> None:
    torch.manual_seed(rows)
    matrix = torch.randn(rows, columns, dtype=torch.float64)
    true = float(torch.linalg.svdvals(matrix)[0])
    assert true * (1 - 1e-14) <= largest_singular_value(matrix) <= true * (1 + 1e-9)
    assert true * (1 - 1e-13) <= gram_iteration(matrix[None]) <= true * (1 + 2 * GAP)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_the_largest_of_many_matrices(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(50, 6, 9, dtype=dtype)
    true = float(torch.linalg.svdvals(matrices).max())
    assert true * (1 - 1e-13) <= gram_iteration(matrices) <= true * (1 + 2 * GAP)


@pytest.mark.parametrize("scale", [1e-120, 1.0, 1e120])
def test_numbers_of_any_size(scale: float) -> None:
    # All singular values equal is the case in which the Frobenius norm is furthest above.
    matrix = scale * torch.linalg.qr(torch.randn(40, 40, dtype=torch.float64))[0]
    assert scale * (1 - 1e-12) <= gram_iteration(matrix[None]) <= scale * (1 + 2 * GAP)
    assert largest_singular_value(matrix) == pytest.approx(scale, rel=1e-9)


def test_a_large_matrix_is_iterated(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    matrix = torch.randn(30, 40, dtype=torch.float64)
    exact = largest_singular_value(matrix)
    monkeypatch.setattr("certifiers.lipschitz.spectral_norm.LARGEST_DECOMPOSED", 10)
    assert exact * (1 - 1e-10) < largest_singular_value(matrix) <= exact * (1 + 2 * GAP)


def test_zero_and_not_finite() -> None:
    assert gram_iteration(torch.zeros(2, 3, 3, dtype=torch.float64)) == 0
    assert largest_singular_value(torch.zeros(3, 2, dtype=torch.float64)) == 0
    assert gram_iteration(torch.full((1, 2, 2), math.nan, dtype=torch.float64)) == math.inf
    assert largest_singular_value(torch.full((2, 2), math.inf, dtype=torch.float64)) == math.inf
