import itertools
import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from ensembles import Ensemble, ParameterError
from ensembles.aggregation import WeightedAverage
from ensembles.sween import NotFittedError, Sween


def votes(
    seed: int, members: int = 3, samples: int = 200, classes: int = 4, alike: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Confidences of members that know something, each in its way, and the true classes."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (samples,), generator=generator)
    shared = 2 * torch.randn((1, samples, classes), generator=generator)
    shared[0, torch.arange(samples), y] += 2
    own = torch.randn((members, samples, classes), generator=generator)
    return (shared + (1 - alike) * own).softmax(-1), y


def likelihood(weights: Any, confidences: Tensor, y: Tensor) -> float:
    """`mean log sum_i w_i f_i(x)_y`, in loops."""
    total = 0.0
    for sample, label in enumerate(y.tolist()):
        mixed = math.fsum(w * float(own[sample, label]) for w, own in zip(weights, confidences, strict=True))
        total += math.log(max(mixed, 1e-12)) / len(y)
    return total


def best(confidences: Tensor, y: Tensor) -> tuple[np.ndarray, float]:
    """The maximum over the simplex by sequential quadratic programming, from several starts."""
    true = confidences.double().numpy()[:, np.arange(len(y)), y.numpy()]
    members = len(true)
    found = [
        minimize(
            lambda w: -np.log(w @ true).mean(),
            start,
            jac=lambda w: -(true / (w @ true)).mean(1),
            bounds=[(0, 1)] * members,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(members)},
            method="SLSQP",
            options={"ftol": 1e-15, "maxiter": 1000},
        )
        for start in (np.full(members, 1 / members), *(0.1 / members + 0.9 * np.eye(members)))
    ]
    result = min(found, key=lambda one: one.fun)
    return result.x, -result.fun


@pytest.mark.parametrize(("members", "step"), [(1, 0.1), (2, 0.1), (3, 0.1), (3, 0.25), (4, 0.2)])
def test_grid_equals_brute_force_over_the_simplex(members: int, step: float) -> None:
    parts = round(1 / step)
    for seed in range(3):
        confidences, y = votes(seed, members, samples=30)
        fitted = Sween(step=step).fit(confidences, y)
        every = [
            tuple(count / parts for count in counts)
            for counts in itertools.product(range(parts + 1), repeat=members)
            if sum(counts) == parts
        ]
        truth = max(every, key=lambda weights: likelihood(weights, confidences, y))
        assert fitted == WeightedAverage(weights=tuple(round(w, 6) for w in truth), of="confidence")


@pytest.mark.parametrize("alike", [0.0, 0.7, 0.9, 0.97])
@pytest.mark.parametrize("members", [2, 3, 5])
def test_gradient_reaches_the_maximum(members: int, alike: float) -> None:
    # Members that agree make the maximum flat and the plain iteration slow, and they are the usual case.
    for seed in range(3):
        confidences, y = votes(seed, members, alike=alike)
        weights = Sween(method="gradient").fit(confidences, y).weights
        assert weights is not None
        truth, maximum = best(confidences, y)
        scaled = np.array(weights) / sum(weights)
        assert likelihood(scaled, confidences, y) == pytest.approx(maximum, abs=1e-6)
        assert scaled == pytest.approx(truth, abs=3e-3)
        # Karush, Kuhn and Tucker: the slope along every member is 1, or less where its weight is 0.
        true = confidences.double()[:, torch.arange(len(y)), y].numpy()
        slopes = (true / (scaled @ true)).mean(1)
        assert slopes.max() < 1 + 1e-5
        assert slopes[scaled > 1e-3] == pytest.approx(1, abs=1e-4)


def test_the_maximum_beats_even_weights_and_the_grid() -> None:
    for seed in range(5):
        confidences, y = votes(seed)
        fitted = {method: Sween(method=method).fit(confidences, y).weights for method in ("grid", "gradient")}
        scores = {method: likelihood(np.array(w) / sum(w), confidences, y) for method, w in fitted.items()}
        assert scores["gradient"] >= scores["grid"] - 1e-9
        assert scores["grid"] >= likelihood([0.3, 0.3, 0.4], confidences, y) - 1e-12
        assert scores["gradient"] >= likelihood([1 / 3] * 3, confidences, y) - 1e-9


@pytest.mark.parametrize("method", ["grid", "gradient"])
def test_two_samples_by_hand(method: Any) -> None:
    # Member 0 is sure of the first sample (.8 against .2), member 1 of the second: w = 1/2 by symmetry.
    confidences = torch.tensor([[[0.8, 0.2], [0.8, 0.2]], [[0.2, 0.8], [0.2, 0.8]]])
    y = torch.tensor([0, 1])
    assert Sween(method=method).fit(confidences, y).weights == pytest.approx((0.5, 0.5), abs=1e-5)
    # Three of four samples are class 0: log(.2 + .6 w) 3 + log(.8 - .6 w) has its maximum where
    # 3 (.8 - .6 w) = .2 + .6 w, at w = 2.2 / 2.4 = .9166667; on the grid .9.
    confidences = confidences[:, [0, 0, 0, 1]]
    weights = Sween(method=method).fit(confidences, torch.tensor([0, 0, 0, 1])).weights
    assert weights == pytest.approx((0.9, 0.1) if method == "grid" else (0.916667, 0.083333), abs=1e-4)


