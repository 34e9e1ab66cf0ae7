"""Bounds by auto_LiRPA: beside those in plain torch, below what an attack finds, and nothing left behind."""

import gc
import importlib.metadata
import subprocess
import sys
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import certifiers
from certifiers import Norm, ThreatModel, Unsupported, Verdict
from certifiers.conformance import attack
from certifiers.networks import Network, Prepared, prepare
from certifiers.relaxation import BackwardBounds, Ball, Bounds, IntervalBounds, LirpaBounds, ensemble_margins, lirpa
from certifiers.relaxation.ensemble_margins import pairs
from certifiers.relaxation.lirpa_networks import boundable, input_shift
from ensembles import Ensemble, MaxMargin, WeightedAverage, architectures

METHODS = ["ibp", "crown-ibp", "crown", "alpha-crown"]
TWINS = ["ibp", "crown-ibp", "crown"]
LINF = ThreatModel("linf")

every_norm = pytest.mark.parametrize("norm", list(Norm))
every_method = pytest.mark.parametrize("method", METHODS)


def native(method: str, ball: Ball) -> Bounds:
    if method == "ibp":
        return IntervalBounds(ball)
    return BackwardBounds(ball, "ibp" if method == "crown-ibp" else "crown")


def around(x: Tensor, radius: float, norm: str = "linf") -> Ball:
    return Ball.around(x, torch.full((len(x),), radius, dtype=torch.float64), ThreatModel(norm))


def without_box(x: Tensor, radius: float, norm: str) -> Ball:
    """A ball that is not cut to [0, 1], as auto_LiRPA bounds those of l1 and l2."""
    each = torch.full((len(x),), radius, dtype=torch.float64)
    return Ball(x, each, Norm(norm), x - 100, x + 100)


def margins(network: Network, bounds: Bounds, x: Tensor) -> Tensor:
    """Lower bounds on the margins of the answer at x."""
    return bounds.lower([network], [pairs(network(x).argmax(1), network.shapes[-1][0])])


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert bool((found <= wanted + 1e-6 * (1 + wanted.abs())).all()), "rounded against ourselves"


def read(model: nn.Module, x: Tensor) -> Network:
    (network,) = prepare(model.double().eval(), x).networks
    return network


def lowest(network: Network, specification: Tensor, ball: Ball) -> Tensor:
    """The least values that Frank and Wolfe's method finds in the balls, not cut to the box for l1 and l2."""
    rows = specification.shape[1]
    starts, shape = 16, ball.center.shape[1:]
    generator = torch.Generator().manual_seed(0)

    def farthest(direction: Tensor) -> Tensor:
        flat = direction.flatten(2)
        if ball.norm is Norm.LINF:
            x = torch.where(direction > 0, ball.upper, ball.lower)
            return x - ball.center
        if ball.norm is Norm.L2:
            unit = flat / torch.linalg.vector_norm(flat, dim=-1, keepdim=True).clamp(min=1e-300)
        else:
            unit = torch.zeros_like(flat).scatter(2, flat.abs().argmax(-1, keepdim=True), 1.0) * flat.sign()
        return (unit * ball.radius[:, None]).reshape(direction.shape)

    least = torch.full(specification.shape[:2], torch.inf, dtype=torch.float64)
    for row in range(rows):
        delta = farthest(torch.randn(starts, len(ball), *shape, generator=generator, dtype=torch.float64))
        for step in range(25):
            with torch.enable_grad():
                delta = delta.detach().requires_grad_()
                outputs = network((ball.center + delta).flatten(0, 1)).unflatten(0, (starts, len(ball)))
                value = (outputs * specification[:, row]).sum(-1)
                (slope,) = torch.autograd.grad(value.sum(), delta)
            least[:, row] = torch.minimum(least[:, row], value.detach().amin(0))
            delta = delta + (2 / (step + 2) if step % 2 else 1.0) * (farthest(-slope) - delta)
    return least


# Beside the bounds in plain torch.


