import math

import pytest
import torch
from torch import Tensor, nn

import certifiers
from certifiers import Norm, ThreatModel
from certifiers.lipschitz import GlobalBounds, LocalBounds
from certifiers.lipschitz.gradients import cuts
from certifiers.lipschitz.lipschitz_bounds import start
from certifiers.networks import Network, prepare
from certifiers.relaxation import Ball
from certifiers.relaxation.ensemble_margins import pairs
from ensembles import Ensemble, Single, WeightedAverage
from ensembles.aggregation import Aggregation
from tests.certifiers.lipschitz.networks_under_test import (
    AGGREGATIONS,
    Residual,
    changed,
    conv,
    ensemble,
    images,
    mlp,
    projected,
    steepest,
)

NORMS = list(Norm)
SHAPES = {"mlp": (1, 4, 4), "conv": (1, 8, 8), "residual": (1, 8, 8)}
DUAL = {Norm.L1: math.inf, Norm.L2: 2.0, Norm.LINF: 1.0}
NETWORKS = [(mlp(16, 12, 10, 4), (1, 4, 4)), (conv(), (1, 8, 8)), (Residual(), (1, 8, 8))]


def network_of(classifier: nn.Module, shape: tuple[int, ...]) -> Network:
    with torch.no_grad():
        return prepare(classifier, images(1, *shape)).networks[0]


def inside(x: Tensor, radius: Tensor, norm: Norm, seed: int) -> Tensor:
    """Points of the ball and the box, on the border of the ball where the box allows."""
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    noise = steepest(noise, norm) if seed % 2 else noise
    return (x + projected(1e9 * noise, radius, norm)).clamp(0, 1)


def jacobian_rows(network: Network, x: Tensor, specification: Tensor) -> Tensor:
    """The gradients of `specification . output`, by automatic differentiation: [batch, rows, *shape]."""
    rows = []
    for row in range(specification.shape[1]):
        point = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((network(point) * specification[:, row]).sum(), point)
        rows.append(gradient)
    return torch.stack(rows, 1)


@pytest.mark.parametrize("norm", NORMS)
def test_exact_for_linear_models(norm: Norm) -> None:
    torch.manual_seed(0)
    members = [nn.Sequential(nn.Flatten(), nn.Linear(9, 4)).eval() for _ in range(3)]
    x, threat = images(10, 1, 3, 3), ThreatModel(norm)
    for classifier in (members[0], Ensemble(members, WeightedAverage(of="logit")), Ensemble(members, Single(member=2))):
        found = certifiers.create("local-lipschitz", bisection_steps=40).certify(classifier, x, threat)
        true = certifiers.create("closed-form").certify(classifier, x, threat).radius
        assert bool(found.certified.all())
        assert torch.allclose(found.radius, true, rtol=1e-6, atol=0)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("classifier", "shape"), NETWORKS)
def test_exact_where_all_neurons_are_stable(classifier: nn.Module, shape: tuple[int, ...], norm: Norm) -> None:
    network, x = network_of(classifier, shape), images(3, *shape, seed=4).double()
    specification = pairs(torch.tensor([0, 1, 2]), network.shapes[-1][0])
    ball = Ball.around(x, torch.full((3,), 1e-7, dtype=torch.float64), ThreatModel(norm))
    constants = LocalBounds(ball, "crown").constants([network], [specification])
    true = torch.linalg.vector_norm(jacobian_rows(network, x, specification).flatten(2), ord=DUAL[norm], dim=2)
    assert torch.allclose(constants, true, rtol=1e-9, atol=1e-12)
    everywhere = GlobalBounds(ball).constants([network], [specification])
    own = torch.arange(3)
    assert bool((constants < 0.9 * everywhere)[own, (own + 1) % 3].all())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("intermediate", ["ibp", "crown"])
@pytest.mark.parametrize(("classifier", "shape"), NETWORKS)
def test_gradients_in_the_ball_lie_in_their_intervals(
    classifier: nn.Module, shape: tuple[int, ...], intermediate: str, norm: Norm
) -> None:
    network, x = network_of(classifier, shape), images(4, *shape, seed=5).double()
    for size in (0.01, 0.1):
        radius = torch.full((4,), size * {Norm.L1: 8.0, Norm.L2: 4.0, Norm.LINF: 1.0}[norm], dtype=torch.float64)
        specification = pairs(torch.tensor([0, 1, 2, 0]), network.shapes[-1][0])
        bounds = LocalBounds(Ball.around(x, radius, ThreatModel(norm)), intermediate)  # type: ignore[arg-type]
        value, last = list(cuts(network, start(specification), bounds.relaxed(network)))[-1]
        assert value == 0
        constants = bounds.constants([network], [specification])
        lower = bounds.lower([network], [specification])
        attained = torch.zeros_like(constants)
        for seed in range(40):
            point = inside(x, radius * (seed % 5) / 4, norm, seed)
            rows = jacobian_rows(network, point, specification)
            assert bool(((rows.flatten(0, 1) - last.middle).abs() <= last.width + 1e-12).all())
            norms = torch.linalg.vector_norm(rows.flatten(2), ord=DUAL[norm], dim=2)
            assert bool((norms <= constants * (1 + 1e-12) + 1e-12).all())
            values = torch.einsum("brc,bc->br", specification, network(point))
            assert bool((lower <= values + 1e-12).all())
            attained = torch.maximum(attained, norms)
        assert bool((constants <= 30 * attained + 1e-9).all())  # a bound, and not a hopeless one


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("classifier", "shape"), NETWORKS)
def test_never_above_the_global_constants(classifier: nn.Module, shape: tuple[int, ...], norm: Norm) -> None:
    network, x = network_of(classifier, shape), images(4, *shape, seed=6).double()
    specification = pairs(torch.tensor([0, 1, 2, 0]), network.shapes[-1][0])
    for size in (0.001, 0.1, 10.0):
        ball = Ball.around(x, torch.full((4,), size, dtype=torch.float64), ThreatModel(norm))
        local = LocalBounds(ball, "ibp").constants([network], [specification])
        everywhere = GlobalBounds(ball).constants([network], [specification])
        assert bool((local <= everywhere).all())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", ["mlp", "conv", "residual"])
