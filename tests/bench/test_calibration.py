"""What a dry run expects of a run: time, reach, precision."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result

from bench import calibration
from bench.calibration import Estimate, estimates
from bench.dry_run import describe_plan
from bench.plan import Plan
from bench.runner import Options
from certifiers import Norm, ThreatModel
from certifiers.smoothing import AdaptiveSmoothing, EnsembleAfterSmoothing, PhasedSmoothing, Smoothing
from certifiers.smoothing.confidence import clopper_pearson_lower
from leaderboards.metrics import binomial_interval
from tests.bench.test_exit_codes import certify_with


def names_of(plan: Plan) -> list[str]:
    return [cell.name for cell in plan.cells]


def test_time_is_that_of_an_image_times_the_images_and_a_pass_is_counted_once(
    plan_of: Callable[..., Plan], tmp_path: Path
) -> None:
    plan = plan_of()

    def measure(names: Any) -> dict[str, Estimate]:
        return {name: Estimate(3.0, 2 if "three" in name else 1) for name in names}

    lines = describe_plan(plan, Options(tmp_path), measure)
    single, average, largest = (line for line in lines if "to certify" in line)
    assert single.endswith("; about 1.0 min (3 s an image)")
    assert average.endswith("; about 1.0 min (3 s an image, in a pass with 1 other)")
    assert largest.endswith("in a pass with 1 other)")
    assert "certifying takes about 2.0 min, if cells are done one after the other" in lines


def test_stored_cells_are_not_measured(finished: tuple[Path, Any], plan_of: Callable[..., Plan]) -> None:
    asked: list[Any] = []

    def measure(names: Any) -> dict[str, Estimate]:
        asked.append(set(names))
        return {}

    describe_plan(plan_of(), Options(finished[0]), measure)
    assert asked == [set()]


def test_what_is_measured_is_a_rehearsal_scaled_up_once_an_architecture(
    plan_of: Callable[..., Plan], edited: Any, scripted: Any, tmp_path: Path
) -> None:
    seen: list[tuple[int, ...]] = []

    def slow(_classifier: Any, x: Any, *_: Any) -> Any:
        seen.append(tuple(x.shape))
        time.sleep(0.05)
        return torch.zeros(len(x), dtype=torch.float64)

    made = scripted(slow, "slow")
    made.rehearsal = lambda self: (self, 40.0)
    plan = plan_of(edited(*certify_with("slow")))
    found = estimates(plan, Options(tmp_path / "none"), names_of(plan))
    assert seen == [(1, 1, 8, 8)] * 2  # once to set up, once measured
    seconds = found["single"].seconds
    assert seconds is not None
    assert 40 * 0.05 <= seconds < 40 * 5
    assert found["single"].shared == 1
    assert found["three · max-margin · smoothing"].shared == 2
    assert not (tmp_path / "none").exists()


def test_a_method_that_fails_or_comes_too_late_is_not_measured(
    plan_of: Callable[..., Plan], edited: Any, scripted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("no")

    made = scripted(broken, "slow")
    made.rehearsal = broken
    plan = plan_of(edited(*certify_with("slow")))
    assert estimates(plan, Options(tmp_path), ["single"]) == {"single": Estimate(None, 1)}
    monkeypatch.setattr(calibration, "MOST_SECONDS", -1.0)
    assert {own.seconds for own in estimates(plan, Options(tmp_path), names_of(plan)).values()} == {None}
    lines = describe_plan(plan, Options(tmp_path), lambda names: dict.fromkeys(names, Estimate(None, 1)))
    assert sum(line.endswith("; time not measured") for line in lines) == 3
    assert not any("certifying takes" in line for line in lines)


def test_a_rehearsal_of_smoothing_is_of_fewer_samples_and_its_time_grows_with_them() -> None:
    whole = Smoothing(sigma=0.5, n=100_000)
    shorter, times = whole.rehearsal()
    assert shorter.sigma == 0.5
    assert shorter.n < 10_000
    assert times == (100_100) / (shorter.n + shorter.n0)
    short = Smoothing(sigma=0.5, n=1_000)
    assert short.rehearsal() == (short, 1.0)


@pytest.mark.parametrize("norm", list(Norm), ids=str)
def test_the_largest_radius_is_that_of_unanimous_votes(norm: Norm) -> None:
    certifier = Smoothing(sigma=0.5, n=1_000, alpha=0.01)
    limit = certifier.largest_radius(ThreatModel(norm), 16)
    p = torch.tensor(0.01 ** (1 / 1000), dtype=torch.float64)
    exact = 0.5 * float(torch.special.ndtri(p)) / (4 if norm is Norm.LINF else 1)
    assert limit <= exact
    assert math.isclose(limit, exact, rel_tol=1e-9)
    assert clopper_pearson_lower(1000, 1000, 0.01) <= float(p)


def test_radii_beyond_reach_and_the_width_of_intervals_are_told(plan_of: Callable[..., Plan], edited: Any) -> None:
    text = edited(('radii = [0, 0.25, "1/2"]', 'radii = [0, 0.25, 2, "5/2"]'))
    lines = describe_plan(plan_of(text), Options(Path("none")))
    (reach,) = (line for line in lines if "smoothing: radii up to" in line)
    assert reach.endswith("in l2; 2, 5/2 beyond: nothing can be certified there")
    low, high = binomial_interval(10, 20)
    assert (
        lines[-1] == f"95% intervals of certified accuracies over 20 images: up to {100 * (high - low):.1f} points wide"
    )


def test_the_command_measures(
    finished: tuple[Path, Result], tmp_path: Path, tiny: str, certbench: Callable[..., Result]
) -> None:
    (tmp_path / "tiny.toml").write_text(tiny)
    result = certbench("run", tmp_path / "tiny.toml", "--output", tmp_path / "none", "--dry-run")
    assert result.exit_code == 0
    assert result.stdout.count(" s an image") == 3
    assert "certifying takes about" in result.stdout
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("norm", [Norm.L2, Norm.LINF], ids=str)
@pytest.mark.parametrize("make", [AdaptiveSmoothing, PhasedSmoothing, EnsembleAfterSmoothing])
def test_no_smoothing_reaches_farther_than_fixed_samples_with_all_of_alpha(make: Any, norm: Norm) -> None:
    threat, options = ThreatModel(norm), {"sigma": 0.5, "n": 10_000}
    limit = make(**options).largest_radius(threat, 16)
    assert 0 < limit <= Smoothing(**options).largest_radius(threat, 16)
    rehearsed, times = make(**options).rehearsal()
    assert times == 10_100 / (rehearsed.n + rehearsed.n0)