@pytest.mark.parametrize("method", TWINS)
@pytest.mark.parametrize("kind", ["mlp", "conv", "residual", "max pooling", "avg pooling", "batch norm"])
def test_linf_bounds_are_those_in_plain_torch(models: Any, kind: str, method: str) -> None:
    x = models.images(3, 5)
    for seed in range(3):
        network, ball = models.network(kind, seed), around(x, 0.004)
        close(margins(network, LirpaBounds(ball, method), x), margins(network, native(method, ball), x))


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("method", TWINS)
def test_bounds_over_round_balls_are_those_in_plain_torch(models: Any, method: str, norm: str) -> None:
    x = models.images(3, 5)
    layers = [nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(27, 3)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        networks = [models.network("mlp", 1), models.network("mlp", 2)]
        if norm == "l2":  # auto_LiRPA takes the l2 norms of kernels for l1 too
            networks.append(read(nn.Sequential(*layers), x))
    for network in networks:
        ball = without_box(x, 0.05, norm)
        close(margins(network, LirpaBounds(ball, method), x), margins(network, native(method, ball), x))


@pytest.mark.parametrize("aggregation", [WeightedAverage(of="logit", weights=(1.0, 2.0, 3.0)), MaxMargin(of="logit")])
@pytest.mark.parametrize("method", TWINS)
def test_ensembles_are_bounded_jointly(method: str, aggregation: Any) -> None:
    members = [
        architectures.create("conv_small", input_shape=(1, 8, 8), classes=4, seed=seed, mean=(0.13,), std=(0.31,))
        for seed in range(3)
    ]
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        prepared = prepare(Ensemble(members, aggregation).eval(), x)
        ball, prediction = around(x.double(), 0.003), Ensemble(members, aggregation).eval()(x).argmax(1)
    found = ensemble_margins(prepared, LirpaBounds(ball, method), prediction)
    wanted = ensemble_margins(prepared, native(method, ball), prediction)
    others = torch.isfinite(wanted)
    assert bool((torch.isfinite(found) == others).all())
    close(found[others], wanted[others])
    if method == "crown" and isinstance(aggregation, WeightedAverage):
        parts = [weight / 6 * pairs(prediction, 4) for weight in (1.0, 2.0, 3.0)]
        apart = [
            LirpaBounds(ball, method).lower([network], [part])
            for network, part in zip(prepared.networks, parts, strict=True)
        ]
        assert bool((torch.stack(apart).sum(0)[others] < found[others] - 1e-4).all()), (
            "what members disagree on cancels"
        )


class Awkward(nn.Module):
    """Layers that auto_LiRPA 0.3 gets wrong if they are handed to it as they are."""

    def __init__(self, *layers: nn.Module, features: int, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(features, 3))
            for parameter in self.parameters():
                parameter.data = torch.randn(parameter.shape) * 0.4

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


AWKWARD = {
    "groups": Awkward(nn.Conv2d(2, 4, 3, groups=2), nn.ReLU(), nn.Conv2d(4, 4, 2, groups=4), features=36),
    "dilation": Awkward(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3, dilation=2), features=24),
    "overlapping averages": Awkward(
        *(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(3, 1), nn.Conv2d(4, 6, 3)), features=24
    ),
    "padded averages": Awkward(
        *(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(3, 2, 1), nn.Conv2d(4, 6, 2)), features=24
    ),
    "averages first": Awkward(nn.AvgPool2d(2, 1), nn.Conv2d(2, 4, 2), features=64),
    "maxima first": Awkward(nn.MaxPool2d(2), nn.Conv2d(2, 4, 2), features=16),
    "ReLU first": Awkward(nn.ReLU(), nn.Conv2d(2, 4, 3), features=64),
    "uneven strides": Awkward(
        *(nn.Conv2d(2, 4, (3, 2), (2, 1), (1, 0)), nn.ReLU(), nn.Conv2d(4, 4, (2, 3), (1, 2), (0, 1))), features=24
    ),
    "uneven padding": Awkward(*(nn.Conv2d(2, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=(1, 0))), features=12),
    "shift inside": Awkward(
        *(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)), features=64
    ),
}


