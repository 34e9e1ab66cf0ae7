import math

import pytest
import torch
from torch import Tensor, nn

import certifiers
from certifiers import Norm, ThreatModel, Verdict
from certifiers.lipschitz import GlobalBounds, global_constants, value_constants
from certifiers.networks import prepare
from certifiers.relaxation import Ball, ensemble_margins
from ensembles import Ensemble, MaxMargin, Single, WeightedAverage
from ensembles.aggregation import Aggregation
from ensembles.architectures import Normalize
from tests.certifiers.lipschitz.networks_under_test import (
    AGGREGATIONS,
    ORDER,
    Residual,
    changed,
    conv,
    ensemble,
    images,
    mlp,
)

NORMS = list(Norm)
SHAPES = {"mlp": (1, 4, 4), "conv": (1, 8, 8), "residual": (1, 8, 8)}


def linear(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(Normalize((0.4,), (0.3,), 3), nn.Flatten(), nn.Linear(9, 4)).eval()


@pytest.mark.parametrize("norm", NORMS)
def test_exact_for_linear_models(norm: Norm) -> None:
    x, threat = images(20, 1, 3, 3), ThreatModel(norm)
    members = [linear(seed) for seed in range(3)]
    for classifier in (
        members[0],
        Ensemble(members, Single(member=1)),
        Ensemble(members, WeightedAverage(of="logit")),
    ):
        found = certifiers.create("lipschitz").certify(classifier, x, threat)
        assert bool(found.certified.all())
        if not (isinstance(classifier, Ensemble) and isinstance(classifier.aggregation, WeightedAverage)):
            true = certifiers.create("closed-form").certify(classifier, x, threat).radius
            assert torch.allclose(found.radius, true, rtol=1e-6, atol=0)
            assert bool((found.radius <= true).all())
        assert torch.allclose(found.radius, found.evidence["margin"] / found.evidence["lipschitz_constant"])


def test_the_constants_of_linear_members_add() -> None:
    # Constants add, while rows of opposite sign would cancel in the closed form: sound, and looser here.
    members = [linear(0), linear(1)]
    classifier = Ensemble(members, WeightedAverage(of="logit", weights=(1.0, 3.0)))
    x, threat = images(10, 1, 3, 3), ThreatModel("l2")
    found = certifiers.create("lipschitz").certify(classifier, x, threat)
    true = certifiers.create("closed-form").certify(classifier, x, threat)
    assert bool((found.radius <= true.radius).all())
    rows = [member[2].weight.double() / 0.3 for member in members]
    with torch.no_grad():
        scores = sum(w * member.double()(x.double()) for w, member in zip((0.25, 0.75), members, strict=True))
    y = scores.argmax(1)
    constant = sum(w * (row[y][:, None] - row[None]).norm(dim=2) for w, row in zip((0.25, 0.75), rows, strict=True))
    expected = ((scores.gather(1, y[:, None]) - scores) / constant).nan_to_num(nan=math.inf).amin(1)
    assert torch.allclose(found.radius, expected.detach(), rtol=1e-6)


def test_a_network_worked_out_by_hand() -> None:
    # z = (relu(3 x1) + relu(4 x2), 0), at (0.5, 0.5): the margin is 3.5.
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    net[0].weight.data, net[0].bias.data = torch.diag(torch.tensor([3.0, 4.0])), torch.zeros(2)
    net[2].weight.data, net[2].bias.data = torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.zeros(2)
    x = torch.full((1, 2), 0.5)
    # |row| is sqrt(2), 1, 2 in the dual norms of l2, l1, linf; the first layer has norm 4 in all three.
    for norm, constant in ((Norm.L2, math.sqrt(2) * 4), (Norm.L1, 4.0), (Norm.LINF, 8.0)):
        found = certifiers.create("lipschitz").certify(net, x, ThreatModel(norm))
        assert float(found.radius) == pytest.approx(3.5 / constant, rel=1e-9)
        assert float(found.evidence["lipschitz_constant"]) == pytest.approx(constant, rel=1e-9)
        assert float(found.evidence["margin"]) == pytest.approx(3.5, rel=1e-9)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", ["mlp", "conv", "residual"])
@pytest.mark.parametrize("aggregation", AGGREGATIONS, ids=lambda one: f"{one.name}-{getattr(one, 'of', '')}")
def test_no_attack_succeeds_within_a_certified_ball(norm: Norm, kind: str, aggregation: Aggregation) -> None:
    classifier, x = ensemble(kind, aggregation), images(6, *SHAPES[kind], seed=3)
    found = certifiers.create("lipschitz").certify(classifier, x, ThreatModel(norm))
    assert bool(found.certified.any()), found.reason
    kept = found.certified
    assert not bool(changed(classifier, x[kept], found.radius[kept], norm).any())


@pytest.mark.parametrize("norm", NORMS)
def test_the_attack_of_these_tests_works(norm: Norm) -> None:
    for aggregation in AGGREGATIONS:
        classifier, x = ensemble("mlp", aggregation), images(6, 1, 4, 4, seed=3)
        found = certifiers.create("lipschitz").certify(classifier, x, ThreatModel(norm))
        assert bool(changed(classifier, x, found.radius * 60 + 0.1, norm).any())


@pytest.mark.parametrize("aggregation", AGGREGATIONS[2:], ids=lambda one: f"{one.name}-{one.of}")
@pytest.mark.parametrize("norm", NORMS)
def test_a_searched_radius_is_the_largest(norm: Norm, aggregation: Aggregation) -> None:
    classifier, x = ensemble("mlp", aggregation), images(12, 1, 4, 4, seed=1)
    found = certifiers.create("lipschitz").certify(classifier, x, ThreatModel(norm))
    prepared = prepare(classifier, x)
    rows = found.certified
    assert bool(rows.any())
    for factor, held in ((1.0, True), (1 + 1e-6, False)):
        ball = Ball.around(x[rows].double(), found.radius[rows] * factor, ThreatModel(norm))
        margins = ensemble_margins(prepared, GlobalBounds(ball), found.prediction[rows])
        assert (margins > 0).all(1).tolist() == [held] * int(rows.sum())


def test_two_members_of_a_max_margin_ensemble_by_hand() -> None:
    # Linear members with gaps 2 and -0.5 at x, of constants 1 and 1: max + min = 1.5 - 2 r, so the radius is 0.75.
    def member(gap: float) -> nn.Linear:
        layer = nn.Linear(1, 2)
        layer.weight.data, layer.bias.data = torch.tensor([[1.0], [0.0]]), torch.tensor([gap - 0.5, 0.0])
        return layer

    classifier = Ensemble([member(2.0), member(-0.5)], MaxMargin(of="logit"))
    found = certifiers.create("lipschitz").certify(classifier, torch.full((1, 1), 0.5), ThreatModel("l2"))
    assert found.prediction.tolist() == [0]
    assert float(found.radius) == pytest.approx(0.75, rel=1e-6)


def test_two_members_of_a_confidence_average_by_hand() -> None:
    # Two classes and equal constants L = 1: mean of tanh((m_i - r) / 2) is zero where (m_1 - r) = -(m_2 - r).
    def member(gap: float) -> nn.Linear:
        layer = nn.Linear(1, 2)
        layer.weight.data, layer.bias.data = torch.tensor([[1.0], [0.0]]), torch.tensor([gap - 0.5, 0.0])
        return layer

    classifier = Ensemble([member(1.0), member(-0.2)], WeightedAverage(of="confidence"))
    found = certifiers.create("lipschitz").certify(classifier, torch.full((1, 1), 0.5), ThreatModel("l2"))
    assert float(found.radius) == pytest.approx(0.4, rel=1e-6)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    ("classifier", "shape"), [(mlp(16, 12, 10, 4), (1, 4, 4)), (conv(), (1, 8, 8)), (Residual(), (1, 8, 8))]
)
def test_constants_are_above_difference_quotients(classifier: nn.Module, shape: tuple[int, ...], norm: Norm) -> None:
    a = images(400, *shape, seed=1)
    b = (a + 0.05 * torch.randn(a.shape, generator=torch.Generator().manual_seed(2))).double()
    with torch.no_grad():
        network = prepare(classifier, a[:2]).networks[0]
        change = network(a.double()) - network(b)
    classes = change.shape[1]
    specification = torch.randn(1, 5, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    constants = global_constants(network, specification, norm)[0]
    distance = torch.linalg.vector_norm((a.double() - b).flatten(1), ord=ORDER[norm], dim=1)
    quotients = (change @ specification[0].T).abs() / distance[:, None]
    assert bool((quotients.amax(0) <= constants).all())
    # Through the last layer: never above the row's dual norm times the constant of all outputs.
    dual = torch.linalg.vector_norm(specification[0], ord={1: math.inf, 2: 2, math.inf: 1}[ORDER[norm]], dim=1)
    assert bool((constants <= dual * value_constants(network, norm)[-1] * (1 + 1e-9)).all())


def test_overlapping_max_pooling_is_supported() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Flatten(), nn.Linear(48, 4)
    ).eval()
    x = images(4, 1, 8, 8)
    for norm in NORMS:
        found = certifiers.create("lipschitz").certify(net, x, ThreatModel(norm))
        assert bool(found.certified.all())
        assert not bool(changed(net, x, found.radius, norm).any())


