import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import norm

from ensembles import Ensemble, ParameterError
from ensembles.training.macer import MACER


def expected(literal: Any, ensemble: Ensemble, x: torch.Tensor, y: torch.Tensor, noise: torch.Tensor, m: MACER) -> Any:
    """Alg. 1 of Zhai et al. in numpy, a member and a sample at a time; what became of each sample, too."""
    classification = robustness = 0.0
    fates = []
    for member in ensemble.members:
        for b, label in enumerate(y.tolist()):
            logits = np.array(literal.logits_of(member, x[b] + noise[:, b]))
            soft = np.exp(logits - logsumexp(logits, axis=1, keepdims=True)).mean(0)
            classification -= math.log(soft[label] + 1e-10) / len(y)
            sharp = np.exp(m.beta * logits - logsumexp(m.beta * logits, axis=1, keepdims=True)).mean(0)
            second, first = np.argsort(sharp)[-2:]
            gap = norm.ppf(sharp[first]) - norm.ppf(sharp[second])
            if first != label:
                fates.append("wrong")
            elif not np.isfinite(gap):
                fates.append("saturated")
            elif gap > m.gamma:
                fates.append("beyond")
            else:
                fates.append("kept")
                robustness += m.weight * m.sigma / 2 * (m.gamma - gap) / len(y)
    return classification, robustness, fates


@pytest.mark.parametrize(("members", "gamma", "seed"), [(1, 8.0, 3), (2, 0.5, 7), (3, 1.0, 2), (3, 4.0, 4)])
def test_terms_equal_the_algorithm(literal: Any, members: int, gamma: float, seed: int) -> None:
    problem = literal.build_problem(members=members, seed=seed, batch=12, sharpness=4.0)
    objective = MACER(sigma=0.6, draws=5, weight=6.0, beta=3.0, gamma=gamma)
    noise = 0.6 * literal.normal(2, 5, *problem.x.shape)
    classification, robustness, fates = expected(literal, problem.ensemble, problem.x, problem.y, noise, objective)
    assert {"kept", "wrong"} <= set(fates)
    if gamma <= 1:
        assert "beyond" in fates
    terms = objective.terms(problem.ensemble, problem.x, problem.y, literal.generator(2))
    assert list(terms) == ["classification", "robustness"]
    assert literal.values(terms) == pytest.approx(
        {"classification": classification, "robustness": robustness}, abs=1e-9
    )


def test_one_sample_by_hand(literal: Any) -> None:
    # No noise, beta 1, logits (1, 0, -1): p = (e, 1, 1/e) / (e + 1 + 1/e).
    total = math.e + 1 + 1 / math.e
    member = literal.LinearClassifier([[0.0], [0.0], [0.0]], [1.0, 0.0, -1.0])
    x, y = torch.full((1, 1), 0.5, dtype=torch.float64), torch.tensor([0])
    gap = norm.ppf(math.e / total) - norm.ppf(1 / total)
    terms = MACER(sigma=0.5, draws=3, weight=2.0, beta=1.0, gamma=8.0).terms(
        Ensemble([member]), x, y, literal.generator(0)
    )
    # The noise reaches logits through W = 0 only, so the mean over draws is p itself.
    assert terms["robustness"].item() == pytest.approx(2 * 0.25 * (8 - gap), abs=1e-9)
    assert terms["classification"].item() == pytest.approx(-math.log(math.e / total + 1e-10), abs=1e-12)


def _nothing(term: torch.Tensor, ensemble: Ensemble) -> bool:
    if term.item() != 0.0:
        return False
    if not term.requires_grad:
        return True
    gradients = torch.autograd.grad(term, list(ensemble.parameters()), allow_unused=True)
    return all(gradient is None or not gradient.any() for gradient in gradients)


def test_wrong_samples_and_those_beyond_gamma_add_exactly_nothing(literal: Any) -> None:
    problem = literal.build_problem(members=2, classes=5, seed=1)
    with torch.no_grad():
        answers = problem.ensemble.logits(problem.x).argmax(-1)
    wrong = torch.tensor([min(set(range(5)) - set(column.tolist())) for column in answers.T])
    quiet = {"sigma": 1e-6, "draws": 2, "beta": 1.0}
    terms = MACER(**quiet).terms(problem.ensemble, problem.x, wrong, literal.generator(0))
    assert _nothing(terms["robustness"], problem.ensemble)
    sure = MACER(gamma=1e-9, **quiet)
    terms = sure.terms(problem.ensemble, problem.x, answers[0], literal.generator(0))
    assert _nothing(terms["robustness"], problem.ensemble)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sharpness", [3.0, 30.0, 300.0, 1e6])
def test_saturated_confidences_give_finite_losses_and_gradients(literal: Any, dtype: Any, sharpness: float) -> None:
    problem = literal.build_problem(members=2, batch=16, sharpness=sharpness)
    ensemble = problem.ensemble.to(dtype)
    objective = MACER(sigma=0.25 if sharpness < 1e6 else 1e-9)
    terms = objective.terms(ensemble, problem.x.to(dtype), problem.y, literal.generator(0))
    assert all(math.isfinite(value) for value in literal.values(terms).values())
    if sharpness == 1e6:
        assert terms["robustness"].item() == 0.0, "all are saturated"
    gradients = torch.autograd.grad(sum(terms.values()), list(ensemble.parameters()), allow_unused=True)
    assert all(gradient is None or bool(torch.isfinite(gradient).all()) for gradient in gradients)


def test_a_saturated_sample_leaves_the_gradient_of_the_others(literal: Any) -> None:
    # Logit of class 0 is w x: at x = 1 the sharpened confidence is 1 to the last bit, at x = .02 it is not.
    member = literal.LinearClassifier([[100.0], [0.0]])
    both, alone = torch.tensor([[1.0], [0.02]], dtype=torch.float64), torch.tensor([[0.02]], dtype=torch.float64)
    objective = MACER(sigma=1e-9, draws=1, beta=1.0)
    gradients = [
        torch.autograd.grad(
            objective.terms(Ensemble([member]), x, torch.zeros(len(x), dtype=torch.int64), literal.generator(0))[
                "robustness"
            ],
            member.weight,
        )[0]
        for x in (both, alone)
    ]
    assert gradients[1][0].item() < 0
    torch.testing.assert_close(gradients[0], gradients[1] / 2, rtol=1e-6, atol=0)


def test_more_confidence_means_less_loss(literal: Any) -> None:
    x, y = torch.full((1, 1), 1.0, dtype=torch.float64), torch.tensor([0])
    losses = []
    for logit in (0.1, 0.5, 1.0):
        ensemble = Ensemble([literal.LinearClassifier([[logit], [0.0]])])
        losses.append(MACER(sigma=0.5, beta=1.0).terms(ensemble, x, y, literal.generator(0))["robustness"].item())
    assert losses == sorted(losses, reverse=True)


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ParameterError, match=r"MACER: draws = 0 is not allowed\. Input should be greater than 0\."):
        MACER(draws=0)
    with pytest.raises(ParameterError, match=r"MACER: gamma = 0\.0 is not allowed"):
        MACER(gamma=0.0)
