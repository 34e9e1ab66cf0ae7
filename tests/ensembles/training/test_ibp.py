from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ensembles import Ensemble, ParameterError, architectures
from ensembles.architectures import Classifier, Normalize
from ensembles.training.ibp import IBP, interval, worst_logits


def literal_worst(member: Classifier, sample: Tensor, label: int, epsilon: float, noise: Tensor) -> list[float]:
    """The intervals of a one-layer network, a neuron at a time, and the worst differences of its logits."""
    pixels = sample.flatten().tolist()
    low = [max(p - epsilon, 0.0) + n for p, n in zip(pixels, noise.flatten().tolist(), strict=True)]
    high = [min(p + epsilon, 1.0) + n for p, n in zip(pixels, noise.flatten().tolist(), strict=True)]
    _, linear, _ = member.body
    lows, highs = [], []
    for row, bias in zip(linear.weight.tolist(), linear.bias.tolist(), strict=True):
        least = bias + sum(min(w * a, w * b) for w, a, b in zip(row, low, high, strict=True))
        most = bias + sum(max(w * a, w * b) for w, a, b in zip(row, low, high, strict=True))
        lows.append(max(least, 0.0))
        highs.append(max(most, 0.0))
    head, bias = member.head.weight.tolist(), member.head.bias.tolist()
    worst = []
    for other in range(len(bias)):
        slopes = [a - b for a, b in zip(head[other], head[label], strict=True)]
        rise = sum(max(s * a, s * b) for s, a, b in zip(slopes, lows, highs, strict=True))
        worst.append(bias[other] - bias[label] + rise)
    return worst


@pytest.mark.parametrize(("sigma", "epsilon", "kappa"), [(0.0, 0.1, 0.5), (0.0, 0.6, 0.25), (0.4, 0.05, 0.0)])
def test_terms_equal_the_formulas(literal: Any, sigma: float, epsilon: float, kappa: float) -> None:
    problem = literal.build_problem(members=2)
    noise = sigma * literal.normal(3, *problem.x.shape)
    clean = worst = 0.0
    for member in problem.ensemble.members:
        for sample, label, own in zip(problem.x, problem.y.tolist(), noise, strict=True):
            clean += literal.cross_entropy(literal.logits_of(member, (sample + own)[None])[0], label) / len(problem.y)
            logits = literal_worst(member, sample, label, epsilon, own)
            assert logits[label] == 0
            worst += literal.cross_entropy(logits, label) / len(problem.y)
    objective = IBP(sigma=sigma, epsilon=epsilon, kappa_end=kappa)
    terms = objective.terms(problem.ensemble, problem.x, problem.y, literal.generator(3))
    assert list(terms) == ["cross_entropy", "worst_case"]
    assert literal.values(terms) == pytest.approx(
        {"cross_entropy": kappa * clean, "worst_case": (1 - kappa) * worst}, abs=1e-9
    )
    assert worst > clean


def test_a_box_without_width_is_the_input(literal: Any) -> None:
    problem = literal.build_problem(members=3)
    objective = IBP(epsilon=0.0, kappa_end=0.5)
    terms = literal.values(objective.terms(problem.ensemble, problem.x, problem.y, literal.generator(0)))
    assert terms["worst_case"] == pytest.approx(terms["cross_entropy"], abs=1e-12)


def test_epsilon_and_kappa_of_each_epoch() -> None:
    objective = IBP(epsilon=0.4, warmup_epochs=2, ramp_epochs=4, kappa_end=0.6)
    found = [(objective.at_epoch(epoch).epsilon, objective.at_epoch(epoch).kappa_end) for epoch in range(1, 9)]
    truth = [(0, 1), (0, 1), (0.1, 0.9), (0.2, 0.8), (0.3, 0.7), (0.4, 0.6), (0.4, 0.6), (0.4, 0.6)]
    assert found == [pytest.approx(pair) for pair in truth]
    plain = IBP(epsilon=0.3)
    assert plain.at_epoch(1) == plain == plain.at_epoch(9)
    late = IBP(epsilon=0.3, warmup_epochs=3)
    assert [late.at_epoch(epoch).epsilon for epoch in (3, 4)] == [0.0, 0.3]