@pytest.mark.parametrize("seed", range(12))
def test_ties_are_settled_for_even_weights(seed: int) -> None:
    # Members that are the same: any weights are as good, whatever their products round to.
    confidences, y = votes(seed, members=1, samples=37)
    twice, thrice = confidences.expand(2, -1, -1), confidences.expand(3, -1, -1)
    assert Sween().fit(twice, y).weights == (0.5, 0.5)
    assert Sween().fit(thrice, y).weights == (0.3, 0.3, 0.4)
    assert Sween(step=0.2).fit(confidences.expand(5, -1, -1), y).weights == (0.2,) * 5
    assert Sween(method="gradient").fit(twice, y).weights == (0.5, 0.5)
    assert Sween(method="gradient").fit(thrice, y).weights == (0.333333,) * 3


@pytest.mark.parametrize("method", ["grid", "gradient"])
def test_a_useless_member_gets_nothing(method: Any) -> None:
    confidences, y = votes(1)
    useless = torch.zeros_like(confidences[0])
    useless[torch.arange(len(y)), (y + 1) % 4] = 1.0  # sure of a wrong class, always
    weights = Sween(method=method).fit(torch.stack([confidences[0], useless, confidences[1]]), y).weights
    assert weights is not None
    assert weights[1] == 0.0
    assert min(weights[0], weights[2]) > 0.1


@pytest.mark.parametrize("method", ["grid", "gradient"])
def test_one_member_that_is_always_better_gets_everything(method: Any) -> None:
    confidences, y = votes(1, members=2)
    right = torch.full_like(confidences[0], 0.001)
    right[torch.arange(len(y)), y] = 0.997
    weights = Sween(method=method).fit(torch.stack([confidences[0], right, confidences[1]]), y).weights
    assert weights == pytest.approx((0.0, 1.0, 0.0), abs=1e-5)


@pytest.mark.parametrize("method", ["grid", "gradient"])
def test_weights_are_a_distribution_and_a_confidence_of_zero_is_survived(method: Any) -> None:
    for seed in range(5):
        confidences, y = votes(seed, members=3, samples=20)
        confidences[:, 0] = 0.0
        confidences[:, 0, (int(y[0]) + 1) % 4] = 1.0  # all members rule the truth out
        weights = Sween(method=method).fit(confidences, y).weights
        assert weights is not None
        assert sum(weights) == pytest.approx(1, abs=2e-6)
        assert all(0 <= weight <= 1 for weight in weights)
        assert all(weight == round(weight, 6) for weight in weights)


def test_the_order_of_samples_does_not_matter_and_that_of_members_is_kept() -> None:
    confidences, y = votes(3)
    weights = Sween(method="gradient").fit(confidences, y).weights
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    assert Sween(method="gradient").fit(confidences[:, order], y[order]).weights == pytest.approx(weights, abs=1e-4)
    assert weights is not None
    back = Sween(method="gradient").fit(confidences.flip(0), y).weights
    assert back == pytest.approx(weights[::-1], abs=1e-4)
    assert len(set(weights)) == 3


def test_many_members_do_not_make_the_grid_endless() -> None:
    # C(17, 7) = 19448 weights of eight members; 11^8 would be 214 million combinations.
    confidences, y = votes(0, members=8, samples=10)
    weights = Sween().fit(confidences, y).weights
    assert weights is not None
    assert sum(weights) == pytest.approx(1)


def test_scores_are_refused_before_the_fit(literal: Any) -> None:
    message = "sween has no weights yet. Call fit(confidences, y) on validation images and use its result."
    with pytest.raises(NotFittedError, match=f"^{re.escape(message)}$"):
        Sween().scores(torch.zeros(2, 1, 3))
    problem = literal.build_problem(members=2)
    with pytest.raises(NotFittedError, match="sween has no weights yet"):
        Ensemble(list(problem.ensemble.members), Sween())(problem.x)
    assert issubclass(NotFittedError, ParameterError)
    # Its result is an ensemble like any other, whose weights are its identity.
    fitted = Sween().fit(problem.ensemble.confidences(problem.x).detach(), problem.y)
    assert problem.ensemble.with_aggregation(fitted)(problem.x).shape == (5, 4)
    assert fitted.describe() == {"name": "weighted-average", "weights": fitted.weights, "of": "confidence"}


def test_wrong_parameters_are_refused() -> None:
    with pytest.raises(ParameterError, match=r"Sween: step = 0\.0 is not allowed\. Input should be greater than 0\."):
        Sween(step=0.0)
    with pytest.raises(ParameterError, match=r"Sween: draws = 0 is not allowed"):
        Sween(draws=0)
    with pytest.raises(ParameterError, match=r"Sween: tolerance = -1\.0 is not allowed"):
        Sween(tolerance=-1.0)
