import itertools
from typing import Any

import pytest
import torch

from ensembles import Ensemble, ParameterError
from ensembles.training.trs import TRS


@pytest.mark.parametrize("gradient_of", ["sample", "batch-mean"])
@pytest.mark.parametrize("members", [2, 3])
def test_terms_equal_the_formulas(literal: Any, members: int, gradient_of: Any) -> None:
    problem = literal.build_problem(members=members, seed=members)
    noisy = problem.x + 0.5 * literal.normal(1, *problem.x.shape)
    batch = len(noisy)
    loss = 0.0
    gradients: list[list[list[float]]] = []
    for member in problem.ensemble.members:
        logits = literal.logits_of(member, noisy)
        loss += sum(
            literal.cross_entropy(own, int(label)) / batch for own, label in zip(logits, problem.y, strict=True)
        )
        if gradient_of == "sample":
            gradients.append(
                [
                    literal.input_gradient(member, noisy[b], literal.negative_log_confidence(int(problem.y[b])))
                    for b in range(batch)
                ]
            )
        else:
            own = noisy.clone().requires_grad_()
            mean = (
                sum(literal.negative_log_confidence(int(problem.y[b]))(member(own[b : b + 1])[0]) for b in range(batch))
                / batch
            )
            gradients.append(torch.autograd.grad(mean, own)[0].flatten(1).tolist())
    pairs = list(itertools.combinations(gradients, 2))
    alignment = sum(
        abs(literal.cosine(one[b], other[b])) / len(pairs) / batch for one, other in pairs for b in range(batch)
    )
    magnitude = sum(literal.dot(g, g) / members / batch for own in gradients for g in own)
    objective = TRS(sigma=0.5, scale=2.0, a=0.6, b=1.7, gradient_of=gradient_of)
    terms = objective.terms(problem.ensemble, problem.x, problem.y, literal.generator(1))
    assert list(terms) == ["cross_entropy", "gradient_alignment", "gradient_magnitude"]
    assert literal.values(terms) == pytest.approx(
        {
            "cross_entropy": loss,
            "gradient_alignment": 2 * 0.6 * alignment,
            "gradient_magnitude": 2 * 1.7 * magnitude,
        },
        abs=1e-9,
    )


def test_linear_members_by_hand(literal: Any) -> None:
    # Logits (w x, 0), label 0, confidence p of it: the gradient is -(1 - p) w.
    x, y = torch.full((1, 2), 0.5, dtype=torch.float64), torch.tensor([0])
    rows = ([1.0, 2.0], [-2.0, 1.0])
    ensemble = Ensemble([literal.LinearClassifier([row, [0.0, 0.0]]) for row in rows])
    squares = [(1 - literal.softmax([sum(row) / 2, 0.0])[0]) ** 2 * literal.dot(row, row) for row in rows]
    terms = TRS().terms(ensemble, x, y, literal.generator(0))
    assert terms["gradient_alignment"].item() == pytest.approx(0, abs=1e-12)
    assert terms["gradient_magnitude"].item() == pytest.approx(sum(squares) / 2, abs=1e-12)
    # Opposed gradients are as transferable as aligned ones: the absolute value counts.
    rows = ([1.0, 2.0], [-3.0, -6.0])
    ensemble = Ensemble([literal.LinearClassifier([row, [0.0, 0.0]]) for row in rows])
    assert TRS().terms(ensemble, x, y, literal.generator(0))["gradient_alignment"].item() == pytest.approx(1, abs=1e-9)


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ParameterError, match=r"TRS: scale = -1\.0 is not allowed\. Input should be greater than or"):
        TRS(scale=-1.0)
    assert TRS.pairwise
