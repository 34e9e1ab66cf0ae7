import math
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from certifiers import KeyedRandomness, ThreatModel, Unsupported, Verdict, create
from certifiers.exact import MILP, Encoder, ExactBounds, escapes, highs, linear_escape, minimal_margin
from certifiers.networks import prepare
from certifiers.relaxation import Ball
from ensembles import Ensemble, MaxMargin, WeightedAverage

LINF = ThreatModel("linf")
RNG = KeyedRandomness(0, (0,))


def ball(x: Tensor, radius: float, norm: str = "linf") -> Ball:
    return Ball.around(x[None].double(), torch.tensor([radius], dtype=torch.float64), ThreatModel(norm))


def image(seed: int, inputs: int = 2) -> Tensor:
    return torch.rand(inputs, generator=torch.Generator().manual_seed(seed))


def line(bias: float = 0.0) -> nn.Module:
    """`z = (relu(x) - 1/2, bias)`: the boundary is at x = 1/2 + bias."""
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2))
    model[0].weight.data, model[0].bias.data = torch.tensor([[1.0], [1.0]]), torch.tensor([0.0, -0.25])
    model[2].weight.data = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    model[2].bias.data = torch.tensor([-0.5, bias])
    return model.eval()


def tent(height: float) -> nn.Module:
    """`z = (-|x - 1/2|, height)`: always answers 1, by at least `height`, which CROWN does not see."""
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2))
    model[0].weight.data, model[0].bias.data = torch.tensor([[1.0], [-1.0]]), torch.tensor([-0.5, 0.5])
    model[2].weight.data, model[2].bias.data = torch.tensor([[-1.0, -1.0], [0.0, 0.0]]), torch.tensor([0.0, height])
    return model.eval()


# Exactness.


@pytest.mark.parametrize("norm", ["l1", "linf"])
@pytest.mark.parametrize("seed", range(3))
def test_minimum_of_a_network_is_the_truth(norm: str, seed: int, mlp: Any, truth: Any) -> None:
    model, x, radius = mlp(3, 6, 4, 3, seed=seed), image(seed, 3), 0.35
    networks = prepare(model, x[None]).networks
    for row in (torch.tensor([1.0, -1.0, 0.0]), torch.tensor([-1.0, 0.0, 1.0])):
        found = minimal_margin(networks, [row.double()], ball(x, radius, norm))
        exact = truth([model], x.double().numpy(), radius, norm).margin([row])
        assert found.value == pytest.approx(exact, abs=1e-6)
        assert exact - 1e-3 < found.bound <= exact + 1e-9
        assert found.x is not None
        attained = float(networks[0](found.x[None])[0] @ row.double())
        assert attained == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize("norm", ["l1", "linf"])
def test_minimum_of_a_weighted_average_is_the_truth(norm: str, mlp: Any, truth: Any) -> None:
    x, radius = image(0), 0.4
    members = [mlp(2, 3, 3, seed=seed) for seed in range(3)]
    networks = prepare(Ensemble(members, WeightedAverage(of="logit")), x[None]).networks
    row = torch.tensor([1.0, 0.0, -1.0])
    rows = [weight * row for weight in (0.5, 0.3, 0.2)]
    found = minimal_margin(networks, [row.double() for row in rows], ball(x, radius, norm))
    exact = truth(members, x.double().numpy(), radius, norm).margin(rows)
    assert found.value == pytest.approx(exact, abs=1e-6)
    apart = [
        minimal_margin([network], [row.double()], ball(x, radius, norm)).value
        for network, row in zip(networks, rows, strict=True)
    ]
    assert sum(apart) < exact - 1e-3, "one input for all members"


def test_linear_models_have_the_closed_form() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(4, 3), 0.3 + 0.4 * torch.rand(1, 4)
    for norm in ("l1", "linf"):
        exact = create("closed-form").certify(model, x, ThreatModel(norm)).radius
        grid = [float(exact) * factor for factor in (0.5, 0.999, 1.001, 2.0)]
        found = MILP().certify(model, x, ThreatModel(norm), radii=grid)
        assert found.radius.tolist() == [grid[1]]
        assert grid[1] < float(found.evidence["witness_distance"][0]) <= grid[2] * (1 + 1e-6)


