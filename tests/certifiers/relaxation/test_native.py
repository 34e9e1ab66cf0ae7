"""Bounds in plain torch: below everything that was ever seen in a ball, and beside exact answers."""

from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import certifiers
from certifiers import Norm, ThreatModel, Unsupported
from certifiers.conformance import attack, cancelling_pair, enumerated, exact_radii, least_margins, linear
from certifiers.decision import positive_margins
from certifiers.networks import Network, Prepared, prepare, read
from certifiers.relaxation import BackwardBounds, Ball, IntervalBounds, ensemble_margins, relaxed
from certifiers.relaxation.backward import MaxPoolBounds, ReLUBounds, planes
from certifiers.relaxation.ensemble_margins import pairs
from certifiers.relaxation.intervals import interval_lower, intervals
from certifiers.relaxation.rows import Rows
from ensembles import Ensemble, MaxMargin, Single, WeightedAverage

NAMES = ["native-ibp", "native-crown-ibp", "native-crown"]
NORMS = [ThreatModel(norm) for norm in Norm]
AGGREGATIONS = [None, Single(member=1), WeightedAverage(of="logit", weights=(1.0, 2.0)), MaxMargin(of="logit")]


def named(value: Any) -> str | None:
    if isinstance(value, ThreatModel):
        return str(value.norm)
    return f"{value.name}-{getattr(value, 'of', '')}" if hasattr(value, "name") else None


every_norm = pytest.mark.parametrize("norm", list(Norm))


def margins_of(scores: Tensor, prediction: Tensor) -> Tensor:
    return scores.gather(-1, prediction[..., None]) - scores


@every_norm
@pytest.mark.parametrize("seed", range(6))
def test_nothing_in_a_ball_is_outside_the_bounds(models: Any, seed: int, norm: Norm) -> None:
    # 17 models a seed, of every kind: 102 in all.
    for number in range(17):
        kind = models.KINDS[(number + seed) % len(models.KINDS)]
        own = 1000 * seed + number
        network, ball = models.network(kind, own), models.ball(norm, own)
        x = models.points(ball, 60, own)
        values = [value.unflatten(0, x.shape[:2]) for value in network.values(x.flatten(0, 1))]
        for value, (lower, upper) in zip(values[1:], intervals(network, ball)[1:], strict=True):
            assert bool(((value >= lower) & (value <= upper)).all()), kind
        prediction = network(ball.center).argmax(1)
        specification = pairs(prediction, 3)
        seen = torch.einsum("brc,pbc->pbr", specification, values[-1])
        assert bool((seen >= interval_lower(network, ball, specification)).all()), kind
        for intermediate in ("ibp", "crown"):
            bounds = BackwardBounds(ball, intermediate)
            for layer, (lower, upper) in bounds.relaxed(network).bounds.items():
                value = values[network.sources[layer][0]]
                assert bool(((value >= lower) & (value <= upper)).all()), (kind, intermediate)
            below = planes(bounds.relaxed(network), specification)
            slope = below.rows.values.reshape(len(ball), 3, -1)
            plane = torch.einsum("brd,pbd->pbr", slope, x.flatten(2)) + below.offset.reshape(len(ball), 3)
            assert bool((seen >= plane - 1e-9).all()), (kind, intermediate)
            assert bool((seen >= bounds.lower([network], [specification])).all()), (kind, intermediate)


@every_norm
@pytest.mark.parametrize("name", NAMES)
def test_no_attack_succeeds_within_a_certified_radius(models: Any, name: str, norm: Norm) -> None:
    certified = 0
    for kind in models.KINDS:
        classifier, x = models.model(kind, 7), models.images(3, 7)
        found = certifiers.create(name, bisection_steps=16).certify(classifier, x, ThreatModel(norm))
        assert not any(found.reason) or bool((found.radius == 0).any())
        certified += int(found.certified.sum())
        result = attack(classifier, x, found.prediction.clamp(min=0), found.radius, ThreatModel(norm), restarts=3)
        assert not bool((result.found & found.certified).any()), kind
    assert certified >= 12


