"""Zonotopes: they hold every value that is seen in a ball, and are exact where the network is affine."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import certifiers
from certifiers import Norm, ThreatModel
from certifiers.networks import Network, read
from certifiers.relaxation import BackwardBounds, Ball, backward, relaxed, zonotopes
from certifiers.relaxation.intervals import Interval, intervals, unstable
from certifiers.relaxation.zonotopes import Zonotopes


def bounded(network: Network, ball: Ball) -> tuple[Zonotopes, dict[int, Interval]]:
    """The forms over bounds of CROWN."""
    bounds = dict(relaxed(network, ball, "crown").bounds)
    return Zonotopes(network, ball, bounds), bounds


def deep(depth: int) -> tuple[Network, Ball]:
    """Layers through which activations keep their size."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [layer for _ in range(depth) for layer in (nn.Linear(24, 24), nn.ReLU())]
        for layer in layers[::2]:
            nn.init.normal_(layer.weight, std=(2 / 24) ** 0.5)
        network = read(nn.Sequential(*layers, nn.Linear(24, 3)), torch.rand(1, 24))
    x = torch.rand(4, 24, generator=torch.Generator().manual_seed(1)).double()
    return network, Ball.around(x, torch.full((4,), 0.003).double(), ThreatModel("linf"))


@pytest.mark.parametrize("norm", list(Norm))
@pytest.mark.parametrize("most", [0, 2])
def test_every_value_seen_in_a_ball_is_held(
    models: Any, norm: Norm, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zonotopes, "MOST_TERMS", most)
    for number, kind in enumerate(models.KINDS):
        network, ball = models.network(kind, 60 + number), models.ball(norm, number)
        forms, _ = bounded(network, ball)
        inside = models.points(ball, 200, 0)
        seen = network.values(inside.flatten(0, 1))
        for value in range(len(network.layers) + 1):
            found = forms.interval(value)
            assert found is not None
            own = seen[value].unflatten(0, (200, len(ball)))
            assert bool((found[0] <= own).all()), (kind, value)
            assert bool((found[1] >= own).all()), (kind, value)


@pytest.mark.parametrize("norm", list(Norm))
def test_branches_that_each_have_unstable_relus_do_not_share_terms(models: Any, norm: Norm) -> None:
    class Branches(nn.Module):
        """`relu(x) - relu(-x)` and `relu(x) + relu(-x)`: terms taken for one another would cancel."""

        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(2, 2), nn.Linear(2, 2)
            with torch.no_grad():
                for layer, sign in ((self.up, 1), (self.down, -1)):
                    layer.weight.copy_(sign * torch.eye(2))
                    layer.bias.fill_(-0.5 * sign)
            self.out = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.up(x).relu() + self.down(x).relu())

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = read(Branches(), torch.rand(1, 2))
    ball = Ball.around(torch.full((1, 2), 0.5).double(), torch.tensor([0.4]).double(), ThreatModel(norm))
    forms, _ = bounded(network, ball)
    found = forms.interval(len(network.layers))
    assert found is not None
    seen = network(models.points(ball, 500, 0).flatten(0, 1))
    assert bool((found[0] <= seen).all())
    assert bool((found[1] >= seen).all())


@pytest.mark.parametrize("norm", list(Norm))
def test_exact_where_no_relu_is_unstable(norm: Norm) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 3))
    x = torch.rand(2, 6, generator=torch.Generator().manual_seed(3)) * 0.4 + 0.3
    network, radius = read(model, x[:1]), 1e-4
    ball = Ball.around(x.double(), torch.full((2,), radius).double(), ThreatModel(norm))
    forms, bounds = bounded(network, ball)
    assert not any(bool(((low < 0) & (high > 0)).any()) for low, high in bounds.values())
    found = forms.interval(len(network.layers))
    assert found is not None
    order = {Norm.L1: torch.inf, Norm.L2: 2.0, Norm.LINF: 1.0}[norm]
    for image in range(2):
        jacobian = torch.autograd.functional.jacobian(network, ball.center[image : image + 1])[0, :, 0]
        reach = radius * torch.linalg.vector_norm(jacobian, ord=order, dim=1)
        value = network(ball.center[image : image + 1])[0]
        torch.testing.assert_close(found[0][image], value - reach, atol=1e-11, rtol=0)
        torch.testing.assert_close(found[1][image], value + reach, atol=1e-11, rtol=0)


def test_deep_networks_are_bounded_far_more_tightly_than_by_intervals() -> None:
    network, ball = deep(8)
    forms, _ = bounded(network, ball)
    found, boxes = forms.interval(len(network.layers)), intervals(network, ball)[-1]
    assert found is not None
    assert float((found[1] - found[0]).mean()) < 0.5 * float((boxes[1] - boxes[0]).mean())


def test_samples_of_a_batch_share_nothing(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zonotopes, "MOST_TERMS", 1)
    for kind in models.KINDS:
        network, ball = models.network(kind, 31), models.ball(Norm.LINF, 31, count=5)
        whole = bounded(network, ball)[0].interval(len(network.layers))
        assert whole is not None
        for image in range(5):
            alone = bounded(network, ball.part(slice(image, image + 1)))[0].interval(len(network.layers))
            assert alone is not None
            torch.testing.assert_close(alone[0][0], whole[0][image], atol=1e-9, rtol=0)


