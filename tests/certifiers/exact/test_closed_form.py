import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor, nn

import certifiers
from certifiers import KeyedRandomness, Norm, ThreatModel, Unsupported, Verdict
from certifiers.exact import ClosedForm, ClosedFormMargins, affine_form
from ensembles import Ensemble, MaxMargin, Single, WeightedAverage, architectures
from ensembles.architectures import Normalize

NORMS = list(Norm)


def linear(weight: Any, bias: Any, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    weight, bias = torch.as_tensor(weight, dtype=dtype), torch.as_tensor(bias, dtype=dtype)
    model = nn.Sequential(nn.Flatten(), nn.Linear(weight.shape[1], weight.shape[0], dtype=dtype))
    with torch.no_grad():
        model[1].weight.copy_(weight)
        model[1].bias.copy_(bias)
    return model


def random_linear(classes: int, inputs: int, seed: int, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    return linear(
        torch.randn(classes, inputs, generator=generator), torch.randn(classes, generator=generator) / 2, dtype
    )


def images(count: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


# Independent truth, first in floating point: the distance to the nearest boundary.


def distance_by_projection(weight: np.ndarray, bias: np.ndarray, x: np.ndarray) -> float:
    """l2: the nearest of the points at which another class ties, found by projecting x onto each boundary."""
    scores = weight @ x + bias
    top, distances = int(scores.argmax()), []
    for other in range(len(bias)):
        if other != top:
            normal = weight[top] - weight[other]
            foot = x - (scores[top] - scores[other]) / (normal @ normal) * normal
            tied = weight @ foot + bias
            assert tied[top] == pytest.approx(tied[other], abs=1e-9)
            distances.append(float(np.linalg.norm(x - foot)))
    return min(distances)


def distance_by_linear_program(weight: np.ndarray, bias: np.ndarray, x: np.ndarray, norm: Norm) -> float:
    """l1 and linf: the least norm of a delta that makes another class win, by linear programming."""
    scores, d = weight @ x + bias, len(x)
    top, distances = int(scores.argmax()), []
    eye = np.eye(d)
    # Variables: delta and bounds t of |delta|, one a coordinate (l1: their sum) or one in all (linf).
    t = eye if norm is Norm.L1 else np.ones((d, 1))
    cost = np.concatenate([np.zeros(d), np.ones(t.shape[1])])
    for other in range(len(bias)):
        if other != top:
            lose = np.concatenate([weight[top] - weight[other], np.zeros(t.shape[1])])[None]
            upper = np.vstack([np.hstack([eye, -t]), np.hstack([-eye, -t]), lose])
            limit = np.concatenate([np.zeros(2 * d), [-(scores[top] - scores[other])]])
            solved = linprog(cost, A_ub=upper, b_ub=limit, bounds=[(None, None)] * len(cost))
            assert solved.success
            distances.append(float(solved.fun))
    return min(distances)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("classes", "inputs"), [(2, 1), (2, 5), (4, 3), (6, 8)])
def test_radius_is_the_distance_to_the_nearest_boundary(norm: Norm, classes: int, inputs: int) -> None:
    for seed in range(3):
        model, x = random_linear(classes, inputs, seed), images(4, 1, inputs, seed=seed)
        found = ClosedForm().certify(model, x, ThreatModel(norm))
        weight, bias = model[1].weight.detach().double().numpy(), model[1].bias.detach().double().numpy()
        limit = ThreatModel(norm).box_diameter(inputs)
        for row, image in enumerate(x.flatten(1).double().numpy()):
            truth = (
                distance_by_projection(weight, bias, image)
                if norm is Norm.L2
                else distance_by_linear_program(weight, bias, image, norm)
            )
            assert float(found.radius[row]) == pytest.approx(min(truth, limit), rel=1e-7)
            assert int(found.prediction[row]) == int((weight @ image + bias).argmax())
            if truth < limit:
                scores = weight @ image + bias
                margin = scores[int(found.prediction[row])] - scores[int(found.evidence["runner_up"][row])]
                assert float(found.evidence["margin"][row]) == pytest.approx(float(margin), rel=1e-9)


def test_nearest_boundary_may_be_that_of_the_lowest_score() -> None:
    # At x = (1/2, 1/2) the scores are 1, 0.9 and 0. Class 1 falls behind slowly, class 2 is reached steeply.
    weight, bias = [[0.0, 0.0], [0.1, 0.0], [6.0, 8.0]], [1.0, 0.85, -7.0]
    x = torch.full((1, 1, 2), 0.5)
    expected = {Norm.L1: 1 / 8, Norm.L2: 1 / 10, Norm.LINF: 1 / 14}
    for norm, radius in expected.items():
        found = ClosedForm().certify(linear(weight, bias), x, ThreatModel(norm))
        assert float(found.radius[0]) == pytest.approx(radius, rel=1e-6)
        assert found.evidence["runner_up"].tolist() == [2]
        assert found.evidence["margin"].tolist() == pytest.approx([1.0])
        assert found.prediction.tolist() == [0]
        assert found.cost.bound_passes.tolist() == [1]
        assert found.cost.forward_passes.tolist() == [1]


# Exact truth: fractions, and 60 digits for the square root.


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


def test_answer_flips_just_outside_and_nowhere_inside() -> None:
    model, x = random_linear(4, 5, 3, torch.float64), images(1, 1, 5, seed=3).double()
    found = ClosedForm().certify(model, x, ThreatModel("l2"))
    top, other, radius = int(found.prediction[0]), int(found.evidence["runner_up"][0]), float(found.radius[0])
    towards = (model[1].weight[other] - model[1].weight[top]).detach()
    towards = towards / towards.norm()
    assert int(model(x + 0.999999 * radius * towards).argmax()) == top
    assert int(model(x + 1.000001 * radius * towards).argmax()) == other
    directions = torch.randn(2000, 1, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    inside = x + radius * directions / directions.flatten(1).norm(dim=1)[:, None, None]
    assert bool((model(inside).argmax(1) == top).all())


# What is linear.


def test_weighted_average_of_logits_is_linear() -> None:
    members = [random_linear(3, 6, seed) for seed in range(3)]
    ensemble = Ensemble(members, WeightedAverage(weights=(1.0, 0.0, 3.0), of="logit"))
    weight = (members[0][1].weight + 3 * members[2][1].weight) / 4
    bias = (members[0][1].bias + 3 * members[2][1].bias) / 4
    x = images(5, 1, 6)
    for norm in NORMS:
        expected = ClosedForm().certify(linear(weight.detach(), bias.detach()), x, ThreatModel(norm))
        found = ClosedForm().certify(ensemble, x, ThreatModel(norm))
        assert found.radius.tolist() == pytest.approx(expected.radius.tolist(), rel=1e-5)
        assert torch.equal(found.prediction, expected.prediction)
    assert found.cost.forward_passes.tolist() == [3] * 5


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


def test_single_member_is_linear() -> None:
    members = [random_linear(3, 6, seed) for seed in range(2)]
    x = images(5, 1, 6)
    found = ClosedForm().certify(Ensemble(members, Single(member=1)), x, ThreatModel("l2"))
    assert torch.equal(found.radius, ClosedForm().certify(members[1], x, ThreatModel("l2")).radius)
    assert found.cost.forward_passes.tolist() == [1] * 5


def test_normalisation_inside_the_model_is_part_of_the_radius() -> None:
    # f(x) = ((x - 0.2) / 0.5, 1): the boundary x = 0.7, whatever the statistics hide.
    model = architectures.create("mlp", input_shape=(1, 1, 1), classes=2, seed=0, hidden=(), mean=[0.2], std=[0.5])
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor([[1.0], [0.0]]))
        model.head.bias.copy_(torch.tensor([0.0, 1.0]))
    found = ClosedForm().certify(model, torch.tensor([0.9, 0.6]).reshape(2, 1, 1, 1), ThreatModel("linf"))
    assert found.radius.tolist() == pytest.approx([0.2, 0.1], rel=1e-5)
    assert found.prediction.tolist() == [0, 1]


def test_dropout_and_identity_are_linear_in_eval_mode_also_of_a_model_that_trains() -> None:
    plain = random_linear(3, 6, 0)
    model = nn.Sequential(nn.Identity(), plain[0], nn.Dropout(0.5), plain[1]).train()
    x = images(3, 1, 6)
    found = ClosedForm().certify(model, x, ThreatModel("l2"))
    assert torch.equal(found.radius, ClosedForm().certify(plain, x, ThreatModel("l2")).radius)
    assert torch.equal(affine_form(model, x[:1]).weight, plain[1].weight.detach().double())


def test_layer_that_occurs_twice_counts_twice() -> None:
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
        layer.bias.copy_(torch.tensor([0.5, 0.25]))
    form = affine_form(nn.Sequential(layer, layer), torch.zeros(1, 2))
    assert form.weight.tolist() == [[1.0, 4.0], [0.0, 1.0]]
    assert form.bias.tolist() == [1.5, 0.5]


class Squared(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) ** 2


class Skipping(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


class Own(Ensemble):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) ** 2


class Sharp(WeightedAverage):
    def scores(self, logits: Tensor) -> Tensor:
        return super().scores(logits) ** 2


def hooked() -> nn.Module:
    model = random_linear(3, 6, 0)
    model[1].register_forward_hook(lambda module, args, output: output**2)
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)),
            "closed-form certifies linear models; the layer ReLU is not linear. Use smoothing, or a certifier for netw",
        ),
        (
            lambda: architectures.create("mlp", input_shape=(1, 6), classes=3, seed=0),
            "closed-form certifies linear models; the layer ReLU is not linear.",
        ),
        (lambda: nn.Sequential(nn.Flatten(), Squared(6, 3)), "the layer Squared is not linear"),
        (lambda: Skipping(nn.Flatten(), nn.Linear(6, 3)), "the layer Skipping is not linear"),
        (lambda: Own([random_linear(3, 6, 0)], WeightedAverage(of="logit")), "the layer Own is not linear"),
        (hooked, "closed-form cannot see what the hooks of the layer Linear do. Remove them."),
        (
            lambda: Ensemble([random_linear(3, 6, 0)] * 2),
            "closed-form needs scores that are linear in the input; the aggregation 'weighted-average' of confidences "
            'or gaps is not. Use weighted-average of = "logit", or a certifier for networks.',
        ),
        (lambda: Ensemble([random_linear(3, 6, 0)] * 2, MaxMargin(of="logit")), "the aggregation 'max-margin' of conf"),
        (lambda: Ensemble([random_linear(3, 6, 0)] * 2, Sharp(of="logit")), "the aggregation 'weighted-average'"),
    ],
)
@pytest.mark.parametrize("certifier", [ClosedForm(), ClosedFormMargins()])
def test_what_is_not_linear_is_unsupported_with_the_reason(
    model: Callable[[], nn.Module], message: str, certifier: Any
) -> None:
    found = certifier.certify(model(), images(2, 1, 6), ThreatModel("l2"))
    assert found.verdict.tolist() == [Verdict.UNSUPPORTED] * 2
    assert message in found.reason[0]
    with pytest.raises(Unsupported):
        affine_form(model(), images(1, 1, 6))