@pytest.mark.parametrize("norm", ["l1", "linf"])
def test_verdicts_of_weighted_averages_are_the_truth(norm: str, mlp: Any, truth: Any) -> None:
    members = [mlp(2, 4, 3, seed=seed) for seed in (3, 4)]
    model = Ensemble(members, WeightedAverage(of="logit", weights=(0.75, 0.25))).eval()
    seen = set()
    for seed in range(6):
        x = image(seed)
        y = int(model(x[None]).argmax())
        for radius in (0.05, 0.2, 0.4):
            own = truth(members, x.double().numpy(), radius, norm)
            rows = [torch.eye(3)[y] - torch.eye(3)[j] for j in range(3) if j != y]
            exact = min(own.margin([0.75 * row, 0.25 * row]) for row in rows)
            found = MILP().certify(model, x[None], ThreatModel(norm), radii=[radius])
            if abs(exact) > 1e-4:
                assert found.verdict.tolist() == [Verdict.CERTIFIED if exact > 0 else Verdict.FALSIFIED]
                seen.add(exact > 0)
    assert seen == {True, False}


@pytest.mark.parametrize(("count", "first"), [(1, 7), (2, 6), (3, 9)])
def test_verdicts_of_max_margin_ensembles_are_the_truth(count: int, first: int, mlp: Any, truth: Any) -> None:
    members = [mlp(2, 3, 2 if count == 3 else 3, seed=seed) for seed in range(first, first + count)]
    model = Ensemble(members, MaxMargin(of="logit")).eval()
    seen, more = set(), 0
    for seed in range(5):
        x = image(seed)
        y = int(model(x[None]).argmax())
        for radius in (0.05, 0.15, 0.35):
            exact = truth(members, x.double().numpy(), radius, "linf").max_margin_escape(y)
            found = MILP().certify(model, x[None], LINF, radii=[radius])
            if exact > 1e-4 or exact < -1e-4:
                assert found.verdict.tolist() == [Verdict.FALSIFIED if exact > 0 else Verdict.CERTIFIED]
                seen.add(exact > 0)
                bound = create("lp").certify(model, x[None], LINF, radii=[radius])
                more += int(found.verdict[0]) == Verdict.CERTIFIED and int(bound.verdict[0]) != Verdict.CERTIFIED
    assert seen == {True, False}
    assert more, "exactness decides what the linear program does not"


def test_max_margin_ensemble_changes_where_the_gaps_cross() -> None:
    """A member that always answers 1 by 0.05 outvotes the other one, until that answers 0 by more: at x = 0.55."""
    steady = line()
    steady[2].weight.data.zero_()
    steady[2].bias.data = torch.tensor([0.0, 0.05])
    x, grid = torch.tensor([[0.25]]), [0.2, 0.28, 0.299, 0.301, 0.35]
    for members in ([line(), steady], [steady, line()]):
        found = MILP().certify(Ensemble(members, MaxMargin(of="logit")).eval(), x, LINF, radii=grid)
        assert found.radius.tolist() == [0.299]
        assert 0.3 < float(found.evidence["witness_distance"]) <= 0.301
    alone = MILP().certify(Ensemble([line()], MaxMargin(of="logit")).eval(), x, LINF, radii=grid)
    assert alone.radius.tolist() == [0.2]
    assert 0.25 < float(alone.evidence["witness_distance"]) <= 0.28