@pytest.mark.parametrize("aggregation", [WeightedAverage(weights=(1.0, 3.0)), MaxMargin()], ids=named)
@every_norm
def test_confidences_of_ensembles(models: Any, aggregation: Any, norm: Norm) -> None:
    proved = 0
    for seed in range(8):
        members = [models.model(models.KINDS[seed % 6], 50 + 2 * seed + number) for number in range(2)]
        classifier, ball = Ensemble(members, aggregation), models.ball(norm, seed)
        x = models.points(ball, 200, seed)
        with torch.no_grad():
            prediction = classifier(ball.center).argmax(1)
            scores = classifier(x.flatten(0, 1)).unflatten(0, x.shape[:2])
            prepared = prepare(classifier, ball.center)
        for bounds in (IntervalBounds(ball), BackwardBounds(ball, "crown")):
            lower = ensemble_margins(prepared, bounds, prediction)
            held = positive_margins(lower, prediction, 3)
            proved += int(held.sum())
            assert bool((scores.argmax(-1) == prediction)[:, held].all())
            if isinstance(aggregation, WeightedAverage):
                others = torch.arange(3) != prediction[:, None]
                assert bool((margins_of(scores, prediction.expand(200, -1)) >= lower)[:, others].all())
    assert proved >= 4


@pytest.mark.parametrize("seed", range(6))
def test_a_ball_without_radius_is_the_classifier(models: Any, seed: int) -> None:
    kind = models.KINDS[seed]
    network, x = models.network(kind, 20 + seed), models.images(3, seed)
    prediction = network(x).argmax(1)
    wanted = margins_of(network(x), prediction)
    for threat in NORMS:
        ball = Ball.around(x, torch.zeros(3, dtype=torch.float64), threat)
        for lower, upper in intervals(network, ball):
            torch.testing.assert_close(lower, upper, atol=1e-9, rtol=0)
        specification = pairs(prediction, 3)
        for bounds in (IntervalBounds(ball), BackwardBounds(ball, "ibp"), BackwardBounds(ball, "crown")):
            found = bounds.lower([network], [specification])
            torch.testing.assert_close(found, wanted, atol=1e-9, rtol=0)
            assert bool((found <= wanted + 1e-12).all())