@pytest.mark.parametrize("method", TWINS)
@pytest.mark.parametrize("name", AWKWARD)
def test_layers_that_it_gets_wrong_are_rewritten(models: Any, name: str, method: str) -> None:
    x = models.images(2, 3)
    network, ball = read(AWKWARD[name], x), around(x, 0.004)
    close(margins(network, LirpaBounds(ball, method), x), margins(network, native(method, ball), x))


@pytest.mark.parametrize("method", TWINS)
def test_images_need_not_be_square(method: str) -> None:
    x = torch.rand(2, 2, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = Awkward(nn.Conv2d(2, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), features=48)
    for ball in (around(x, 0.004), around(x, 0.02, "l2")):
        found = margins(network := read(model, x), LirpaBounds(ball, method), x)
        if ball.norm is Norm.LINF:
            close(found, margins(network, native(method, ball), x))
        assert bool((found <= lowest(network, pairs(network(x).argmax(1), 3), ball)).all())


# Below what is there.


@every_norm
def test_bounds_are_below_what_an_attack_finds(models: Any, norm: Norm) -> None:
    radii = {Norm.LINF: (0.005, 0.05), Norm.L2: (0.03, 0.3), Norm.L1: (0.1, 1.0)}[norm]
    named = [(kind, models.network(kind, 3)) for kind in models.KINDS]
    x = models.images(2, 11)
    named += [(name, read(model, x)) for name, model in AWKWARD.items()]
    gaps = []
    for name, network in named:
        specification = pairs(network(x).argmax(1), 3)
        for radius in radii:
            ball = around(x, radius, norm)
            least = lowest(network, specification, ball)
            for method in METHODS:
                found = LirpaBounds(ball, method).lower([network], [specification])
                assert bool((found <= least).all()), (name, method, radius, float((found - least).max()))
            gaps.append(float((least - found).amax() / (1 + least.abs().max())))
    assert sorted(gaps)[len(gaps) // 4] < 0.02, "the attack is strong and the bounds are tight"


@every_method
def test_no_attack_succeeds_within_a_certified_radius(models: Any, method: str) -> None:
    certified = 0
    for number, kind in enumerate(models.KINDS):
        threat = ThreatModel(list(Norm)[number % 3])
        classifier, x = models.model(kind, 7), models.images(3, 7)
        found = certifiers.create(method).certify(classifier, x, threat, radii=[0.002, 0.01, 0.05, 0.2])
        assert not any(verdict == Verdict.UNSUPPORTED for verdict in found.verdict), found.reason
        certified += int(found.certified.sum())
        result = attack(classifier, x, found.prediction.clamp(min=0), found.radius, threat, restarts=3)
        assert not bool((result.found & found.certified).any()), kind
    assert certified >= 6


@every_method
def test_a_ball_without_radius_is_the_classifier(models: Any, method: str) -> None:
    for kind in models.KINDS:
        network, x = models.network(kind, 20), models.images(3, 1)
        wanted = torch.einsum("brc,bc->br", pairs(network(x).argmax(1), 3), network(x))
        for norm in Norm:
            found = margins(network, LirpaBounds(around(x, 0.0, norm), method), x)
            torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
            assert bool((found <= wanted).all())


@every_norm
def test_optimised_bounds_are_never_below_crown(models: Any, norm: Norm) -> None:
    gained = []
    for kind in models.KINDS:
        network, x = models.network(kind, 4), models.images(2, 2)
        ball = around(x, {Norm.LINF: 0.05, Norm.L2: 0.3, Norm.L1: 1.0}[norm], norm)
        crown, optimised = (margins(network, LirpaBounds(ball, method), x) for method in ("crown", "alpha-crown"))
        assert bool((optimised >= crown).all()), kind
        gained.append(float((optimised - crown).max()))
        one = margins(network, LirpaBounds(ball, "alpha-crown", steps=1), x)
        assert bool((optimised >= one - 1e-6).all())
    assert sum(gain > 1e-3 for gain in gained) >= 4


# Nothing of another call.


@every_norm
@every_method
def test_every_call_has_its_own_ball(models: Any, method: str, norm: Norm) -> None:
    for kind in ("mlp", "residual"):
        x, others = models.images(2, 1), models.images(2, 2)
        kept = models.network(kind, 8)
        for images, radius in [(x, 0.3), (x, 0.01), (others, 0.1), (x, 0.3), (x[:1], 0.2), (x, 0.01)]:
            ball = around(images, radius, norm)
            found = margins(kept, LirpaBounds(ball, method), images)
            # A network read anew has a graph of its own, in which nothing was computed before.
            fresh = margins(models.network(kind, 8), LirpaBounds(ball, method), images)
            torch.testing.assert_close(found, fresh, atol=0, rtol=0)


@every_norm
@every_method
def test_bounds_do_not_depend_on_other_samples(models: Any, method: str, norm: Norm) -> None:
    network, ball = models.network("conv", 6), models.ball(norm, 6, count=4)
    together = margins(network, LirpaBounds(ball, method), ball.center)
    alone = [margins(network, LirpaBounds(part, method), part.center) for part in map(ball.part, slices(4))]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)
    if method in ("crown", "alpha-crown"):
        assert bool((together == torch.cat(alone)).all())


def slices(count: int) -> list[slice]:
    return [slice(number, number + 1) for number in range(count)]


def test_graphs_live_as_long_as_their_networks(models: Any) -> None:
    network, other, x = models.network("mlp", 30), models.network("mlp", 31), models.images(1, 0)
    ask = [pairs(network(x).argmax(1), 3)] * 2
    LirpaBounds(around(x, 0.1), "crown").lower([network, other], ask)
    first = lirpa._recordings[network]
    LirpaBounds(around(x, 0.2), "crown").lower([network, other], ask)
    LirpaBounds(around(x, 0.2), "alpha-crown").lower([network, other], ask)
    assert len(first) == 1
    reference, count = weakref.ref(network), len(lirpa._recordings)
    del network, first
    gc.collect()
    assert reference() is None
    assert len(lirpa._recordings) == count - 1


# Fail closed.


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e300])
@every_method
def test_broken_numbers_are_no_bounds(models: Any, method: str, value: float) -> None:
    x = models.images(2, 1)
    for kind in ("mlp", "conv", "residual"):
        for number in range(3):
            network = models.network(kind, 9)
            layers = [layer for layer in network.layers if hasattr(layer, "weight")]
            layer = layers[number % len(layers)]
            layer.weight.data.flatten()[:2] = torch.tensor([value, -value], dtype=torch.float64)
            found = margins(network, LirpaBounds(around(x, 0.01), method), x)
            assert not bool((torch.isfinite(found) & (found > 0)).any()), kind