def test_float32_balls_get_bounds_of_the_network_as_it_is(models: Any) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        # Weights that float32 cannot hold, through more layers than `backward.DEEP`.
        layers = [layer for _ in range(7) for layer in (nn.Linear(16, 16).double(), nn.ReLU())]
        for layer in layers[::2]:
            nn.init.normal_(layer.weight, std=(2 / 16) ** 0.5)
        network = read(nn.Sequential(*layers, nn.Linear(16, 3).double()), torch.rand(1, 16))
    x = torch.rand(6, 16, generator=torch.Generator().manual_seed(1))
    for norm in Norm:
        for radius in (0.0, 1e-7, 1e-3):
            ball = Ball.around(x, torch.full((6,), radius), ThreatModel(norm))
            bounds = relaxed(network, ball, "crown").bounds
            exact = Ball.around(x.double(), torch.full((6,), radius).double(), ThreatModel(norm))
            seen = network.values(models.points(exact, 50, 0).flatten(0, 1))
            for layer, (low, high) in bounds.items():
                assert low.dtype == torch.float32
                own = seen[network.sources[layer][0]].unflatten(0, (50, 6))
                assert bool((low.double() <= own).all()), (norm, radius, layer)
                assert bool((high.double() >= own).all()), (norm, radius, layer)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_that_float32_cannot_hold_do_not_make_a_false_certificate(dtype: str) -> None:
    """`margin = 1 - 1e6 relu(z)`, and z is above zero within the ball by what rounding a bias to float32 loses."""

    def linear(weight: list[list[float]], bias: list[float]) -> nn.Linear:
        layer = nn.Linear(len(weight[0]), len(weight)).double()
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(weight, dtype=torch.float64))
            layer.bias.copy_(torch.tensor(bias, dtype=torch.float64))
        return layer

    def rounded(number: float) -> float:
        return float(torch.tensor(number, dtype=torch.float64).float())

    bias = 383 + 824 * 2.0**-15 + 1.03e-5  # between two numbers of float32, nearer to the lower one
    lost = bias - rounded(bias)
    slope = rounded(lost * 0.9 / 0.01)
    layers: list[nn.Module] = [linear([[1.0], [0.0]], [-0.25, bias]), nn.ReLU()]
    for _ in range(5):
        layers += [linear([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]), nn.ReLU()]
    layers += [linear([[slope, 1.0]], [-(rounded(bias) + slope * 0.25) - lost]), nn.ReLU()]
    model = nn.Sequential(*layers, linear([[0.0], [1e6]], [1.0, 0.0]))
    x = torch.tensor([[0.5]], dtype=torch.float64)
    assert model(x).argmax(1) != model(x + 0.01).argmax(1)
    crown = certifiers.create("native-crown", dtype=dtype)
    for norm in Norm:
        assert not bool(crown.certify(model, x, ThreatModel(norm), radii=[0.01]).certified.any()), norm


class Skips(nn.Module):
    """A value that two ReLUs and a sum read."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        value = self.first(x)
        return self.out(value + self.up(value.relu()).relu() - self.down((value + 0.1).relu()).relu())


@pytest.mark.parametrize("norm", list(Norm))
def test_backward_bounds_that_start_from_them_hold(models: Any, norm: Norm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backward, "DEEP", 0)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        skips = read(Skips().double(), torch.rand(1, 6))
    x = torch.rand(4, 6, generator=torch.Generator().manual_seed(2)).double()
    cases = [(models.network(kind, 60), models.ball(norm, 3)) for kind in models.KINDS]
    cases += [(skips, Ball.around(x, torch.full((4,), radius).double(), ThreatModel(norm))) for radius in (0.02, 0.3)]
    for network, ball in cases:
        inside = models.points(ball, 200, 0)
        seen = network.values(inside.flatten(0, 1))
        for layer, (low, high) in relaxed(network, ball, "crown").bounds.items():
            own = seen[network.sources[layer][0]].unflatten(0, (200, len(ball)))
            assert bool((low <= own).all())
            assert bool((high >= own).all())
        rows = torch.eye(3).double().expand(len(ball), 3, 3)
        lower = BackwardBounds(ball, "crown").lower([network], [rows])
        assert bool((lower <= seen[-1].unflatten(0, (200, len(ball)))).all())


def test_an_interval_that_is_not_one_poisons_what_follows(models: Any) -> None:
    network, ball = models.network(models.KINDS[0], 5), models.ball(Norm.LINF, 5)
    _, bounds = bounded(network, ball)
    first = min(bounds)
    for broken in (torch.nan, torch.inf):
        low, high = (side.clone() for side in bounds[first])
        low[0] = broken
        found = Zonotopes(network, ball, {**bounds, first: (low, high)}).interval(len(network.layers))
        assert found is not None
        assert not bool((found[0][0] > -torch.inf).any())


def test_they_are_asked_in_deep_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    network, ball = deep(8)
    asked: list[int] = []
    original = Zonotopes.interval
    monkeypatch.setattr(Zonotopes, "interval", lambda self, value: asked.append(value) or original(self, value))
    with_forms = relaxed(network, ball, "crown").bounds
    assert asked  # from the sixth ReLU on, where intervals leave some open
    assert set(asked) <= {11, 13, 15}
    monkeypatch.setattr(zonotopes, "LARGEST_FORM", 1)
    without = relaxed(network, ball, "crown").bounds
    # A neuron that forms prove stable is not asked backward, so its interval may be wider: only its sign matters.
    opens = [sum(int(unstable(own).sum()) for own in bounds.values()) for bounds in (with_forms, without)]
    assert opens[0] <= opens[1]


def test_forms_too_large_are_not_computed(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    network, ball = models.network(models.KINDS[0], 5), models.ball(Norm.LINF, 5)
    monkeypatch.setattr(zonotopes, "LARGEST_FORM", 1)
    assert bounded(network, ball)[0].interval(1) is None
    assert relaxed(network, ball, "crown").bounds