@pytest.mark.parametrize("aggregation", AGGREGATIONS, ids=named)
@pytest.mark.parametrize("threat", [ThreatModel("linf"), ThreatModel("l1")], ids=named)
def test_no_radius_is_above_the_exact_one(threat: ThreatModel, aggregation: Any) -> None:
    shares: dict[str, list[Tensor]] = {name: [] for name in NAMES}
    for seed in range(1 if isinstance(aggregation, MaxMargin) else 3):  # enumerating the former takes seconds
        truth = enumerated(seed, threat, aggregation)
        for name in NAMES:
            found = certifiers.create(name).certify(truth.classifier, truth.x, threat)
            assert bool((found.radius <= truth.radius + 1e-7).all())
            shares[name].append(found.radius / truth.radius)
            if threat.norm is Norm.L1:  # an l2 ball holds the l1 ball of its radius
                wider = certifiers.create(name).certify(truth.classifier, truth.x, ThreatModel("l2"))
                assert bool((wider.radius <= truth.radius + 1e-7).all())
        if not isinstance(aggregation, MaxMargin):
            radius = torch.tensor([0.02, 0.1, 0.3], dtype=torch.float64)
            exact = least_margins(truth.classifier, truth.x, truth.prediction, radius, threat)
            prepared, ball = prepare(truth.classifier, truth.x), Ball.around(truth.x, radius, threat)
            for bounds in (IntervalBounds(ball), BackwardBounds(ball, "ibp"), BackwardBounds(ball, "crown")):
                assert bool((ensemble_margins(prepared, bounds, truth.prediction) <= exact + 1e-7).all())
    means = {name: torch.cat(values).mean().item() for name, values in shares.items()}
    assert means["native-crown"] > (0.4 if isinstance(aggregation, MaxMargin) else 0.7)
    assert means["native-crown"] > means["native-ibp"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("threat", NORMS, ids=named)
def test_linear_models_equal_their_closed_form(threat: ThreatModel, name: str) -> None:
    for seed in range(3):
        truth = linear(seed, threat)
        found = certifiers.create(name, bisection_steps=30).certify(truth.classifier, truth.x, threat)
        torch.testing.assert_close(found.radius, truth.radius, atol=2e-7, rtol=0)
        together = linear(seed, threat, WeightedAverage(of="logit", weights=(1.0, 2.0, 3.0)))
        found = certifiers.create(name, bisection_steps=30).certify(together.classifier, together.x, threat)
        if name == "native-ibp":
            assert bool((found.radius <= together.radius).all())
        else:
            torch.testing.assert_close(found.radius, together.radius, atol=2e-7, rtol=0)


@pytest.mark.parametrize("threat", [ThreatModel("linf"), ThreatModel("l1")], ids=named)
def test_what_members_disagree_on_cancels_where_they_are_bounded_jointly(threat: ThreatModel) -> None:
    for seed in range(3):
        pair = cancelling_pair(seed, threat)
        for name in ("native-crown", "native-crown-ibp"):
            certifier = certifiers.create(name)
            joint = certifier.certify(pair.classifier, pair.x, threat).radius
            alone = certifier.certify(pair.alone, pair.x, threat).radius
            torch.testing.assert_close(joint, alone, atol=1e-6, rtol=0)
        apart = certifiers.create("native-ibp").certify(pair.classifier, pair.x, threat).radius
        assert bool((apart < 0.6 * alone).all())
        # The same relaxation, each member by itself.
        ball = Ball.around(pair.x, pair.radius, threat)
        networks, bounds = prepare(pair.classifier, pair.x).networks, BackwardBounds(ball, "crown")
        half = [pairs(pair.prediction, 3) / 2] * 2
        parts = sum(bounds.lower([network], [own]) for network, own in zip(networks, half, strict=True))
        others = torch.arange(3) != pair.prediction[:, None]
        loss = (bounds.lower(networks, half) - parts)[others]
        assert bool((loss > -1e-9).all())
        assert float(loss.mean()) > float(pair.radius.mean())
    torch.testing.assert_close(exact_radii(pair.classifier, pair.x, threat), pair.radius, atol=1e-7, rtol=0)


def test_images_of_a_batch_share_nothing(models: Any) -> None:
    for kind, norm in zip(models.KINDS, list(Norm) * 2, strict=True):
        network, ball = models.network(kind, 31), models.ball(norm, 31, count=5)
        prediction = network(ball.center).argmax(1)
        specification = pairs(prediction, 3)
        for intermediate in ("ibp", "crown"):
            whole = BackwardBounds(ball, intermediate).lower([network], [specification])
            for image in range(5):
                part = slice(image, image + 1)
                alone = BackwardBounds(ball.part(part), intermediate).lower([network], [specification[part]])
                torch.testing.assert_close(alone, whole[part], atol=1e-9, rtol=0)
        alone = [
            IntervalBounds(ball.part(slice(i, i + 1))).lower([network], [specification[i : i + 1]]) for i in range(5)
        ]
        torch.testing.assert_close(
            torch.cat(alone), IntervalBounds(ball).lower([network], [specification]), atol=1e-9, rtol=0
        )


@every_norm
def test_float32_bounds_lie_below_float64_values(models: Any, norm: Norm) -> None:
    for number, kind in enumerate(models.KINDS):
        network, ball = models.network(kind, 60 + number), models.ball(norm, number)
        x = models.points(ball, 100, number)
        prediction = network(ball.center).argmax(1)
        seen = margins_of(network(x.flatten(0, 1)).unflatten(0, x.shape[:2]), prediction.expand(100, -1))
        small = Ball.around(ball.center.float(), ball.radius, ThreatModel(norm))
        for bounds in (IntervalBounds(small), BackwardBounds(small, "crown")):
            found = bounds.lower([network], [pairs(prediction, 3)])
            assert found.dtype == torch.float32
            assert bool((seen >= found.double()).all())
        # Barely below: what rounding takes is little beside the margins.
        double = BackwardBounds(ball, "crown").lower([network], [pairs(prediction, 3)])
        torch.testing.assert_close(found.double(), double, atol=0.02 * float(double.abs().max()), rtol=0)


def broken_networks(models: Any) -> list[Network]:
    found = []
    for kind in models.KINDS:
        layers = [layer for layer in models.network(kind, 0).layers if isinstance(layer, (nn.Linear, nn.Conv2d))]
        for number in range(len(layers)):
            network = models.network(kind, 0)
            own = [layer for layer in network.layers if isinstance(layer, (nn.Linear, nn.Conv2d))][number]
            own.weight.data.flatten()[0] = float("nan")
            found.append(network)
    return found


def test_weights_that_are_not_numbers_are_never_certified(models: Any) -> None:
    for network in broken_networks(models):
        ball = Ball.around(models.images(2), torch.tensor([1e-6, 0.1], dtype=torch.float64), ThreatModel("linf"))
        for bounds in (IntervalBounds(ball), BackwardBounds(ball, "ibp"), BackwardBounds(ball, "crown")):
            for prediction in range(3):
                answers = torch.full((2,), prediction)
                lower = ensemble_margins(Prepared((network,), None), bounds, answers)
                assert not bool(positive_margins(lower, answers, 3).any())


def test_crossed_bounds_are_not_numbers() -> None:
    lower, upper = torch.tensor([[1.0, -1.0, -2.0]]), torch.tensor([[0.5, -1.5, float("nan")]])
    bounds = ReLUBounds.of((lower.double(), upper.double()))
    for sign in (1.0, -1.0):
        for entry in range(3):
            values = torch.zeros(1, 3, dtype=torch.float64)
            values[0, entry] = sign
            part = bounds.backward(Rows(values, torch.tensor([0]), (3,)))
            assert bool(part.rows.values.isnan().any() | part.offset.isnan().any())


def test_a_maximum_lies_between_its_bounds() -> None:
    generator = torch.Generator().manual_seed(0)
    low = torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64)
    high = low + torch.rand(2, 3, 4, 4, generator=generator, dtype=torch.float64) ** 2
    bounds = MaxPoolBounds.of(nn.MaxPool2d(2), (low, high), "layer")
    assert 0 < int(bounds.sure.sum()) < bounds.sure.numel()
    values = torch.randn(50, 3, 2, 2, generator=generator, dtype=torch.float64)
    owner = torch.arange(50) % 2
    part = bounds.backward(Rows(values, owner, (3, 2, 2)))
    for _ in range(100):
        z = low + torch.rand(low.shape, generator=generator, dtype=torch.float64) * (high - low)
        pooled = nn.functional.max_pool2d(z, 2)
        truth = (values * pooled[owner]).flatten(1).sum(1)
        assert bool((part.rows.dot(z) + part.offset <= truth + 1e-9).all())
    with pytest.raises(
        Unsupported, match=r"layer: linear bounds need pooling windows side by side and without padding"
    ):
        MaxPoolBounds.of(nn.MaxPool2d(3, stride=2), (low, high), "layer")