# Edges.


@pytest.mark.parametrize("norm", NORMS)
def test_classes_that_are_always_tied_are_never_certified(norm: Norm) -> None:
    weight, bias = [[1.0, 2.0], [1.0, 2.0], [0.0, 0.0]], [0.5, 0.5, 0.0]
    found = ClosedForm().certify(linear(weight, bias), torch.full((1, 1, 2), 0.5), ThreatModel(norm))
    assert found.verdict.tolist() == [Verdict.UNKNOWN]
    assert found.reason[0] == "the classifier's scores are tied, NaN or infinite"


@pytest.mark.parametrize("norm", NORMS)
def test_input_on_the_boundary_is_not_certified(norm: Norm) -> None:
    found = ClosedForm().certify(linear([[1.0], [-1.0]], [0.0, 1.0]), torch.tensor([[[0.5]]]), ThreatModel(norm))
    assert found.verdict.tolist() == [Verdict.UNKNOWN]


@pytest.mark.parametrize("norm", NORMS)
def test_model_without_a_boundary_gets_the_diameter_of_the_box(norm: Norm) -> None:
    for weight in ([[0.0, 0.0], [0.0, 0.0]], [[1.0, 2.0], [1.0, 2.0]]):
        found = ClosedForm().certify(linear(weight, [0.0, 1.0]), torch.full((1, 1, 2), 0.5), ThreatModel(norm))
        diameter = {Norm.L1: 2.0, Norm.L2: math.sqrt(2), Norm.LINF: 1.0}[norm]
        assert float(found.radius[0]) == pytest.approx(diameter, rel=1e-12)
        assert found.prediction.tolist() == [1]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_never_certified(bad: float) -> None:
    for weight, bias in (([[bad, 0.0], [0.0, 0.0]], [9.0, 0.0]), ([[1.0, 0.0], [0.0, 0.0]], [bad, 0.0])):
        for certifier in (ClosedForm(), ClosedFormMargins()):
            found = certifier.certify(linear(weight, bias), torch.full((2, 1, 2), 0.5), ThreatModel("l2"))
            assert not bool(found.certified.any())