def test_a_model_without_a_boundary_gets_the_diameter_of_the_box() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    net[1].weight.data.zero_()
    net[1].bias.data = torch.tensor([1.0, 0.0])
    found = certifiers.create("lipschitz").certify(net, images(2, 1, 2, 2), ThreatModel("l2"))
    assert found.radius.tolist() == pytest.approx([2.0, 2.0])
    for aggregation in AGGREGATIONS[2:]:
        searched = certifiers.create("lipschitz").certify(
            Ensemble([net, net], aggregation), images(2, 1, 2, 2), ThreatModel("l2")
        )
        assert searched.radius.tolist() == pytest.approx([2.0, 2.0], rel=1e-6)


@pytest.mark.parametrize("name", ["lipschitz", "local-lipschitz", "lipsdp"])
def test_ties_and_weights_that_are_not_numbers_are_never_certified(name: str) -> None:
    tied, broken = mlp(16, 5, 3), mlp(16, 5, 3)
    tied[-1].weight.data[1:], tied[-1].bias.data[:] = tied[-1].weight.data[:1].clone(), 0.0
    broken[1].weight.data[0, 0] = math.nan
    x = images(3, 1, 4, 4)
    for classifier in (tied, broken, Ensemble([tied, tied]), Ensemble([broken, tied], MaxMargin())):
        found = certifiers.create(name).certify(classifier, x, ThreatModel("l2"))
        assert found.radius.tolist() == [0.0] * 3
        assert not bool(found.certified.any())