@every_method
def test_a_classifier_of_nan_is_not_certified(models: Any, method: str) -> None:
    classifier, x = models.model("mlp", 0), models.images(2, 1)
    classifier[1].weight.data[0, 0] = torch.nan
    found = certifiers.create(method).certify(classifier, x, LINF, radii=[0.001])
    assert not bool(found.certified.any())


def test_bounds_above_the_center_or_crossed_are_disbelieved(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = models.network("mlp", 1), models.images(2, 1)
    bounds = LirpaBounds(around(x, 0.01), "crown")
    assert bool(torch.isfinite(margins(network, bounds, x)).all())
    (module, _), *_ = lirpa._recordings[network].values()
    compute = module.compute_bounds

    def too_high(**arguments: Any) -> Any:
        lower, upper = compute(**arguments)
        return lower + 1.0, upper

    with monkeypatch.context() as patched:
        patched.setattr(module, "compute_bounds", too_high)
        assert bool(torch.isnan(margins(network, bounds, x)).all())

    def crossed(**arguments: Any) -> Any:
        result = compute(**arguments)
        node = module.optimizable_activations[0].inputs[0]
        node.lower = node.upper + 0.1
        return result

    monkeypatch.setattr(module, "compute_bounds", crossed)
    assert bool(torch.isnan(margins(network, bounds, x)).all())


def test_balls_are_rounded_outward(models: Any) -> None:
    x = models.images(3, 1)
    for norm in Norm:
        ball = around(x, 0.1 + 1e-12, norm)
        for shift in (torch.zeros(()), torch.tensor([-0.1307, 0.3]).double()[:, None, None]):
            tensor = lirpa._bounded_tensor(ball, [0, 1, 2], shift)
            if norm is Norm.LINF:
                assert bool((tensor.ptb.x_L.double() <= ball.lower + shift).all())
                assert bool((tensor.ptb.x_U.double() >= ball.upper + shift).all())
            else:
                order = {Norm.L1: 1, Norm.L2: 2}[norm]
                off = (torch.Tensor(tensor).double() - (x + shift)).flatten(1)
                room = tensor.ptb.eps - torch.linalg.vector_norm(off, ord=order, dim=1)
                assert bool((room >= ball.radius).all())
            assert torch.Tensor(tensor).dtype == torch.float32


def test_graphs_are_recorded_by_hand_too() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    x = torch.rand(5, 3)
    graph = lirpa.record(model, x[:1])
    torch.testing.assert_close(graph(x), model(x))


def test_layers_without_bounds_are_named(models: Any) -> None:
    x = models.images(1, 0)
    for layer, features, why in [
        (nn.MaxPool2d(2, 1), 100, r"layer layers.2 \(MaxPool2d\).*windows of \(2, 2\), stride \(1, 1\).*ibp does it"),
        (nn.MaxPool2d(2, 2, 1), 64, r"padding \(1, 1\) on 6x6"),
        (nn.MaxPool2d((2, 3)), 24, r"windows of \(2, 3\)"),
        (nn.MaxPool2d(4), 4, r"cover the image without padding, not for windows of \(4, 4\)"),
    ]:
        model = Awkward(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), layer, features=features).eval()
        for method in METHODS:
            found = certifiers.create(method).certify(model, x.float(), LINF, radii=[1e-5])
            if method == "ibp":
                assert found.verdict.tolist() == [Verdict.CERTIFIED]
            else:
                assert found.verdict.tolist() == [Verdict.UNSUPPORTED]
        with pytest.raises(Unsupported, match=why):
            boundable(read(model, x), Norm.LINF, linear=True)


