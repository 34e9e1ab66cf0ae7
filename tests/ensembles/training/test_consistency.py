import math
from typing import Any

import pytest
import torch

from ensembles import Ensemble, ParameterError
from ensembles.training.consistency import Consistency


@pytest.mark.parametrize(("members", "draws"), [(1, 2), (3, 2), (2, 4)])
def test_terms_equal_the_formulas(literal: Any, members: int, draws: int) -> None:
    problem = literal.build_problem(members=members, seed=draws)
    noise = 0.5 * literal.normal(3, draws, *problem.x.shape)
    batch = len(problem.y)
    loss = divergence = entropy = 0.0
    for member in problem.ensemble.members:
        for b, label in enumerate(problem.y.tolist()):
            logits = [literal.logits_of(member, (problem.x[b] + noise[k, b])[None])[0] for k in range(draws)]
            copies = [literal.softmax(one) for one in logits]
            average = [sum(values) / draws for values in zip(*copies, strict=True)]
            loss += sum(literal.cross_entropy(one, label) for one in logits) / draws / batch
            for copy in copies:
                divergence += sum(a * math.log(a / p) for a, p in zip(average, copy, strict=True)) / draws / batch
            entropy -= sum(a * math.log(a) for a in average) / batch
    objective = Consistency(sigma=0.5, draws=draws, weight=7.0, eta=0.3)
    terms = objective.terms(problem.ensemble, problem.x, problem.y, literal.generator(3))
    assert list(terms) == ["cross_entropy", "consistency", "entropy"]
    assert literal.values(terms) == pytest.approx(
        {"cross_entropy": loss, "consistency": 7 * divergence, "entropy": 0.3 * entropy}, abs=1e-9
    )
    assert divergence > 0.01


def test_equal_copies_are_consistent_and_the_divergence_is_of_the_average(literal: Any) -> None:
    problem = literal.build_problem(members=2)
    terms = Consistency(sigma=0.0).terms(problem.ensemble, problem.x, problem.y, literal.generator(0))
    assert terms["consistency"].item() == pytest.approx(0, abs=1e-15)
    # KL(avg || p), not KL(p || avg), of two copies with confidences (p, 1 - p) and (q, 1 - q), written out.
    member = literal.LinearClassifier([[1.0], [0.0]])
    for seed in range(20):
        noise = literal.normal(seed, 2, 1, 1).flatten().tolist()
        p, q = (literal.softmax([value, 0.0])[0] for value in noise)
        average = (p + q) / 2
        truth = sum(
            average * math.log(average / one) + (1 - average) * math.log((1 - average) / (1 - one)) for one in (p, q)
        )
        x, y = torch.zeros((1, 1), dtype=torch.float64), torch.tensor([0])
        terms = Consistency(sigma=1.0, weight=1.0).terms(Ensemble([member]), x, y, literal.generator(seed))
        assert terms["consistency"].item() == pytest.approx(truth / 2, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sharpness", [1e3, 1e6, 1e30])
def test_extreme_logits_stay_finite(literal: Any, dtype: Any, sharpness: float) -> None:
    problem = literal.build_problem(members=2, sharpness=sharpness)
    ensemble = problem.ensemble.to(dtype)
    terms = Consistency(sigma=1.0, draws=3).terms(ensemble, problem.x.to(dtype), problem.y, literal.generator(1))
    assert all(math.isfinite(value) for value in literal.values(terms).values())
    gradients = torch.autograd.grad(sum(terms.values()), list(ensemble.parameters()))
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)


def test_a_confidence_of_zero_counts_nothing(literal: Any) -> None:
    # All copies rule class 2 out to the last bit: 0 log 0 = 0.
    member = literal.LinearClassifier([[1.0], [0.0], [0.0]], [0.0, 0.0, -1e5])
    x, y = torch.zeros((1, 1), dtype=torch.float64), torch.tensor([0])
    three = Consistency(sigma=1.0).terms(Ensemble([member]), x, y, literal.generator(4))
    two = Consistency(sigma=1.0).terms(Ensemble([literal.LinearClassifier([[1.0], [0.0]])]), x, y, literal.generator(4))
    assert literal.values(three) == pytest.approx(literal.values(two), abs=1e-12)


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(
        ParameterError, match=r"Consistency: draws = 0 is not allowed\. Input should be greater than 0\."
    ):
        Consistency(draws=0)
    assert not Consistency.joint
