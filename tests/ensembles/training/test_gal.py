import itertools
import math
from typing import Any

import pytest
import torch

from ensembles import Ensemble, ParameterError
from ensembles.training.gal import GAL


@pytest.mark.parametrize("members", [2, 3])
def test_terms_equal_the_formulas(literal: Any, members: int) -> None:
    problem = literal.build_problem(members=members, seed=members)
    noisy = problem.x + 0.5 * literal.normal(1, *problem.x.shape)
    loss = alignment = 0.0
    for b, label in enumerate(problem.y.tolist()):
        gradients = []
        for member in problem.ensemble.members:
            loss += literal.cross_entropy(literal.logits_of(member, noisy)[b], label) / len(noisy)
            gradients.append(literal.input_gradient(member, noisy[b], literal.negative_log_confidence(label)))
        powers = [math.exp(literal.cosine(one, other)) for one, other in itertools.combinations(gradients, 2)]
        alignment += math.log(sum(powers)) / len(noisy)
    terms = GAL(sigma=0.5, c=0.8).terms(problem.ensemble, problem.x, problem.y, literal.generator(1))
    assert list(terms) == ["cross_entropy", "gradient_alignment"]
    assert literal.values(terms) == pytest.approx(
        {"cross_entropy": loss, "gradient_alignment": 0.8 * alignment}, abs=1e-9
    )


def test_aligned_and_opposed_members_by_hand(literal: Any) -> None:
    # Gradients of CE of logits (w x, 0) are along -w: cosines 1, 0 and -1.
    x, y = torch.full((3, 2), 0.5, dtype=torch.float64), torch.tensor([0, 0, 0])
    for one, other, cosine in (((1, 2), (2, 4), 1), ((1, 2), (-4, 2), 0), ((1, 2), (-3, -6), -1)):
        members = [literal.LinearClassifier([[float(v) for v in row], [0.0, 0.0]]) for row in (one, other)]
        terms = GAL(c=1.0).terms(Ensemble(members), x, y, literal.generator(0))
        assert terms["gradient_alignment"].item() == pytest.approx(cosine, abs=1e-9)
        # Three pairs, all aligned: log 3 e.
        terms = GAL(c=1.0).terms(Ensemble([members[0]] * 3), x, y, literal.generator(0))
        assert terms["gradient_alignment"].item() == pytest.approx(1 + math.log(3), abs=1e-9)


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ParameterError, match=r"GAL: c = -0\.5 is not allowed\. Input should be greater than or equal"):
        GAL(c=-0.5)
    assert GAL.pairwise