def test_shifts_move_to_the_input_where_all_have_one(models: Any) -> None:
    x = models.images(2, 1)
    networks = [models.network("residual", seed) for seed in range(2)]
    shift = input_shift(networks)
    assert shift is not None
    torch.testing.assert_close(shift[:, 0, 0], -torch.tensor([0.3, 0.6]).double(), atol=1e-6, rtol=0)
    for network in networks:
        moved = boundable(network, Norm.LINF, linear=True, moved=True)
        assert len(moved.layers) == len(network.layers) - 1
        torch.testing.assert_close(moved((x + shift).float()), network(x).float(), atol=1e-5, rtol=1e-5)
        still = boundable(network, Norm.LINF, linear=True)
        torch.testing.assert_close(still(x.float()), network(x).float(), atol=1e-5, rtol=1e-5)
    assert input_shift([networks[0], models.network("mlp", 0)]) is None
    plain = Awkward(nn.Conv2d(2, 4, 3, padding=1), features=144)
    assert input_shift([networks[0], read(plain, x)]) is None
    mixed = Prepared((networks[0], read(plain, x)), WeightedAverage(of="logit"))
    prediction = (networks[0](x) + mixed.networks[1](x)).argmax(1)
    ball = around(x, 0.004)
    found = ensemble_margins(mixed, LirpaBounds(ball, "crown"), prediction)
    wanted = ensemble_margins(mixed, native("crown", ball), prediction)
    close(found[torch.isfinite(wanted)], wanted[torch.isfinite(wanted)])


# The classifier and the process stay as they are.