@pytest.mark.parametrize("aggregation", AGGREGATIONS, ids=lambda one: f"{one.name}-{getattr(one, 'of', '')}")
def test_no_attack_succeeds_and_never_below_the_global_radius(kind: str, norm: Norm, aggregation: Aggregation) -> None:
    classifier, x = ensemble(kind, aggregation), images(4, *SHAPES[kind], seed=3)
    threat = ThreatModel(norm)
    found = certifiers.create("local-lipschitz", bisection_steps=14).certify(classifier, x, threat)
    everywhere = certifiers.create("lipschitz").certify(classifier, x, threat)
    assert bool(found.certified.any()), found.reason
    resolution = threat.box_diameter(x[0].numel()) / 2**13
    assert bool((found.radius >= everywhere.radius - resolution).all())
    kept = found.certified
    assert not bool(changed(classifier, x[kept], found.radius[kept], norm).any())


def test_members_are_bounded_jointly() -> None:
    # Two members whose slopes cancel: the average is constant, and no attack exists.
    first = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    second = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    second[1].weight.data = -first[1].weight.data
    first[1].bias.data, second[1].bias.data = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0])
    classifier = Ensemble([first, second], WeightedAverage(of="logit"))
    found = certifiers.create("local-lipschitz").certify(classifier, images(2, 1, 2, 2), ThreatModel("linf"))
    assert found.radius.tolist() == pytest.approx([1.0, 1.0], rel=1e-5)
    everywhere = certifiers.create("lipschitz").certify(classifier, images(2, 1, 2, 2), ThreatModel("linf"))
    assert bool((everywhere.radius < 1.0).all())


def test_parts_of_the_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = network_of(conv(), (1, 8, 8)), images(3, 1, 8, 8).double()
    specification = pairs(torch.tensor([0, 1, 2]), 4)
    ball = Ball.around(x, torch.full((3,), 0.05, dtype=torch.float64), ThreatModel("linf"))
    whole = LocalBounds(ball, "ibp").constants([network], [specification])
    monkeypatch.setattr("certifiers.lipschitz.local_bound.LARGEST_PASS", 1)
    assert torch.allclose(LocalBounds(ball, "ibp").constants([network], [specification]), whole, rtol=1e-12)


def test_max_pooling_by_hand() -> None:
    # max(x1, x2) - 0: in the ball x1 may fall below x2, so both derivatives lie in [0, 1].
    net = nn.Sequential(nn.MaxPool2d((1, 2)), nn.Flatten(), nn.Linear(1, 2))
    net[2].weight.data, net[2].bias.data = torch.tensor([[1.0], [0.0]]), torch.zeros(2)
    network = network_of(net, (1, 1, 2))
    x = torch.tensor([[[[0.6, 0.5]]]], dtype=torch.float64)
    row = torch.tensor([[[1.0, -1.0]]], dtype=torch.float64)
    for radius, l2, linf in ((0.04, 1.0, 1.0), (0.2, 1.0, 1.0)):
        for norm, expected in (("l2", l2), ("linf", linf), ("l1", 1.0)):
            ball = Ball.around(x, torch.tensor([radius], dtype=torch.float64), ThreatModel(norm))
            bounds = LocalBounds(ball, "crown")
            # The layer's own norm, 1, is better than the interval's where both entries are possible.
            assert float(bounds.constants([network], [row])) == pytest.approx(expected, rel=1e-9)
            _, last = list(cuts(network, start(row), bounds.relaxed(network)))[-1]
            possible = (last.middle + last.width).flatten().tolist()
            assert possible == pytest.approx([1.0, 0.0 if radius < 0.05 else 1.0], abs=1e-12)
            least = (last.middle - last.width).flatten().tolist()
            assert least == pytest.approx([1.0 if radius < 0.05 else 0.0, 0.0], abs=1e-12)


def test_overlapping_max_pooling_is_refused_with_a_reason() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.MaxPool2d(3, 2), nn.Flatten(), nn.Linear(9, 3)).eval()
    found = certifiers.create("local-lipschitz").certify(net, images(2, 1, 8, 8), ThreatModel("l2"))
    assert "linear bounds need pooling windows side by side" in found.reason[0]
