"""Radii in closed form beside exact truth: fractions, and 60 digits for the square root."""

import itertools
import math
from fractions import Fraction
from typing import Any

import mpmath
import pytest
import torch
from torch import nn

from certifiers import Norm, ThreatModel
from certifiers.exact import ClosedForm, affine_form
from ensembles import Ensemble, WeightedAverage
from ensembles.architectures import Normalize
from tests.certifiers.exact.linear_models_under_test import NORMS, images, random_linear


def exact_rows(model: nn.Sequential, shape: tuple[int, ...]) -> tuple[list[list[Fraction]], list[Fraction]]:
    """Weight and bias of a chain of Normalize and Linear layers in exact arithmetic on its float numbers."""
    inputs = math.prod(shape)
    rows = [[Fraction(int(i == j)) for j in range(inputs)] for i in range(inputs)]
    offsets = [Fraction(0)] * inputs
    for layer in model:
        if isinstance(layer, Normalize):
            mean = layer.mean.expand(shape).flatten().tolist()
            std = layer.std.expand(shape).flatten().tolist()
            rows = [[value / Fraction(s) for value in row] for row, s in zip(rows, std, strict=True)]
            offsets = [(o - Fraction(m)) / Fraction(s) for o, m, s in zip(offsets, mean, std, strict=True)]
        elif isinstance(layer, nn.Linear):
            weight = [[Fraction(value) for value in row] for row in layer.weight.tolist()]
            columns = list(zip(*rows, strict=True))
            offsets = [
                sum((w * o for w, o in zip(row, offsets, strict=True)), Fraction(b))
                for row, b in zip(weight, layer.bias.tolist(), strict=True)
            ]
            rows = [[sum(w * c for w, c in zip(row, column, strict=True)) for column in columns] for row in weight]
    return rows, offsets


def exact_distance(rows: list[list[Fraction]], offsets: list[Fraction], x: list[float], norm: Norm) -> Any:
    scores = [
        sum((w * Fraction(v) for w, v in zip(row, x, strict=True)), b) for row, b in zip(rows, offsets, strict=True)
    ]
    top = max(range(len(scores)), key=lambda label: scores[label])
    distances = []
    for other in range(len(scores)):
        difference = [a - b for a, b in zip(rows[top], rows[other], strict=True)]
        if other != top and any(difference):
            dual: Any
            if norm is Norm.L2:
                square = sum(value * value for value in difference)
                dual = mpmath.sqrt(mpmath.mpf(square.numerator) / square.denominator)
            else:
                fraction = max(map(abs, difference)) if norm is Norm.L1 else sum(map(abs, difference))
                dual = mpmath.mpf(fraction.numerator) / fraction.denominator
            margin = scores[top] - scores[other]
            distances.append(mpmath.mpf(margin.numerator) / margin.denominator / dual)
    return min(distances)


def chain(seed: int, *, scale: float, std: float, hidden: tuple[int, ...], shape: tuple[int, ...]) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = [Normalize([0.5] * shape[0], [std] * shape[0], len(shape)), nn.Flatten()]
    width = math.prod(shape)
    for units in (*hidden, 3):
        layer = nn.Linear(width, units)
        with torch.no_grad():
            layer.weight.copy_(torch.randn(units, width, generator=generator))
            layer.bias.copy_(scale * torch.randn(units, generator=generator))
        layers.append(layer)
        width = units
    return nn.Sequential(*layers)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    ("scale", "std", "hidden"),
    [(0.3, 1.0, ()), (0.3, 0.3, ()), (0.3, 1e-3, (4,)), (100.0, 1.0, (4,)), (1e6, 1.0, (4, 5)), (1e-3, 1e3, (5,))],
)
def test_radius_is_never_above_the_exact_distance_and_just_below_it(
    norm: Norm, scale: float, std: float, hidden: tuple[int, ...]
) -> None:
    shape, certified = (2, 1, 3), 0
    with mpmath.workdps(60):
        for seed in range(8):
            model, x = chain(seed, scale=scale, std=std, hidden=hidden, shape=shape), images(2, *shape, seed=seed)
            form = affine_form(model, x[:1])
            found = ClosedForm().certify(model, x, ThreatModel(norm))
            rows, offsets = exact_rows(model, shape)
            for mine, exact, bound in zip(
                [*form.weight.flatten().tolist(), *form.bias.tolist()],
                [*itertools.chain.from_iterable(rows), *offsets],
                [*form.weight_error.flatten().tolist(), *form.bias_error.tolist()],
                strict=True,
            ):
                assert abs(Fraction(mine) - exact) <= Fraction(bound)
            for row, image in enumerate(x.flatten(1).tolist()):
                if not found.certified[row]:
                    continue
                truth = exact_distance(rows, offsets, image, norm)
                limit = ThreatModel(norm).box_diameter(6)
                radius = mpmath.mpf(float(found.radius[row]))
                assert radius <= truth
                if truth < limit:
                    certified += 1
                    assert radius >= truth * (1 - mpmath.mpf("1e-6"))
    if scale < 100:
        assert certified > 0, "a test of nothing"


