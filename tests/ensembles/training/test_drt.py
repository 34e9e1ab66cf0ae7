import itertools
import math
from typing import Any

import pytest
import torch

from ensembles import Ensemble, ParameterError
from ensembles.training.drt import DRT

FORMS = ["paper", "code", "overall"]


def expected(literal: Any, ensemble: Ensemble, noisy: torch.Tensor, y: torch.Tensor, form: str) -> dict[str, float]:
    """Eq. 9, 10, 54 and 55 a sample, a member and a pair at a time; `pairs` counts the valid ones."""
    members, batch = len(ensemble.members), len(y)
    right, runner_up, margin, gradient = {}, {}, {}, {}
    for i, b in itertools.product(range(members), range(batch)):
        label = int(y[b])
        logits = literal.logits_of(ensemble.members[i], noisy[b : b + 1])[0]
        confidences = literal.softmax(logits)
        best_first = sorted(range(len(logits)), key=lambda c: -confidences[c])
        other = next(c for c in best_first if c != label)
        right[i, b], runner_up[i, b] = best_first[0] == label, other
        margin[i, b] = confidences[label] - confidences[other]
        gradient[i, b] = literal.input_gradient(
            ensemble.members[i],
            noisy[b],
            lambda own, label=label, other=other: (
                (torch.exp(own[label]) - torch.exp(own[other])) / torch.exp(own).sum()
            ),
        )

    def size(*vectors: list[float]) -> float:
        total = [math.fsum(values) for values in zip(*vectors, strict=True)]
        return math.sqrt(literal.dot(total, total))

    diversity = confidence = norm = 0.0
    pairs = 0
    answers = sum(right.values())
    for b in range(batch):
        if form == "paper":
            for i, j in itertools.permutations(range(members), 2):
                if right[i, b] and right[j, b]:
                    pairs += 1
                    diversity += size(gradient[i, b], gradient[j, b]) / batch
                    confidence += (-margin[i, b] - margin[j, b]) / batch
        elif form == "code":
            for i, j in itertools.combinations(range(members), 2):
                if right[i, b] and right[j, b]:
                    pairs += 1
                    diversity += size(gradient[i, b], gradient[j, b]) ** 2
            confidence -= sum(margin[i, b] / answers for i in range(members) if right[i, b])
        else:
            everyone = all(right[i, b] for i in range(members))
            if everyone and len({runner_up[i, b] for i in range(members)}) == 1:
                pairs += 1
                diversity += size(*(gradient[i, b] for i in range(members))) / batch
                confidence -= sum(margin[i, b] for i in range(members)) / batch
        for i in range(members):
            if right[i, b]:
                own = size(gradient[i, b])
                norm += own**2 / answers if form == "code" else own / batch
    if form == "code" and pairs:
        diversity /= pairs
    standard = sum(
        literal.cross_entropy(literal.logits_of(member, noisy)[b], int(y[b])) / batch
        for member in ensemble.members
        for b in range(batch)
    )
    return {"standard": standard, "diversity": diversity, "confidence": confidence, "norm": norm, "pairs": pairs}