def test_rounding_in_the_classifier_is_not_hidden() -> None:
    # In float32 the scores tie; in exact arithmetic class 0 is ahead. The classifier that answers is the float32 one.
    found = ClosedForm().certify(linear([[1.0], [1.0]], [1e8, 1e8]), torch.tensor([[[0.5]]]), ThreatModel("l2"))
    assert found.verdict.tolist() == [Verdict.UNKNOWN]


def test_forms_are_computed_in_float64_on_the_cpu_and_leave_the_model_alone() -> None:
    model = random_linear(3, 6, 0).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    form = affine_form(model, images(1, 1, 6))
    assert all(tensor.dtype == torch.float64 for tensor in (form.weight, form.bias, form.weight_error, form.bias_error))
    assert not form.weight.requires_grad
    assert model.training
    assert model[1].weight.requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# Asked one radius at a time.


@pytest.mark.parametrize("norm", NORMS)
def test_search_over_margins_finds_the_closed_form(norm: Norm) -> None:
    threat, x = ThreatModel(norm), images(20, 1, 6)
    model = random_linear(4, 6, 1)
    exact = ClosedForm().certify(model, x, threat)
    searched = ClosedFormMargins().certify(model, x, threat)
    assert torch.equal(searched.prediction, exact.prediction)
    assert torch.equal(searched.verdict, exact.verdict)
    assert bool((searched.radius <= exact.radius).all())
    inner = exact.radius < 0.99 * threat.box_diameter(6)
    assert bool((searched.radius >= exact.radius * (1 - 1e-5) - 1e-6)[inner].all())
    assert int(inner.sum()) >= 10, "a test of nothing"
    grid = [step / 16 for step in range(1, 17)]
    on_grid = ClosedFormMargins().certify(model, x, threat, radii=grid)
    for row in range(20):
        truth = max((radius for radius in grid if radius <= float(exact.radius[row])), default=0.0)
        assert float(on_grid.radius[row]) == truth