def members() -> dict[str, nn.Module]:
    convolutions = nn.Sequential(
        *(nn.Conv2d(2, 6, 3, stride=2, padding=1, groups=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.3)),
        *(nn.Conv2d(6, 4, 2, dilation=2, bias=False), nn.Tanh(), nn.AvgPool2d(2), nn.Identity(), nn.Flatten()),
    )
    normalize = Normalize([0.4, 0.2], [0.3, 0.5], 3)
    built: dict[str, nn.Module] = {
        "layers": Classifier("layers", normalize, convolutions, nn.Linear(16, 3)),
        "pooled": nn.Sequential(
            *(nn.Conv2d(2, 5, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Sigmoid(), nn.AdaptiveAvgPool2d(2), nn.Flatten()),
            nn.Linear(20, 3, bias=False),
        ),
        "mlp": architectures.create("mlp", input_shape=(2, 12, 12), classes=3, seed=0, hidden=(20, 10)),
    }
    generator = torch.Generator().manual_seed(5)
    for layer in convolutions:
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.copy_(torch.randn(6, generator=generator))
            layer.running_var.copy_(torch.rand(6, generator=generator) + 0.2)
            layer.weight.data.copy_(torch.randn(6, generator=generator))
    return built


@pytest.mark.parametrize("name", ["layers", "pooled", "mlp"])
def test_no_input_of_the_box_is_worse(name: str) -> None:
    torch.manual_seed(0)
    member = members()[name].double().eval()
    generator = torch.Generator().manual_seed(1)
    x, y = torch.rand(4, 2, 12, 12, generator=generator, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    for epsilon in (0.0, 0.01, 0.3):
        low, high = (x - epsilon).clamp(min=0), (x + epsilon).clamp(max=1)
        with torch.no_grad():
            worst = worst_logits(member, (low, high), y)
            assert torch.equal(worst.gather(1, y[:, None]), torch.zeros(4, 1).double())
            for draw in range(200):
                share = torch.rand(x.shape, generator=generator, dtype=torch.float64)
                logits = member(low + (share.round() if draw % 2 else share) * (high - low))
                assert bool((logits - logits.gather(1, y[:, None]) <= worst + 1e-9).all())
            if not epsilon:
                logits = member(x)
                torch.testing.assert_close(worst, logits - logits.gather(1, y[:, None]), atol=1e-9, rtol=0)


def test_training_makes_more_images_safe_in_the_whole_box(literal: Any) -> None:
    problem = literal.build_problem(members=1, batch=24, alike=0.0)
    member, x, y = problem.ensemble.members[0], problem.x[:-1], problem.y[:-1]
    box = ((x - 0.05).clamp(min=0), (x + 0.05).clamp(max=1))
    others = torch.arange(4) != y[:, None]

    def safe() -> int:
        return int(((worst_logits(member, box, y) < 0) | ~others).all(1).sum())

    before, optimizer = safe(), torch.optim.SGD(member.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        IBP(epsilon=0.05).loss(problem.ensemble, x, y, literal.generator(0)).backward()
        optimizer.step()
    assert safe() >= before + 2


def test_layers_without_intervals_are_named(literal: Any) -> None:
    box = (torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4))
    message = (
        r"'ibp' knows no intervals of the layer {}\. Known are Linear, Conv2d, ReLU.*Use an architecture without it"
    )
    for layer, name in [
        (nn.GELU(), "GELU"),
        (nn.Conv2d(3, 2, 3, padding=1, padding_mode="circular"), "Conv2d"),
        (nn.BatchNorm2d(3).train(), "BatchNorm2d in train mode"),
        (nn.Dropout(0.5).train(), "Dropout in train mode"),
    ]:
        with pytest.raises(ValueError, match=message.format(name)):
            interval(layer, box)
    resnet = architectures.create("resnet20", input_shape=(1, 8, 8), classes=3, seed=0).train()
    x, y = torch.rand(2, 1, 8, 8), torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"BatchNorm2d in train mode"):
        IBP().terms(Ensemble([resnet]), x, y, literal.generator(0))
    with pytest.raises(ValueError, match=r"needs members that end in a Linear layer, got ReLU"):
        IBP().terms(Ensemble([nn.ReLU()]), torch.rand(2, 3), y, literal.generator(0))


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(
        ParameterError, match=r"IBP: kappa_end = 1\.5 is not allowed\. Input should be less than or equal"
    ):
        IBP(kappa_end=1.5)
    with pytest.raises(ParameterError, match=r"IBP: epsilon = -0\.1 is not allowed"):
        IBP(epsilon=-0.1)
    assert not IBP.joint