@pytest.mark.parametrize("gradients", ["pairs", "norm"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("members", "classes", "seed"), [(2, 3, 4), (3, 4, 7), (3, 5, 4)])
def test_terms_equal_the_formulas(
    literal: Any, form: str, gradients: str, members: int, classes: int, seed: int
) -> None:
    problem = literal.build_problem(members=members, classes=classes, seed=seed, batch=9)
    noisy = problem.x + 0.1 * literal.normal(5, *problem.x.shape)
    answer = expected(literal, problem.ensemble, noisy, problem.y, form)
    most = {"paper": members * (members - 1), "code": members * (members - 1) // 2, "overall": 1}[form] * 9
    assert 0 < answer["pairs"] < most, "the case must have valid and invalid pairs"

    objective = DRT(sigma=0.1, rho1=0.7, rho2=1.3, form=form, gradients=gradients)
    terms = objective.terms(problem.ensemble, problem.x, problem.y, literal.generator(5))
    assert list(terms) == ["cross_entropy", "gradient_diversity", "confidence_margin"]
    found = literal.values(terms)
    assert found == pytest.approx(
        {
            "cross_entropy": answer["standard"],
            "gradient_diversity": 0.7 * answer["diversity" if gradients == "pairs" else "norm"],
            "confidence_margin": 1.3 * answer["confidence"],
        },
        abs=1e-9,
    )
    loss = objective.loss(problem.ensemble, problem.x, problem.y, literal.generator(5))
    assert loss.item() == pytest.approx(sum(found.values()), abs=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_base_smoothadv_replaces_the_cross_entropy_alone(literal: Any, form: str) -> None:
    problem = literal.build_problem(members=2, classes=3, seed=4, batch=4)
    options: dict[str, Any] = {"sigma": 0.1, "form": form}
    attack: dict[str, Any] = {"steps": 3, "epsilon": 0.4, "draws": 2}
    plain = DRT(**options).terms(problem.ensemble, problem.x, problem.y, literal.generator(3))
    terms = DRT(base="smoothadv", **attack, **options).terms(
        problem.ensemble, problem.x, problem.y, literal.generator(3)
    )
    assert list(terms) == ["smoothadv", "gradient_diversity", "confidence_margin"]
    for name in ("gradient_diversity", "confidence_margin"):
        assert terms[name].item() == plain[name].item()
    # The noise of the regularisers is drawn first, the draws of the attack follow.
    generator = literal.generator(3)
    torch.randn(problem.x.shape, generator=generator, dtype=torch.float64)
    noise = 0.1 * torch.randn((2, *problem.x.shape), generator=generator, dtype=torch.float64)
    truth = literal.smoothadv_loss(problem.ensemble, problem.x, problem.y, noise, epsilon=0.4, steps=3)
    assert terms["smoothadv"].item() == pytest.approx(truth, abs=1e-9)
    assert truth > plain["cross_entropy"].item()


# By hand: two classes and members `z = (t_i x, 0)` at x = 1/2, label 0. With u_i = t_i / 2 the confidence of class 0 is
# 1 / (1 + e^-u), so the margin is tanh(u / 2), and its slope in x is (t / 2)(1 - tanh^2(u / 2)).


@pytest.mark.parametrize(
    ("form", "gradients", "diversity", "confidence"),
    [
        ("paper", "pairs", lambda g, h: 2 * abs(g + h), lambda m, n: -2 * (m + n)),
        ("code", "pairs", lambda g, h: (g + h) ** 2, lambda m, n: -(m + n) / 2),
        ("overall", "pairs", lambda g, h: abs(g + h), lambda m, n: -(m + n)),
        ("paper", "norm", lambda g, h: abs(g) + abs(h), lambda m, n: -2 * (m + n)),
        ("code", "norm", lambda g, h: (g**2 + h**2) / 2, lambda m, n: -(m + n) / 2),
        ("overall", "norm", lambda g, h: abs(g) + abs(h), lambda m, n: -(m + n)),
    ],
)
def test_one_pixel_two_classes_by_hand(
    literal: Any, form: str, gradients: str, diversity: Any, confidence: Any
) -> None:
    slopes = (1.0, 4.0)
    margins = [math.tanh(t / 4) for t in slopes]
    gradient = [t / 2 * (1 - m * m) for t, m in zip(slopes, margins, strict=True)]
    ensemble = Ensemble([literal.LinearClassifier([[t], [0.0]]) for t in slopes])
    x, y = torch.full((1, 1), 0.5, dtype=torch.float64), torch.tensor([0])
    terms = DRT(rho1=1.0, rho2=1.0, form=form, gradients=gradients).terms(ensemble, x, y, literal.generator(0))
    assert terms["gradient_diversity"].item() == pytest.approx(diversity(*gradient), abs=1e-12)
    assert terms["confidence_margin"].item() == pytest.approx(confidence(*margins), abs=1e-12)


def test_opposite_gradients_cost_nothing_in_pairs_but_their_size_in_norm(literal: Any) -> None:
    # Members z = (t x + c, 0) with t = 2 and -2, c = 0 and 2: both have u = 1 at x = 1/2, and gradients that cancel.
    ensemble = Ensemble(
        [literal.LinearClassifier([[2.0], [0.0]]), literal.LinearClassifier([[-2.0], [0.0]], [2.0, 0.0])]
    )
    x, y = torch.full((1, 1), 0.5, dtype=torch.float64), torch.tensor([0])
    for form in FORMS:
        terms = DRT(rho1=1.0, form=form).terms(ensemble, x, y, literal.generator(0))
        assert terms["gradient_diversity"].item() == 0.0
        # A norm has no gradient at 0; the one taken must not be NaN.
        gradients = torch.autograd.grad(terms["gradient_diversity"], list(ensemble.parameters()))
        assert all(torch.equal(gradient, torch.zeros_like(gradient)) for gradient in gradients)
        norm = DRT(rho1=1.0, form=form, gradients="norm").terms(ensemble, x, y, literal.generator(0))
        assert norm["gradient_diversity"].item() > 0.1


def test_runner_up_is_the_best_other_class_of_each_member_itself(literal: Any) -> None:
    # Class 0 leads; the runner-up is 1 for one member and 2 for the other, so `overall` has nothing valid.
    first = literal.LinearClassifier([[0.0], [0.0], [0.0]], [3.0, 2.0, 0.0])
    second = literal.LinearClassifier([[0.0], [0.0], [0.0]], [3.0, 0.0, 1.0])
    x, y = torch.full((1, 1), 0.5, dtype=torch.float64), torch.tensor([0])
    one, other = literal.softmax([3.0, 2.0, 0.0]), literal.softmax([3.0, 0.0, 1.0])
    generator = literal.generator(0)
    terms = DRT(rho2=1.0, form="paper").terms(Ensemble([first, second]), x, y, generator)
    assert terms["confidence_margin"].item() == pytest.approx(2 * (one[1] - one[0] + other[2] - other[0]), abs=1e-12)
    terms = DRT(rho2=1.0, form="overall").terms(Ensemble([first, second]), x, y, generator)
    assert terms["confidence_margin"].item() == 0.0
    assert terms["gradient_diversity"].item() == 0.0
    terms = DRT(rho2=1.0, form="overall").terms(Ensemble([first, first]), x, y, generator)
    assert terms["confidence_margin"].item() == pytest.approx(2 * (one[1] - one[0]), abs=1e-12)


def _is_nothing(term: torch.Tensor, ensemble: Ensemble) -> bool:
    if term.item() != 0.0:
        return False
    if not term.requires_grad:
        return True
    gradients = torch.autograd.grad(term, list(ensemble.parameters()), retain_graph=True, allow_unused=True)
    return all(gradient is None or not gradient.any() for gradient in gradients)


@pytest.mark.parametrize("gradients", ["pairs", "norm"])
@pytest.mark.parametrize("form", FORMS)
def test_an_ensemble_that_is_wrong_everywhere_adds_exactly_nothing(literal: Any, form: str, gradients: str) -> None:
    problem = literal.build_problem(members=3, classes=5, seed=2)
    with torch.no_grad():
        answers = problem.ensemble.logits(problem.x).argmax(-1)
    y = torch.tensor([min(set(range(5)) - set(column.tolist())) for column in answers.T])
    objective = DRT(rho1=50.0, rho2=50.0, form=form, gradients=gradients)
    terms = objective.terms(problem.ensemble, problem.x, y, literal.generator(0))
    assert _is_nothing(terms["gradient_diversity"], problem.ensemble)
    assert _is_nothing(terms["confidence_margin"], problem.ensemble)
    assert terms["cross_entropy"].item() > 0


@pytest.mark.parametrize("form", FORMS)
def test_one_right_member_makes_no_pair(literal: Any, form: str) -> None:
    weights = [[1.0, 2.0], [0.0, 1.0], [0.0, 0.0]]
    right, wrong = literal.LinearClassifier(weights), literal.LinearClassifier(weights[::-1])
    ensemble = Ensemble([right, wrong, wrong])
    x, y = torch.full((2, 2), 0.5, dtype=torch.float64), torch.tensor([0, 0])
    terms = DRT(form=form, rho2=1.0).terms(ensemble, x, y, literal.generator(0))
    assert _is_nothing(terms["gradient_diversity"], ensemble)
    if form == "code":  # counts the margins of members, not of pairs
        confidences = literal.softmax([1.5, 0.5, 0.0])
        assert terms["confidence_margin"].item() == pytest.approx(confidences[1] - confidences[0], abs=1e-12)
    else:
        assert _is_nothing(terms["confidence_margin"], ensemble)


def test_wrong_samples_do_not_touch_the_gradient_of_right_ones(literal: Any) -> None:
    # A batch of one valid sample and one that all get wrong: the regularisers are half those of the valid one alone.
    problem = literal.build_problem(members=2, classes=3, seed=4, batch=9)
    right = problem.right(problem.x)
    valid, invalid = int(right.all(0).nonzero()[0]), int((~right).all(0).nonzero()[0])
    parameters = list(problem.ensemble.parameters())

    def gradients(positions: list[int]) -> list[torch.Tensor]:
        terms = DRT(form="paper").terms(
            problem.ensemble, problem.x[positions], problem.y[positions], literal.generator(0)
        )
        return list(torch.autograd.grad(terms["gradient_diversity"] + terms["confidence_margin"], parameters))

    for alone, together in zip(gradients([valid]), gradients([valid, invalid]), strict=True):
        torch.testing.assert_close(together, alone / 2, rtol=1e-12, atol=1e-14)


def test_saturated_members_stay_finite(literal: Any) -> None:
    ensemble = literal.build_ensemble(members=2, seed=1, sharpness=1e4).float()
    x = torch.rand((6, 1, 4, 4), generator=literal.generator(0))
    y = ensemble.logits(x).argmax(-1)[0]
    for form in FORMS:
        loss = DRT(form=form).loss(ensemble, x, y, literal.generator(0))
        gradients = torch.autograd.grad(loss, list(ensemble.parameters()))
        assert math.isfinite(loss.item())
        assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)


def test_wrong_weights_are_refused() -> None:
    with pytest.raises(ParameterError, match=r"DRT: rho1 = -1\.0 is not allowed\. Input should be greater than or"):
        DRT(rho1=-1.0)
    with pytest.raises(ParameterError, match=r"DRT: rho2 = nan is not allowed\. Input should be"):
        DRT(rho2=math.nan)