def test_sure_relus_are_themselves() -> None:
    lower = torch.tensor([[0.5, -2.0, 0.0, -1.0, -1.0]], dtype=torch.float64)
    upper = torch.tensor([[2.0, -0.5, 1.0, 0.0, 3.0]], dtype=torch.float64)
    bounds = ReLUBounds.of((lower, upper))
    assert bounds.lower[0].tolist() == [1, 0, 1, 0, 1]
    assert bounds.upper[0].tolist() == [1, 0, 1, 0, 0.75]
    assert bounds.offset[0].tolist() == [0, 0, 0, 0, 0.75]


def test_crown_is_never_looser_on_a_neuron_than_intervals(models: Any) -> None:
    for number, kind in enumerate(models.KINDS):
        network, ball = models.network(kind, 80 + number), models.ball(Norm.L2, number)
        boxes = intervals(network, ball)
        tighter = relaxed(network, ball, "crown").bounds
        for layer, (lower, upper) in tighter.items():
            low, high = boxes[network.sources[layer][0]]
            assert bool(((lower >= low - 1e-12) & (upper <= high + 1e-12)).all())


def test_intervals_of_deep_networks_start_from_the_tightened_bounds() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [layer for _ in range(8) for layer in (nn.Linear(24, 24), nn.ReLU())]
        for layer in layers[::2]:
            nn.init.normal_(layer.weight, std=(2 / 24) ** 0.5)  # activations keep their size
        model = nn.Sequential(*layers, nn.Linear(24, 3))
    network, x = read(model, torch.rand(1, 24)), torch.rand(4, 24, generator=torch.Generator().manual_seed(1)).double()
    ball = Ball.around(x, torch.full((4,), 0.003).double(), ThreatModel("linf"))
    boxes, tighter = intervals(network, ball), relaxed(network, ball, "crown").bounds
    open_boxes = sum(int(((low < 0) & (high > 0)).sum()) for low, high in (boxes[number] for number in tighter))
    assert sum(int(((low < 0) & (high > 0)).sum()) for low, high in tighter.values()) < 0.5 * open_boxes
    # A callback is asked of every ReLU, and what it answers is what the rest is bounded from.
    pinned = intervals(network, ball, tighten=lambda number, interval: (interval[0] * 0, interval[1] * 0))
    assert bool((pinned[-1][0] <= model[-1].bias).all())
    assert bool((pinned[-1][1] >= model[-1].bias).all())
    assert float((pinned[-1][1] - pinned[-1][0]).max()) < 1e-9