def test_confidences_are_sound_but_not_exact(mlp: Any, truth: Any) -> None:
    members = [mlp(2, 4, 3, seed=seed) for seed in (3, 4)]
    verdicts = []
    for aggregation in (WeightedAverage(), MaxMargin()):
        model = Ensemble(members, aggregation).eval()
        for seed in range(4):
            x = image(seed)
            found = MILP().certify(model, x[None], LINF, radii=[0.02, 0.1, 0.3])
            assert found.evidence["exact"].tolist() == [0]
            samples = (x + float(found.radius) * (2 * torch.rand(4000, 2) - 1)).clamp(0, 1)
            assert bool((model(samples).argmax(1) == model(x[None]).argmax(1)).all())
            assert float(found.evidence["witness_distance"]) > float(found.radius)
            verdicts.append(int(found.verdict[0]))
            crown = create("native-crown").certify(model, x[None], LINF, radii=[0.02, 0.1, 0.3])
            assert float(found.radius) >= float(crown.radius)
    assert Verdict.CERTIFIED in verdicts
    assert MILP().certify(members[0], x[None], LINF, radii=[0.02]).evidence["exact"].tolist() == [1]


def test_exact_bounds_are_the_truth_of_each_member(mlp: Any, truth: Any) -> None:
    model, x = mlp(2, 5, 3, seed=3), image(1)
    networks = prepare(model, x[None]).networks
    bounds = ExactBounds(Encoder(ball(x, 0.3)), 60.0)
    rows = torch.stack([torch.zeros(3), torch.tensor([1.0, -1.0, 0.0])])[None].double()
    found = bounds.lower(networks, [rows])[0]
    exact = truth([model], x.double().numpy(), 0.3, "linf").margin([rows[0, 1]])
    assert exact - 1e-3 <= float(found[1]) <= exact + 1e-9
    assert not bounds.timeout
    assert len(bounds.inputs) == 1


