"""What goes wrong is a row with its reason, never a certificate, and harms no other entry or image."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result

from bench import runner
from bench.plan import Plan
from bench.runner import Options, Outcome
from bench.store import write_file
from certifiers import ClassifierChangedError, create
from ensembles import MaxMargin, checkpoint
from leaderboards import read_run
from tests.bench.runs_under_test import (
    ENTRIES,
    Make,
    assert_equal,
    only,
    rows_with_seconds,
    rows_without_seconds,
    with_certifier,
)


def make_members_return_nan(plan: Plan, folder: Path) -> None:
    """Weights that are NaN, in checkpoints whose digests are right: a training gone wrong, not a damaged file."""
    for job in plan.jobs():
        path = folder / "ensembles" / f"{job.digest[:32]}.safetensors"
        stored = checkpoint.load(path)
        for member in stored.members:
            for parameter in member.parameters():
                parameter.data.fill_(torch.nan)
        write_file(path, checkpoint.serialize(stored.members, stored.header))  # type: ignore[arg-type]


def test_a_model_that_returns_nan_is_an_error_with_the_reason_and_never_a_certificate(
    plan_of: Make, trained: Path, tmp_path: Path, tiny: str, certbench: Callable[..., Result]
) -> None:
    make_members_return_nan(plan_of(), trained)
    (tmp_path / "tiny.toml").write_text(tiny)
    for _ in range(2):  # a failure is not stored, so the second time is like the first
        result = certbench("run", tmp_path / "tiny.toml", "--output", trained)
        assert result.exit_code == 3
        assert "60 rows computed, 0 were stored." in result.stderr
        reason = "the classifier returned NaN or infinity on 1050 of 1050 noisy inputs"
        for name in ENTRIES:
            assert f"warning: {name}: failed: 20 of 20 images failed: {reason}" in result.stderr
        stored = read_run(trained / "runs" / "tiny" / "run.json")
        for entry in stored.entries:
            assert entry.status == "failed"
            assert (entry.rows["verdict"] == "ERROR").all()
            assert (entry.rows["reason"] == reason).all()
            assert (entry.rows[["radius", "failure_probability"]] == 0).all(axis=None)
            assert (entry.rows[["prediction", "clean_prediction"]] == -1).all(axis=None)
        assert not list(trained.glob("cells/*/cell.json"))
        assert not list(trained.glob("cells/*/rows-*"))
        assert "three · max-margin · smoothing (failed)" in result.stdout


def test_a_model_that_returns_nan_is_an_error_for_deterministic_methods_too(
    plan_of: Make, edited: Callable[..., str], tmp_path: Path, reporter: Any
) -> None:
    text = edited(("hidden = [16]", "hidden = []"), ("epochs = 3", "epochs = 1"))
    plan = only(with_certifier(plan_of(text), create("closed-form")), 0, images=3)
    sound = runner.run(plan, Options(tmp_path), reporter)
    assert set(rows_with_seconds(sound)["single"]["verdict"]) == {"CERTIFIED"}
    make_members_return_nan(plan, tmp_path)
    outcome = runner.run(plan, Options(tmp_path), reporter)
    assert outcome.statuses == {"single": "failed"}
    rows = rows_with_seconds(outcome)["single"]
    assert (rows["verdict"] == "ERROR").all()
    assert (rows["reason"] == "the classifier's scores are tied, NaN or infinite").all()


@pytest.mark.parametrize("radius", [np.nan, np.inf, -1.0, 0.0])
def test_a_radius_that_is_not_one_is_no_certificate(
    radius: float, run: Callable[..., Outcome], plan_of: Make, scripted: Any
) -> None:
    made = scripted(lambda classifier, x, threat, rng: torch.full((len(x),), radius))
    rows = rows_with_seconds(run(only(with_certifier(plan_of(), made()), 0, images=2)))["single"]
    assert (rows["verdict"] == "UNKNOWN").all()
    assert (rows["radius"] == 0).all()
    assert (rows["reason"] != "").all()


def test_one_entry_that_raises_does_not_harm_the_others(
    run: Callable[..., Outcome], plan_of: Make, scripted: Any, reporter: Any, trained: Path
) -> None:
    def fragile(classifier: Any, x: Any, threat: Any, rng: Any) -> torch.Tensor:
        if isinstance(classifier.aggregation, MaxMargin):
            raise RuntimeError("cannot do [bold]max-margin[/]")
        return classifier(x).amax(1).clamp(min=0.1)

    plan = only(with_certifier(plan_of(), scripted(fragile)()), 0, 1, 2, images=5)
    healthy = rows_without_seconds(run(only(plan, 0, 1)))
    shutil.rmtree(trained / "cells")
    outcome = run(plan, block_size=2)
    assert outcome.statuses == dict(zip(ENTRIES, ("complete", "complete", "failed"), strict=True))
    found = rows_without_seconds(outcome)
    broken = found.pop(ENTRIES[2])
    assert_equal(found, healthy)
    assert (broken["verdict"] == "ERROR").all()
    assert (broken["reason"] == "RuntimeError: cannot do [bold]max-margin[/]").all()
    assert broken["label"].tolist() == plan.images.labels.tolist()
    assert outcome.reasons[ENTRIES[2]] == "5 of 5 images failed: RuntimeError: cannot do [bold]max-margin[/]"
    # The traceback once, the reason once; not for each block.
    assert sum("Traceback" in warning for warning in reporter.warnings) == 1
    assert reporter.warnings.count(f"{ENTRIES[2]}: RuntimeError: cannot do [bold]max-margin[/]") == 1
    assert (outcome.failed, outcome.measured) == ([ENTRIES[2]], ENTRIES[:2])


def test_a_method_that_writes_past_every_guard_stores_nothing(
    run: Callable[..., Outcome], plan_of: Make, scripted: Any, trained: Path
) -> None:
    """Writes to `.data` leave no mark; members are shared, so that every later row would be of other weights."""

    def folding(classifier: Any, x: Any, threat: Any, rng: Any) -> torch.Tensor:
        next(classifier.parameters()).data.mul_(2)
        return torch.zeros(len(x))

    plan = only(with_certifier(plan_of(), scripted(folding)()), 0, images=3)
    with pytest.raises(ClassifierChangedError, match="its networks are not as they were: a certifier of this pass"):
        run(plan, block_size=2)
    assert not list((trained / "cells").rglob("*.parquet"))


def test_images_that_failed_are_computed_again_and_only_those(
    run: Callable[..., Outcome], plan_of: Make, scripted: Any, trained: Path
) -> None:
    plan = only(plan_of(), 0, images=6)
    bad = int(plan.images.ids[3])
    broken = [True]

    def moody(classifier: Any, x: Any, threat: Any, rng: Any) -> torch.Tensor:
        if broken[0] and bad in rng.image_ids:
            raise MemoryError("too large")
        return torch.ones(len(x))

    plan = with_certifier(plan, scripted(moody)())
    outcome = run(plan, block_size=2)
    assert outcome.statuses == {"single": "failed"}
    assert outcome.reasons["single"] == "1 of 6 images failed: MemoryError: too large"
    assert rows_with_seconds(outcome)["single"]["image_id"].tolist() == plan.images.ids.tolist()
    broken[0] = False
    outcome = run(plan, block_size=2)
    assert (outcome.computed, outcome.stored) == (1, 5)
    assert outcome.statuses == {"single": "complete"}
    assert not list(trained.glob("cells/*/errors-*"))
    assert rows_with_seconds(outcome)["single"]["image_id"].tolist() == plan.images.ids.tolist()