def test_dropout_stays_in_train_mode(models: Any) -> None:
    layers = [nn.Flatten(), nn.Linear(72, 10), nn.ReLU(), nn.Dropout(0.5), nn.Linear(10, 3)]
    classifier, x = nn.Sequential(*layers).train(), models.images(3, 1).float()
    found = certifiers.create("crown").certify(classifier, x, LINF, radii=[0.001, 0.01])
    assert all(module.training for module in classifier.modules())
    layers[3] = nn.Identity()
    same = certifiers.create("crown").certify(nn.Sequential(*layers).eval(), x, LINF, radii=[0.001, 0.01])
    assert bool(found.certified.any())
    torch.testing.assert_close(found.radius, same.radius, atol=0, rtol=0)


def run(code: str) -> str:
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


def test_it_is_imported_only_when_bounds_are_asked_for() -> None:
    code = "import sys, certifiers; certifiers.create('crown'); print('auto_LiRPA' in sys.modules)"
    assert run(code) == "False"


def test_the_process_stays_as_it_is(tmp_path: Any) -> None:
    code = f"""
import logging, os, sys, warnings
os.environ["HOME"], before_home = {str(tmp_path)!r}, os.environ.pop("XDG_DATA_HOME", None)
import torch, certifiers
from torch import nn
from torch.onnx._internal.torchscript_exporter._globals import GLOBALS
torch.export.export(nn.Linear(1, 1), (torch.zeros(2, 1),))  # what reading a network leaves is not asked here

def state():
    executor, mode = torch._C._jit_set_profiling_executor(True), torch._C._jit_set_profiling_mode(True)
    torch._C._jit_set_profiling_executor(executor), torch._C._jit_set_profiling_mode(mode)
    return (
        list(warnings.filters), list(logging.getLogger().handlers), logging.getLogger().level,
        torch.get_default_dtype(),
        GLOBALS.export_onnx_opset_version, executor, mode, hasattr(torch._C.Node, "__getitem__"), dict(os.environ),
        hasattr(sys.modules.get("torch.onnx.symbolic_helper"), "_set_opset_version"),
        "numpy.lib.arraysetops" in sys.modules, torch.is_grad_enabled(), torch.get_num_threads(),
    )

before = state()
x = torch.rand(2, 4)
model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)).eval()
for name in ("ibp", "crown-ibp", "crown", "alpha-crown"):
    found = certifiers.create(name).certify(model, x, certifiers.ThreatModel("linf"), radii=[1e-4, 0.3])
    assert bool(found.certified.any()), found.reason
assert "auto_LiRPA" in sys.modules
for number, (was, now) in enumerate(zip(before, state())):
    assert was == now, (number, was, now)
assert not os.listdir(os.environ["HOME"]), os.listdir(os.environ["HOME"])
"""
    assert run(code) == "", "prints nothing"


def test_without_the_package_it_says_how_to_install_it(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "auto_LiRPA", None)
    classifier, x = models.model("mlp", 40), models.images(2, 1)
    for method in METHODS:
        found = certifiers.create(method).certify(classifier, x, LINF, radii=[0.001])
        assert found.verdict.tolist() == [Verdict.UNSUPPORTED] * 2
        assert "auto_LiRPA is not installed" in found.reason[0]
        assert "`pip install --no-deps auto-LiRPA==0.3`; native-crown needs nothing." in found.reason[0]


def test_what_it_needs_is_named_where_it_is_missing() -> None:
    code = """
import sys
sys.modules["tqdm"] = None
from certifiers import Unsupported
from certifiers.relaxation import lirpa
try:
    lirpa.library()
except Unsupported as reason:
    print(reason)
"""
    found = run(code)
    assert found.startswith("auto_LiRPA cannot be imported (")
    assert "tqdm" in found
    assert found.endswith("Install what it needs; native-crown needs nothing.")


def test_only_0_3_is_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(text: str | None) -> Any:
        def found(name: str) -> str:
            if text is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return text

        return found

    for text, old in [
        ("0.3", True),
        ("0.2.1", True),
        ("0.7.1", False),
        ("0.10.0", False),
        ("1.0", False),
        (None, False),
    ]:
        monkeypatch.setattr(importlib.metadata, "version", version(text))
        assert lirpa._is_old() is old