class _Other(Aggregation):
    name = "median"

    def scores(self, logits: Tensor) -> Tensor:
        return logits.median(0).values


@pytest.mark.parametrize("name", ["lipschitz", "local-lipschitz", "lipsdp"])
def test_unsupported_aggregations_and_layers_say_why(name: str) -> None:
    x, threat = images(2, 1, 4, 4), ThreatModel("l2")
    found = certifiers.create(name).certify(Ensemble([mlp(16, 5, 3), mlp(16, 4, 3)], _Other()), x, threat)
    assert set(found.verdict.tolist()) == {int(Verdict.UNSUPPORTED)}
    assert "the aggregation 'median' has no bounds here; known are single, weighted-average" in found.reason[0]
    sigmoid = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.Sigmoid(), nn.Linear(4, 3)).eval()
    found = certifiers.create(name).certify(sigmoid, x, threat)
    assert set(found.verdict.tolist()) == {int(Verdict.UNSUPPORTED)}
    assert "sigmoid" in found.reason[0]
    assert "smoothing certifies any classifier" in found.reason[0]


def test_the_rounding_of_the_outputs_is_bounded() -> None:
    # Cancellation of large numbers: float64 leaves an error of about 1e-6 in the margin, found by exact arithmetic.
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    net[0].weight.data, net[0].bias.data = torch.tensor([[1e6, 0.0], [1e6, 0.0]]), torch.tensor([0.1, 0.0])
    net[2].weight.data, net[2].bias.data = torch.tensor([[1e4, -1e4], [0.0, 0.0]]), torch.zeros(2)
    network = prepare(net.double(), torch.full((1, 2), 0.3, dtype=torch.float64)).networks[0]
    x = torch.full((1, 2), 0.3, dtype=torch.float64)
    bounds = GlobalBounds(Ball.around(x, torch.zeros(1, dtype=torch.float64), ThreatModel("l2")))
    row = torch.tensor([[[1.0, -1.0]]], dtype=torch.float64)
    exact = 1e4 * float(torch.tensor(0.1))  # (1e6 x + 0.1) - 1e6 x, without rounding
    lower = float(bounds.values([network], [row]))
    assert lower <= exact
    assert lower == pytest.approx(exact, abs=1e-2)
    assert abs(float(network(x) @ row[0, 0])) != exact