@pytest.mark.parametrize("kind", ["conv", "residual"])
def test_convolutions_and_residual_blocks(kind: str) -> None:
    """The minimum is attained on the model itself, and below what sampling finds."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1, bias=False)
            self.norm, self.last = nn.BatchNorm2d(2), nn.Linear(2, 3)
            self.norm.running_mean.normal_()
            self.norm.running_var.uniform_(0.5, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x).relu()
            x = (x + self.norm(self.second(x))).relu()
            return self.last(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))

    torch.manual_seed(0)
    conv = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    model = (conv if kind == "conv" else Residual()).eval()
    x, radius, row = torch.rand(1, 4, 4), 0.1, torch.tensor([1.0, -1.0, 0.0])
    networks = prepare(model, x[None]).networks
    found = minimal_margin(networks, [row.double()], ball(x, radius))
    assert found.x is not None
    inside = found.x.reshape(1, 1, 4, 4)
    assert float((inside - x).abs().max()) <= radius + 1e-6
    assert float((model(inside.float()) @ row).detach()) == pytest.approx(found.value, abs=1e-5)
    corners = (x + radius * torch.randint(-1, 2, (20000, 1, 4, 4))).clamp(0, 1)
    assert found.value <= float((model(corners) @ row).min().detach()) + 1e-5
    lower = create("native-crown").margins(
        model, x[None], torch.tensor([0]), torch.tensor([radius], dtype=torch.float64), LINF, RNG
    )
    assert found.value >= float(lower[0, 1]) - 1e-9


# Verdicts.


def test_planted_counterexample_is_falsified_and_replayed() -> None:
    x = torch.tensor([[0.25]])
    found = MILP().certify(line(), x, LINF, radii=[0.5])
    assert found.verdict.tolist() == [Verdict.FALSIFIED]
    distance = float(found.evidence["witness_distance"])
    assert 0.25 < distance <= 0.5
    assert found.radius.tolist() == [0.0]
    assert found.reason == ("an input within the least radius tried is answered otherwise",)


def test_counterexample_at_a_large_radius_takes_no_certificate_away() -> None:
    found = MILP().certify(line(), torch.tensor([[0.25]]), LINF, radii=[0.1, 0.2, 0.5, 0.6])
    assert found.verdict.tolist() == [Verdict.CERTIFIED]
    assert found.radius.tolist() == [0.2]
    assert 0.25 < float(found.evidence["witness_distance"]) <= 0.5
    assert found.evidence["timeout"].tolist() == [0]


def test_bisection_ends_at_the_boundary() -> None:
    found = MILP(bisection_steps=16).certify(line(), torch.tensor([[0.25], [0.9]]), LINF)
    assert found.radius.tolist() == pytest.approx([0.25, 0.4], abs=1e-4)
    assert bool((found.radius <= torch.tensor([0.25, 0.4]).double()).all())
    assert bool((found.evidence["witness_distance"] >= found.radius).all())


def test_boundary_within_the_tolerance_is_unknown() -> None:
    """The least margin is 1e-8: no input changes the answer, and no proof is claimed."""
    x = torch.tensor([[0.6]])
    found = MILP().certify(tent(1e-8), x, LINF, radii=[0.25])
    assert found.verdict.tolist() == [Verdict.UNKNOWN]
    assert found.evidence["witness_distance"].tolist() == [math.inf]
    assert found.reason == ("a boundary is within the tolerance, or the bound does not suffice",)
    assert MILP().certify(tent(1e-3), x, LINF, radii=[0.25]).verdict.tolist() == [Verdict.CERTIFIED]


def test_classifier_that_answers_otherwise_than_its_network_is_not_falsified() -> None:
    """A solution is believed only if the classifier itself changes its answer."""

    class Stubborn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.calls = line(), 0

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)

    model, x = Stubborn(), torch.tensor([[0.25]])
    inquiry = MILP().inquiry(model, x, torch.tensor([1]), LINF, RNG, 1)
    model.inner[2].bias.data = torch.tensor([-5.0, 0.0])  # after it was read
    bounds = inquiry.margins(torch.tensor([0.5], dtype=torch.float64))
    assert bounds.tolist() == [[-math.inf, -math.inf]]
    assert inquiry.report().verdict.tolist() == [Verdict.UNKNOWN]


def test_no_time_is_a_timeout() -> None:
    x = torch.tensor([[0.6], [0.05]])  # the second one is proved by CROWN
    for model in (tent(1e-3), Ensemble([tent(1e-3), tent(2e-3)], WeightedAverage()).eval()):
        assert MILP().certify(model, x, LINF, radii=[0.25]).verdict.tolist() == [Verdict.CERTIFIED] * 2
        found = MILP(time_limit=1e-9).certify(model, x, LINF, radii=[0.25])
        assert found.verdict.tolist() == [Verdict.TIMEOUT, Verdict.CERTIFIED]
        assert found.evidence["timeout"].tolist() == [1, 0]
        assert found.reason == ("out of time before any radius was proved", "")


def test_radius_proved_in_spite_of_a_timeout_is_certified() -> None:
    """At small radii nothing is unstable and CROWN suffices; at the large one there was no time."""
    found = MILP(time_limit=1e-9).certify(line(), torch.tensor([[0.45]]), LINF, radii=[0.01, 0.3, 0.5])
    assert found.verdict.tolist() == [Verdict.CERTIFIED]
    assert found.radius.tolist() == [0.01]
    assert found.evidence["timeout"].tolist() == [1]
    assert found.reason == ("",)


def test_each_radius_gets_its_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = []

    def slow(escape: Any, seconds: float) -> highs.Outcome:
        shares.append(seconds)
        return highs.Outcome("timeout", -math.inf, math.inf, None)

    monkeypatch.setattr(highs, "reachable", slow)
    found = MILP(time_limit=40.0).certify(line(), torch.tensor([[0.45]]), LINF, radii=[0.1 * k for k in range(1, 8)])
    assert found.verdict.tolist() == [Verdict.TIMEOUT]
    assert shares == pytest.approx([40 / 3, 40 / 2, 40], rel=0.05), "what was not used is left to the others"


def test_refuted_radii_are_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    inquiry = MILP().inquiry(line(), torch.tensor([[0.25]]), torch.tensor([1]), LINF, RNG, 2)
    inquiry.margins(torch.tensor([0.5], dtype=torch.float64))
    assert inquiry.report().verdict.tolist() == [Verdict.FALSIFIED]
    monkeypatch.setattr(highs, "reachable", None)
    assert inquiry.margins(torch.tensor([0.6], dtype=torch.float64)).tolist() == [[-math.inf] * 2]
    assert inquiry.report().verdict.tolist() == [Verdict.FALSIFIED]


def test_images_that_are_not_asked_for_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(highs, "reachable", None)
    bounds = MILP().margins(
        line(), torch.tensor([[0.25]]), torch.tensor([1]), torch.zeros(1, dtype=torch.float64), LINF, RNG
    )
    assert bounds.tolist() == [[-math.inf] * 2]


# What is refused, and failures.


def test_l2_is_unsupported() -> None:
    found = MILP().certify(line(), torch.tensor([[0.25]]), ThreatModel("l2"), radii=[0.1])
    assert found.verdict.tolist() == [Verdict.UNSUPPORTED]
    assert "milp does not certify the norm l2; it certifies: l1, linf" in found.reason[0]


def test_max_pooling_is_unsupported_with_an_alternative() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)).eval()
    model[4].weight.data *= 9
    found = MILP().certify(model, torch.rand(1, 1, 6, 6), LINF, radii=[0.9])
    assert found.verdict.tolist() == [Verdict.UNSUPPORTED]
    assert "native-crown" in found.reason[0]


def test_escapes_of_confidences_do_not_exist(mlp: Any) -> None:
    x = image(0)
    prepared = prepare(Ensemble([mlp(2, 3, 2, seed=seed) for seed in (0, 1)], MaxMargin()), x[None])
    with pytest.raises(Unsupported, match="scores of confidences are not piecewise linear"):
        list(escapes(prepared, Encoder(ball(x, 0.1)), 0))


@pytest.mark.parametrize("broken", ["limit", "matrix"])
def test_failure_of_the_solver_raises_with_its_words(broken: str, mlp: Any) -> None:
    """A program that is not one must never count as one without a solution."""
    x = image(0)
    networks = prepare(mlp(2, 4, 2, seed=0), x[None]).networks
    escape = linear_escape(Encoder(ball(x, 0.3)), networks, [torch.tensor([1.0, -1.0]).double()])
    if broken == "limit":
        escape.limit[:] = math.nan
    else:
        escape.matrix.data[0] = math.inf
    with pytest.raises(RuntimeError, match=r"HiGHS failed: "):
        highs.reachable(escape)


def test_option_that_the_solver_does_not_know_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(highs._OPTIONS, "no_such_option", 1)
    with pytest.raises(RuntimeError, match=r"HiGHS does not take the option no_such_option = 1. Is highspy too old?"):
        MILP().certify(tent(1e-3), torch.tensor([[0.6]]), LINF, radii=[0.25])


@pytest.mark.parametrize(("missed", "status"), [(0.0, "solved"), (0.9, "solved"), (1.1, "impossible")])
def test_what_is_missed_by_less_than_the_tolerance_is_reachable(missed: float, status: str, mlp: Any) -> None:
    x = image(0)
    networks = prepare(mlp(2, 4, 2, seed=0), x[None]).networks
    rows = [torch.tensor([1.0, -1.0]).double()]
    escape = linear_escape(Encoder(ball(x, 0.3)), networks, rows)
    assert escape.integral.any()
    assert escape.tolerance >= 1e-6
    escape.limit[-1] += highs.least(escape).value - missed * escape.tolerance
    found = highs.reachable(escape)
    assert found.status == status
    assert (found.point is None) == (status == "impossible")
    assert highs.reachable(escape, 0.0).status == "timeout"


def test_missing_solver_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "highspy", None)
    found = MILP().certify(tent(1e-3), torch.tensor([[0.6]]), LINF, radii=[0.25])
    assert found.verdict.tolist() == [Verdict.UNSUPPORTED]
    assert "Install it: pip install highspy" in found.reason[0]