@pytest.mark.parametrize("norm", NORMS)
def test_margins_are_the_least_over_the_ball(norm: Norm) -> None:
    model, x = random_linear(3, 4, 2, torch.float64), images(1, 1, 4).double()
    prediction = model(x).argmax(1)
    radius = torch.tensor([0.25], dtype=torch.float64)
    margins = ClosedFormMargins().margins(model, x, prediction, radius, ThreatModel(norm), KeyedRandomness(0, (0,)))[0]
    weight = model[1].weight.detach()
    for other in range(3):
        if other == int(prediction):
            continue
        # The worst point of the ball is known for each norm; no other point of many is worse.
        slope = weight[other] - weight[prediction[0]]
        worst = {
            Norm.L1: torch.nn.functional.one_hot(slope.abs().argmax(), 4) * slope.sign(),
            Norm.L2: slope / slope.norm(),
            Norm.LINF: slope.sign(),
        }[norm]
        scores = model(x + 0.25 * worst)[0]
        truth = float((scores[prediction[0]] - scores[other]).detach())
        assert float(margins[other]) == pytest.approx(truth, abs=1e-12)


def test_both_are_registered() -> None:
    assert certifiers.create("closed-form") == ClosedForm()
    assert certifiers.create("closed-form-margins", bisection_steps=3) == ClosedFormMargins(bisection_steps=3)
    assert ClosedForm().norms == ClosedFormMargins().norms == set(Norm)
    assert not ClosedForm().uses_radii