@pytest.mark.parametrize("name", ["native-crown", "native-crown-ibp"])
@pytest.mark.parametrize("threat", [ThreatModel("linf"), ThreatModel("l1")], ids=named)
def test_members_bounded_apart_prove_less(threat: ThreatModel, name: str) -> None:
    for seed in range(3):
        pair = cancelling_pair(seed, threat)
        joint = certifiers.create(name).certify(pair.classifier, pair.x, threat).radius
        apart = certifiers.create(name, joint=False).certify(pair.classifier, pair.x, threat).radius
        assert bool((apart < joint).all())
        assert float(apart.mean()) < 0.8 * float(joint.mean())
        alone = certifiers.create(name, joint=False).certify(pair.alone, pair.x, threat).radius
        torch.testing.assert_close(alone, joint, atol=1e-6, rtol=0)
    truth = enumerated(5, threat, members=3, aggregation=MaxMargin(of="logit"))
    joint = certifiers.create(name).certify(truth.classifier, truth.x, threat).radius
    apart = certifiers.create(name, joint=False).certify(truth.classifier, truth.x, threat).radius
    assert bool((apart <= joint + 1e-12).all())
    assert bool((joint <= truth.radius).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_intervals_give_away_as_much_as_sums_that_cancel_round(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        half = torch.randn(1, 40, generator=generator, dtype=dtype) * 100
        layer = nn.Linear(80, 1).to(dtype)
        with torch.no_grad():
            layer.weight.copy_(torch.cat([half, -half], dim=1))
            layer.bias.zero_()
        x = torch.rand(1, 40, generator=generator, dtype=dtype).repeat(1, 2)
        x[:, 40:] += 1e-4 * torch.rand(1, 40, generator=generator, dtype=dtype)
        x = x.clamp(0, 1)
        network = Network([layer], [(0,)], ["linear"], [(80,), (1,)])
        exact = sum(
            Fraction(weight) * Fraction(value)
            for weight, value in zip(layer.weight[0].tolist(), x[0].tolist(), strict=True)
        )
        for norm in Norm:
            low, high = intervals(network, Ball.around(x, torch.zeros(1, dtype=dtype), ThreatModel(norm)))[-1]
            assert Fraction(float(low)) <= exact <= Fraction(float(high))
