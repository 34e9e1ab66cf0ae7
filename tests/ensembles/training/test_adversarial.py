import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ensembles import Ensemble, ParameterError
from ensembles.training.adversarial import Adversarial


def literal_attack(
    literal: Any, ensemble: Ensemble, x: Tensor, y: Tensor, start: Tensor, objective: Any
) -> list[float]:
    """Signed steps up the cross-entropy of the mean logits, a sample and a pixel at a time."""
    ends = []
    steps, step = (1, objective.epsilon) if objective.method == "fgsm" else (objective.steps, objective.step)
    for b, label in enumerate(y.tolist()):
        clean, now = x[b].flatten().tolist(), start[b].flatten().tolist()
        for _ in range(steps):
            gradient = literal.input_gradient(
                lambda own: sum(member(own) for member in ensemble.members) / len(ensemble.members),
                torch.tensor(now, dtype=x.dtype).reshape(x[b].shape),
                literal.negative_log_confidence(label),
            )
            for pixel, slope in enumerate(gradient):
                moved = now[pixel] + step * (slope > 0) - step * (slope < 0)
                moved = min(max(moved, clean[pixel] - objective.epsilon), clean[pixel] + objective.epsilon)
                now[pixel] = min(max(moved, 0.0), 1.0)
        ends += now
    return ends


@pytest.mark.parametrize(
    "objective",
    [
        Adversarial(method="fgsm", epsilon=0.1, sigma=0.2),
        Adversarial(method="pgd", epsilon=0.1, steps=4, step=0.04, sigma=0.2),
        Adversarial(sigma=0.0),
    ],
    ids=["fgsm", "pgd", "default"],
)
def test_attack_and_loss_equal_the_literal_ones(literal: Any, objective: Adversarial) -> None:
    problem = literal.build_problem(members=3, seed=6)
    generator = literal.generator(9)
    start = problem.x
    if objective.method == "pgd":
        drawn = torch.rand(problem.x.shape, generator=generator, dtype=torch.float64)
        start = (problem.x + objective.epsilon * (2 * drawn - 1)).clamp(0, 1)
    truth = literal_attack(literal, problem.ensemble, problem.x, problem.y, start, objective)
    found = objective.attack(problem.ensemble, problem.x, problem.y, literal.generator(9))
    assert found.flatten().tolist() == pytest.approx(truth, abs=1e-12)
    # Noise comes after the attack, from the same generator.
    noise = torch.randn(problem.x.shape, generator=generator, dtype=torch.float64)
    noisy = torch.tensor(truth, dtype=torch.float64).reshape(problem.x.shape) + objective.sigma * noise
    losses = [
        literal.cross_entropy(literal.logits_of(member, noisy)[b], int(problem.y[b]))
        for member in problem.ensemble.members
        for b in range(len(noisy))
    ]
    terms = objective.terms(problem.ensemble, problem.x, problem.y, literal.generator(9))
    assert literal.values(terms) == pytest.approx({"cross_entropy": math.fsum(losses) / len(noisy)}, abs=1e-9)


@pytest.mark.parametrize("method", ["fgsm", "pgd"])
def test_the_attack_stays_in_the_ball_and_the_box_and_raises_the_loss(literal: Any, method: Any) -> None:
    problem = literal.build_problem(members=2, batch=64, seed=2)
    x = problem.x.clone()
    x[:20] = x[:20].round()
    objective = Adversarial(method=method, epsilon=0.06, steps=8, step=0.02)
    found = objective.attack(problem.ensemble, x, problem.y, literal.generator(0))
    assert float((found - x).abs().max()) <= 0.06 + 1e-12
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1

    def loss(inputs: Tensor) -> Tensor:
        with torch.no_grad():
            logits = problem.ensemble.logits(inputs).mean(0)
            return torch.nn.functional.cross_entropy(logits, problem.y, reduction="none")

    clean, raised = loss(x), loss(found)
    assert bool((raised >= clean - 1e-3).all())
    assert float(raised.mean()) > 1.02 * float(clean.mean())


def test_a_linear_ensemble_is_attacked_to_the_corner(literal: Any) -> None:
    # Mean logits (w x, 0) with w = ((3, -1) + (1, -3)) / 2 = (2, -2): class 0 is hurt by -sign(w), class 1 by +sign(w).
    ensemble = Ensemble([literal.LinearClassifier([row, [0.0, 0.0]]) for row in ([3.0, -1.0], [1.0, -3.0])])
    x = torch.full((2, 2), 0.5, dtype=torch.float64)
    y = torch.tensor([0, 1])
    for objective in (Adversarial(method="fgsm"), Adversarial(method="pgd")):
        found = objective.attack(ensemble, x, y, literal.generator(1))
        assert found.flatten().tolist() == pytest.approx([0.46, 0.54, 0.54, 0.46], abs=1e-12)


def test_only_pgd_starts_at_random_and_from_the_generator_alone(literal: Any) -> None:
    problem = literal.build_problem(members=2)
    for method, random in (("fgsm", False), ("pgd", True)):
        spies = [literal.Spy(member) for member in problem.ensemble.members]
        objective = Adversarial(method=method, epsilon=0.1, steps=3)  # type: ignore[arg-type]
        torch.manual_seed(1)
        one = objective.attack(Ensemble(spies), problem.x, problem.y, literal.generator(5))
        torch.manual_seed(2)
        again = objective.attack(Ensemble(spies), problem.x, problem.y, literal.generator(5))
        other = objective.attack(Ensemble(spies), problem.x, problem.y, literal.generator(6))
        assert torch.equal(one, again)
        first = [spies[0].inputs[call] for call in range(0, len(spies[0].inputs), len(spies[0].inputs) // 3)]
        assert torch.equal(first[0], first[1])
        assert torch.equal(first[0], problem.x) is not random
        assert torch.equal(first[0], first[2]) is not random
        assert float((first[0] - problem.x).abs().max()) <= 0.1
        assert torch.equal(one, other) is not random
        calls = 3 * (3 if random else 1)
        assert [len(spy.inputs) for spy in spies] == [calls, calls], "one forward a step and member"


def test_the_attack_leaves_no_gradients(literal: Any) -> None:
    problem = literal.build_problem(members=2)
    x = problem.x.clone().requires_grad_()
    found = Adversarial(steps=2).attack(problem.ensemble, x, problem.y, literal.generator(0))
    assert not found.requires_grad
    assert x.grad is None
    assert all(parameter.grad is None for parameter in problem.ensemble.parameters())


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ParameterError, match=r"Adversarial: epsilon = 0\.0 is not allowed\. Input should be greater"):
        Adversarial(epsilon=0.0)
    with pytest.raises(ParameterError, match=r"Adversarial: steps = -1 is not allowed"):
        Adversarial(steps=-1)
