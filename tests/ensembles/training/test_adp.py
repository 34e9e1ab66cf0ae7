import itertools
import math
from typing import Any

import pytest
import torch

from ensembles import Ensemble, ParameterError
from ensembles.training.adp import ADP


def determinant(matrix: list[list[float]]) -> float:
    """The sum over permutations (Leibniz)."""
    total = 0.0
    for order in itertools.permutations(range(len(matrix))):
        swaps = sum(a > b for a, b in itertools.combinations(order, 2))
        total += (-1) ** swaps * math.prod(matrix[row][column] for row, column in enumerate(order))
    return total


@pytest.mark.parametrize("ce", ["sum", "mean"])
@pytest.mark.parametrize(("members", "classes", "seed"), [(2, 3, 0), (3, 4, 1), (3, 5, 2)])
def test_terms_equal_the_formulas(literal: Any, members: int, classes: int, seed: int, ce: Any) -> None:
    problem = literal.build_problem(members=members, classes=classes, seed=seed, sharpness=2.0)
    noisy = problem.x + 0.5 * literal.normal(1, *problem.x.shape)
    batch, ridge = len(noisy), 1e-3
    loss = entropy = volume = 0.0
    for b, label in enumerate(problem.y.tolist()):
        logits = [literal.logits_of(member, noisy)[b] for member in problem.ensemble.members]
        confidences = [literal.softmax(own) for own in logits]
        loss += sum(literal.cross_entropy(own, label) for own in logits) / batch
        average = [sum(values) / members for values in zip(*confidences, strict=True)]
        entropy -= sum(p * math.log(p) for p in average) / batch
        rows = []
        for own in confidences:
            others = [p for c, p in enumerate(own) if c != label]
            rows.append([p / math.sqrt(literal.dot(others, others)) for p in others])
        gram = [
            [literal.dot(one, other) + ridge * (i == j) for j, other in enumerate(rows)] for i, one in enumerate(rows)
        ]
        volume += math.log(determinant(gram)) / batch
    terms = ADP(sigma=0.5, a=1.5, b=0.7, ce=ce, ridge=ridge).terms(
        problem.ensemble, problem.x, problem.y, literal.generator(1)
    )
    assert list(terms) == ["cross_entropy", "entropy", "log_determinant"]
    assert literal.values(terms) == pytest.approx(
        {
            "cross_entropy": loss if ce == "sum" else loss / members,
            "entropy": -1.5 * entropy,
            "log_determinant": -0.7 * volume,
        },
        abs=1e-9,
    )


def test_identical_and_orthogonal_members_by_hand(literal: Any) -> None:
    x, y = torch.zeros((1, 1), dtype=torch.float64), torch.tensor([0])
    flat = [[0.0]] * 3
    # Identical rows r: M M^T + e I = [[1 + e, 1], [1, 1 + e]], determinant 2 e + e^2.
    same = Ensemble([literal.LinearClassifier(flat, [1.0, 0.5, 0.0])] * 2)
    terms = ADP(a=0.0, b=1.0).terms(same, x, y, literal.generator(0))
    assert terms["log_determinant"].item() == pytest.approx(-math.log(2e-6 + 1e-12), abs=1e-6)
    # Members whose other confidence is all on class 1, all on class 2: orthogonal rows, determinant (1 + e)^2.
    apart = Ensemble([literal.LinearClassifier(flat, bias) for bias in ([9.0, 8.0, -90.0], [9.0, -90.0, 8.0])])
    terms = ADP(a=0.0, b=1.0).terms(apart, x, y, literal.generator(0))
    assert terms["log_determinant"].item() == pytest.approx(-2 * math.log1p(1e-6), abs=1e-9)
    # More diverse members and a flatter average have less loss: both terms are subtracted.
    assert terms["log_determinant"].item() < -math.log(2e-6 + 1e-12) * 1 + 13.2
    flatter = ADP(a=1.0).terms(Ensemble([literal.LinearClassifier(flat)] * 2), x, y, literal.generator(0))
    assert flatter["entropy"].item() == pytest.approx(-math.log(3), abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_true_class_is_left_out_whichever_it_is(literal: Any, dtype: Any) -> None:
    # Confidences in proportion (5, 4, 3) against label c: rows are the two others.
    bias = [math.log(value) for value in (5.0, 4.0, 3.0)]
    other = [math.log(value) for value in (1.0, 2.0, 4.0)]
    ensemble = Ensemble([literal.LinearClassifier([[0.0]] * 3, one) for one in (bias, other)]).to(dtype)
    for label in range(3):
        one = [value for c, value in enumerate((5.0, 4.0, 3.0)) if c != label]
        two = [value for c, value in enumerate((1.0, 2.0, 4.0)) if c != label]
        truth = (1 + 1e-6) ** 2 - literal.cosine(one, two) ** 2
        terms = ADP(b=1.0).terms(
            ensemble, torch.zeros((2, 1), dtype=dtype), torch.tensor([label] * 2), literal.generator(0)
        )
        assert terms["log_determinant"].item() == pytest.approx(
            -math.log(truth), rel=1e-4 if dtype == torch.float32 else 1e-9
        )


@pytest.mark.parametrize("sharpness", [1e2, 1e4, 1e6])
def test_saturated_and_identical_members_stay_finite(literal: Any, sharpness: float) -> None:
    for alike in (0.5, 1.0):
        problem = literal.build_problem(members=3, batch=16, sharpness=sharpness, alike=alike)
        ensemble = problem.ensemble.float()
        terms = ADP(sigma=0.5).terms(ensemble, problem.x.float(), problem.y, literal.generator(0))
        assert all(math.isfinite(value) for value in literal.values(terms).values())
        gradients = torch.autograd.grad(sum(terms.values()), list(ensemble.parameters()))
        assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ParameterError, match=r"ADP: ridge = 0\.0 is not allowed\. Input should be greater than 0\."):
        ADP(ridge=0.0)
    with pytest.raises(ParameterError, match=r"ADP: a = -2\.0 is not allowed"):
        ADP(a=-2.0)
    assert ADP.pairwise