@pytest.mark.parametrize("norm", NORMS)
def test_radius_is_never_above_the_exact_distance_where_huge_numbers_cancel_inside(norm: Norm) -> None:
    # Read off in float64 at the unit vectors, weights would be lost among biases of 10^8.
    certified = 0
    with mpmath.workdps(60):
        for seed in range(20):
            model = chain(seed, scale=1e8, std=1.0, hidden=(4,), shape=(1, 1, 3)).double()
            x = images(1, 1, 1, 3, seed=seed).double()
            first, last = model[2], model[3]
            with torch.no_grad():
                last.bias.copy_(torch.tensor([0.1, 0.2, 0.3]) - last.weight @ first.bias)
            found = ClosedForm().certify(model, x, ThreatModel(norm))
            truth = exact_distance(*exact_rows(model, (1, 1, 3)), x.flatten().tolist(), norm)
            radius = mpmath.mpf(float(found.radius[0]))
            assert radius <= truth
            if found.certified[0] and truth < ThreatModel(norm).box_diameter(3):
                certified += 1
                assert radius > truth * (1 - mpmath.mpf("1e-3"))
    assert certified >= 10, "a test of nothing"


@pytest.mark.parametrize("norm", NORMS)
def test_radius_of_one_layer_is_exact_to_rounding(norm: Norm) -> None:
    with mpmath.workdps(60):
        for seed in range(10):
            model, x = random_linear(3, 6, seed), images(1, 1, 6, seed=seed)
            found = ClosedForm().certify(model, x, ThreatModel(norm))
            truth = exact_distance(*exact_rows(model, (1, 6)), x.flatten().tolist(), norm)
            radius = mpmath.mpf(float(found.radius[0]))
            if truth < ThreatModel(norm).box_diameter(6):
                assert truth * (1 - mpmath.mpf("1e-11")) <= radius <= truth


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("weights", [None, (0.1, 0.7), (1.0, 1e-6)])
def test_radius_of_an_ensemble_is_never_above_the_exact_distance(
    norm: Norm, weights: tuple[float, float] | None
) -> None:
    with mpmath.workdps(60):
        for seed in range(8):
            members = [random_linear(3, 6, seed=10 * seed + number) for number in range(2)]
            found = ClosedForm().certify(
                Ensemble(members, WeightedAverage(weights=weights, of="logit")),
                images(1, 1, 6, seed=seed),
                ThreatModel(norm),
            )
            shares = [Fraction(share) for share in weights or (1.0, 1.0)]
            forms = [exact_rows(member, (1, 6)) for member in members]
            rows = [
                [sum(s * f[0][c][i] for s, f in zip(shares, forms, strict=True)) / sum(shares) for i in range(6)]
                for c in range(3)
            ]
            offsets = [sum(s * f[1][c] for s, f in zip(shares, forms, strict=True)) / sum(shares) for c in range(3)]
            truth = exact_distance(rows, offsets, images(1, 1, 6, seed=seed).flatten().tolist(), norm)
            radius = mpmath.mpf(float(found.radius[0]))
            assert radius <= truth
            if truth < ThreatModel(norm).box_diameter(6):
                assert radius >= truth * (1 - mpmath.mpf("1e-10"))
