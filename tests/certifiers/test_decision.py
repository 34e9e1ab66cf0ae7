import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from certifiers import (
    Certificates,
    DecisionCertifier,
    Guarantee,
    KeyedRandomness,
    Norm,
    ThreatModel,
    Unsupported,
    Verdict,
)
from certifiers.decision import positive_margins, search_by_bisection, search_grid

L2 = ThreatModel("l2")


class Sure(nn.Module):
    """Answers class 1 of three."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor([0.0, 2.0, 1.0]).expand(len(x), 3)


@dataclass(frozen=True, kw_only=True)
class Oracle(DecisionCertifier):
    """Margins that are positive where `proves(row, radius)` says so; keeps the radii it was asked about."""

    norms: ClassVar[frozenset[Norm]] = frozenset(Norm)
    proves: Any = None
    good: float = 1.0
    bad: float = -1.0
    asked: Any = field(default_factory=list)

    def margins(
        self, classifier: nn.Module, x: Tensor, prediction: Tensor, radius: Tensor, threat: ThreatModel, rng: Any
    ) -> Tensor:
        assert prediction.tolist() == [1] * len(x)
        self.asked.append(radius.tolist())
        rows = [[self.good if self.proves(row, r) else self.bad] * 3 for row, r in enumerate(radius.tolist())]
        bounds = torch.tensor(rows)
        bounds[:, 1] = torch.nan  # the column of the prediction itself is not read
        return bounds


def below(thresholds: list[float]) -> Callable[[int, float], bool]:
    return lambda row, radius: radius <= thresholds[row]


def images(count: int, inputs: int = 4) -> Tensor:
    return torch.zeros(count, 1, inputs)


def certify(proves: Callable[[int, float], bool], count: int, **options: Any) -> tuple[Certificates, list[list[float]]]:
    steps = {"bisection_steps": options.pop("steps")} if "steps" in options else {}
    oracle = Oracle(proves=proves, **{key: options.pop(key) for key in ("good", "bad") if key in options}, **steps)
    x = images(count, options.pop("inputs", 4))
    return oracle.certify(Sure(), x, options.pop("threat", L2), **options), oracle.asked


GRID = st.lists(st.floats(2.0**-20, 1e6), min_size=1, max_size=20, unique=True).map(sorted)


def float32_at_least(value: float) -> float:
    nearest = np.float32(value)
    return float(nearest if float(nearest) >= value else np.nextafter(nearest, np.float32(np.inf)))


@dataclass(frozen=True, kw_only=True)
class Twelve(DecisionCertifier):
    """What an outsider writes: margins of a linear model over a linf ball, all of whose weights are 1 or 0."""

    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.LINF})

    def margins(
        self, classifier: nn.Module, x: Tensor, prediction: Tensor, radius: Tensor, threat: ThreatModel, rng: Any
    ) -> Tensor:
        scores = classifier(x)
        return scores.gather(1, prediction[:, None]) - scores - radius[:, None] * x[0].numel()


def test_outsiders_certifier_of_a_dozen_lines() -> None:
    class Sum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            total = x.flatten(1).sum(1)
            return torch.stack([total, torch.ones_like(total)], 1)

    x = torch.tensor([[[0.5, 0.75]], [[0.125, 0.125]], [[1.0, 1.0]]])
    # |1 - sum| = 0.25, 0.75, 1; a radius r moves the sum by 2 r: certified below 0.125, 0.375, 0.5, ties refused.
    found = Twelve().certify(Sum(), x, ThreatModel("linf"), radii=[0.1, 0.125, 0.3, 0.4, 0.5])
    assert found.radius.tolist() == [0.1, 0.3, 0.4]
    assert found.prediction.tolist() == [0, 1, 0]
    bisected = Twelve().certify(Sum(), x, ThreatModel("linf"))
    assert bisected.radius.tolist() == pytest.approx([0.125, 0.375, 0.5], rel=1e-5)
    assert bool((bisected.radius < torch.tensor([0.125, 0.375, 0.5])).all())


# A grid of radii.


@given(grid=GRID, thresholds=st.lists(st.floats(0, 2e6), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_grid_search_finds_the_largest_radius_below_the_threshold(grid: list[float], thresholds: list[float]) -> None:
    found, asked = certify(below(thresholds), len(thresholds), radii=grid)
    for row, threshold in enumerate(thresholds):
        # A grid radius is tried as the float32 number at or above it.
        proved = [radius for radius in grid if float32_at_least(radius) <= threshold]
        assert float(found.radius[row]) == (max(proved) if proved else 0.0)
        assert int(found.verdict[row]) == (Verdict.CERTIFIED if proved else Verdict.UNKNOWN)
    assert len(asked) <= math.ceil(math.log2(len(grid) + 1))


@given(grid=GRID, data=st.data())
@settings(max_examples=60, deadline=None)
def test_only_radii_that_were_proved_are_reported(grid: list[float], data: st.DataObject) -> None:
    # An oracle without rhyme or reason: larger radii may be proved where smaller ones are not.
    proofs = data.draw(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=3))
    proved: list[set[float]] = [set() for _ in proofs]

    def proves(row: int, radius: float) -> bool:
        answer = proofs[row][int.from_bytes(np.float64(radius).tobytes(), "little") % 6]
        if answer:
            proved[row].add(radius)
        return answer

    found, _ = certify(proves, len(proofs), radii=grid)
    for row in range(len(proofs)):
        if float(found.radius[row]):
            assert float(found.radius[row]) in grid
            assert float32_at_least(float(found.radius[row])) in proved[row]
    for tried in proved:
        tried.clear()
    found, _ = certify(proves, len(proofs), steps=8)
    for row in range(len(proofs)):
        assert float(found.radius[row]) in proved[row] | {0.0}


@given(grid=GRID)
@settings(max_examples=60, deadline=None)
def test_radii_tried_are_float32_numbers_at_or_just_above_the_grid(grid: list[float]) -> None:
    found, asked = certify(lambda row, radius: True, 1, radii=grid)
    assert float(found.radius[0]) == grid[-1], "reported as asked"
    for tried in {radius for call in asked for radius in call if radius > 0}:
        assert float(np.float32(tried)) == tried
        assert any(tried == float32_at_least(radius) for radius in grid)


@pytest.mark.parametrize("default", [torch.float32, torch.float64])
@pytest.mark.parametrize("radius", [8 / 255, 0.1, 1 / 3, 1e-46, 0.25])
def test_radius_is_rounded_up_to_a_float32_number_whatever_the_default_dtype(
    radius: float, default: torch.dtype
) -> None:
    torch.set_default_dtype(default)
    try:
        _, asked = certify(lambda row, radius: True, 1, radii=[radius])
    finally:
        torch.set_default_dtype(torch.float32)
    assert asked == [[float32_at_least(radius)]]
    assert asked[0][0] >= radius


def test_radius_beyond_float32_is_not_certified() -> None:
    found, _ = certify(lambda row, radius: math.isfinite(radius), 1, radii=[1.0, 1e39])
    assert found.radius.tolist() == [1.0]


def test_zero_is_not_searched_for() -> None:
    found, asked = certify(lambda row, radius: True, 2, radii=[0.0])
    assert asked == []
    assert found.verdict.tolist() == [Verdict.UNKNOWN] * 2
    found, asked = certify(lambda row, radius: True, 2, radii=[0.0, 1.0])
    assert found.radius.tolist() == [1.0, 1.0]
    assert asked == [[1.0, 1.0]]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 31, 100])
def test_grid_search_asks_about_log2_of_the_grid(size: int) -> None:
    grid = [0.5 + step for step in range(size)]
    for threshold in (0.0, 0.6, size / 2, 2.0 * size):
        found, asked = certify(below([threshold, threshold]), 2, radii=grid)
        assert math.floor(math.log2(size + 1)) <= len(asked) <= math.ceil(math.log2(size + 1))
        assert found.cost.bound_passes.tolist() == [len(asked)] * 2
        assert found.cost.forward_passes.tolist() == [1, 1]


def test_images_that_are_done_are_not_asked_for_nor_charged() -> None:
    grid = [1.0, 2.0]
    found, asked = certify(below([0.5, 5.0]), 2, radii=grid)
    assert found.radius.tolist() == [0.0, 2.0]
    assert sum(radius > 0 for call in asked for radius in call) == int(found.cost.bound_passes.sum())


# Bisection.


@given(thresholds=st.lists(st.floats(0, 3), min_size=1, max_size=4), steps=st.integers(1, 24), inputs=st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_bisection_ends_within_its_tolerance_below_the_threshold(
    thresholds: list[float], steps: int, inputs: int
) -> None:
    found, asked = certify(below(thresholds), len(thresholds), steps=steps, inputs=inputs)
    limit = math.sqrt(inputs)  # the diagonal of [0, 1]^inputs
    assert len(asked) == steps
    assert found.cost.bound_passes.tolist() == [steps] * len(thresholds)
    for row, threshold in enumerate(thresholds):
        truth, radius = min(threshold, limit), float(found.radius[row])
        assert radius <= truth
        assert truth - radius <= limit / 2**steps + truth * 2**-23
    for tried in {radius for call in asked for radius in call}:
        assert float(np.float32(tried)) == tried
        assert 0 < tried <= limit * (1 + 2**-23)


@pytest.mark.parametrize(("norm", "limit"), [("l1", 4.0), ("l2", 2.0), ("linf", 1.0)])
def test_bisection_starts_at_the_diameter_of_the_box(norm: str, limit: float) -> None:
    found, asked = certify(lambda row, radius: True, 1, threat=ThreatModel(norm))
    assert asked[0] == [limit / 2]
    assert limit * (1 - 2**-20) < float(found.radius[0]) <= limit


def test_bisection_of_many_steps_comes_to_rest() -> None:
    for threshold in (0.0, 0.1, 5.0):
        found, _ = certify(below([threshold]), 1, steps=300)
        assert float(found.radius[0]) <= min(threshold, 2.0)
        assert float(found.radius[0]) >= min(threshold, 2.0) * (1 - 2**-22)


def test_searches_are_functions_of_their_own() -> None:
    def decide(radius: Tensor) -> Tensor:
        return (radius > 0) & (radius <= torch.tensor([0.3, 0.7]))

    assert search_grid(decide, 2, [0.25, 0.5, 0.75]).tolist() == [0.25, 0.5]
    assert search_grid(decide, 2, []).tolist() == [0.0, 0.0]
    assert search_by_bisection(decide, 2, 1.0, 20).tolist() == pytest.approx([0.3, 0.7], abs=2e-6)


# The bounds.


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 0.0, -0.0, -1e-300, -1.0])
@pytest.mark.parametrize("radii", [[0.5, 1.0], None])
def test_bound_that_is_not_finite_and_positive_proves_nothing(bad: float, radii: list[float] | None) -> None:
    found, _ = certify(lambda row, radius: False, 2, bad=bad, radii=radii)
    assert found.verdict.tolist() == [Verdict.UNKNOWN] * 2
    assert found.radius.tolist() == [0.0] * 2
    assert found.prediction.tolist() == [1, 1]


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, -1.0])
def test_one_bad_bound_among_good_ones_is_enough(bad: float) -> None:
    bounds = torch.tensor([[9.0, 1.0, 1.0], [bad, 1.0, 1.0], [1.0, 1.0, bad], [1.0, bad, 1.0]])
    prediction = torch.tensor([0, 0, 0, 0])
    assert positive_margins(bounds, prediction, 3).tolist() == [True, True, False, False]
    assert positive_margins(bounds, torch.tensor([1, 1, 1, 1]), 3).tolist() == [True, False, False, True]


def test_least_positive_bound_proves() -> None:
    assert positive_margins(torch.tensor([[0.0, 1e-45]]), torch.tensor([0]), 2).tolist() == [True]


@pytest.mark.parametrize("shape", [(2, 2), (3, 3), (2,), (2, 3, 1), (1, 3), (2, 1)])
def test_bounds_of_a_wrong_shape_are_the_authors_mistake(shape: tuple[int, ...]) -> None:
    message = f"margins must return bounds of shape [2, 3], one an image and class, got {list(shape)}."
    with pytest.raises(ValueError, match=re.escape(message)):
        positive_margins(torch.ones(shape), torch.tensor([0, 1]), 3)


def test_bounds_that_are_one_short_are_not_broadcast() -> None:
    class Short(Oracle):
        def margins(self, *args: Any) -> Tensor:
            return torch.ones(1, 3)

    with pytest.raises(ValueError, match=r"margins must return bounds of shape \[2, 3\], .* got \[1, 3\]"):
        Short().certify(Sure(), images(2), L2, radii=[1.0])


@pytest.mark.parametrize(
    ("error", "verdict"), [(Unsupported("why"), Verdict.UNSUPPORTED), (TimeoutError("why"), Verdict.TIMEOUT)]
)
def test_answers_that_are_raised(error: Exception, verdict: Verdict) -> None:
    def proves(row: int, radius: float) -> bool:
        raise error

    found, _ = certify(proves, 2, radii=[1.0])
    assert found.verdict.tolist() == [verdict] * 2
    assert found.reason == ("why", "why")


def test_image_that_the_classifier_is_not_sure_of_is_never_certified() -> None:
    class Tied(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([[0.0, 2.0, 2.0], [0.0, 2.0, 1.0], [0.0, 2.0, math.nan]])

    @dataclass(frozen=True, kw_only=True)
    class Always(DecisionCertifier):
        norms: ClassVar[frozenset[Norm]] = frozenset(Norm)

        def margins(self, classifier: nn.Module, x: Tensor, *args: Any) -> Tensor:
            return torch.ones(len(x), 3)

    found = Always().certify(Tied(), images(3), L2, radii=[1.0])
    assert found.verdict.tolist() == [Verdict.UNKNOWN, Verdict.CERTIFIED, Verdict.UNKNOWN]
    assert found.prediction.tolist() == [-1, 1, -1]


def test_author_gets_the_images_and_the_key() -> None:
    keys: list[KeyedRandomness] = []

    class Keyed(Oracle):
        def margins(self, classifier: nn.Module, x: Tensor, *args: Any) -> Tensor:
            keys.append(args[-1])
            return torch.ones(len(x), 3)

    Keyed().certify(Sure(), images(2), L2, radii=[1.0], seed=4, image_ids=[8, 9])
    assert keys == [KeyedRandomness(4, (8, 9))]


def test_radii_belong_to_the_key_of_a_decision_certifier() -> None:
    assert Oracle.uses_radii


def test_probabilistic_decisions_are_refused() -> None:
    with pytest.raises(
        TypeError, match=r"Dice is a DecisionCertifier with a probabilistic guarantee; .*RadiusCertifie"
    ):

        class Dice(Oracle):
            guarantee: ClassVar[Guarantee] = Guarantee.PROBABILISTIC
