"""A run leaves one sound row for every image and entry, and computes none of them twice."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from click.testing import Result

from bench import certification, runner
from bench.datasets import DataError, Dataset, InMemorySplit
from bench.runner import Options, Outcome
from bench.store import StoreError
from certifiers import Findings, Guarantee, Unsupported
from ensembles import MaxMargin, Single, WeightedAverage, checkpoint
from leaderboards import read_run
from tests.bench.runs_under_test import ENTRIES, Make, blocks, only, rows_with_seconds, with_certifier

# ---- the main job


def test_a_run_leaves_one_sound_row_for_every_image_and_entry(
    finished: tuple[Path, Result], plan_of: Make, digits: Dataset
) -> None:
    plan = plan_of()
    stored = read_run(finished[0] / "runs" / "tiny" / "run.json")
    assert [entry.name for entry in stored.entries] == ENTRIES
    for entry, members in zip(stored.entries, (1, 3, 3), strict=True):
        rows = entry.rows
        assert entry.status == "complete"
        assert rows["image_id"].tolist() == plan.images.ids.tolist()
        assert rows["label"].tolist() == plan.images.labels.tolist()
        assert set(rows["verdict"]) <= {"CERTIFIED", "ABSTAINED"}
        assert (rows["forward_passes"] == members * 1050).all()
        assert (rows["evidence_n"] == 1000).all()
        assert (rows["seconds"] > 0).all()
        certified = rows["verdict"] == "CERTIFIED"
        assert certified.sum() >= 10  # a network that learned something
        assert (rows.loc[certified, "failure_probability"] == 0.01).all()  # alpha itself, not what float32 makes of it
        assert (rows.loc[~certified, ["radius", "failure_probability"]] == 0).all(axis=None)
        assert (rows.loc[certified, "reason"] == "").all()
        smoothing = plan.cells[0].certifier
        for _, row in rows[certified].iterrows():
            # Every radius follows from its counts.
            _, radius = smoothing.certificate_of_counts(row["evidence_n_A"])  # type: ignore[attr-defined]
            assert 0 < radius * (1 - 1e-15) <= row["radius"] < radius


def test_the_clean_prediction_is_the_ensemble_own_answer(finished: tuple[Path, Result], plan_of: Make) -> None:
    plan = plan_of()
    paths = [finished[0] / "ensembles" / f"{job.digest[:32]}.safetensors" for job in plan.cells[0].jobs]
    members = [checkpoint.load(path).members[0] for path in paths]
    with torch.no_grad():
        logits = torch.stack([member(plan.images.images(range(20))) for member in members])
    stored = read_run(finished[0] / "runs" / "tiny" / "run.json")
    for entry, aggregation in zip(stored.entries, (Single(), WeightedAverage(), MaxMargin()), strict=True):
        assert entry.rows["clean_prediction"].tolist() == aggregation.scores(logits).argmax(1).tolist()


def test_again_computes_nothing_and_touches_no_row(
    copied: Path, finished: tuple[Path, Result], plan_of: Make, reporter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = blocks(copied)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("computed")

    monkeypatch.setattr(certification, "_image", refuse)
    monkeypatch.setattr("bench.training.train", refuse)
    outcome = runner.run(plan_of(), Options(copied), reporter)
    assert (outcome.computed, outcome.stored) == (0, 60)
    assert blocks(copied) == before == blocks(finished[0])
    assert (reporter.tasks, reporter.warnings) == ([], [])
    assert outcome.statuses == dict.fromkeys(ENTRIES, "complete")


def test_entries_that_share_members_share_one_pass(run: Callable[..., Outcome], plan_of: Make, reporter: Any) -> None:
    run(only(plan_of(), 0, 1, 2, images=3), block_size=2)
    assert reporter.tasks == [(f"certify {', '.join(ENTRIES)}", 3)]
    assert reporter.steps == [2, 1]


def test_cells_of_one_key_are_computed_once(
    run: Callable[..., Outcome], plan_of: Make, edited: Callable[..., str], trained: Path
) -> None:
    # The same method under two labels that differ in what no key holds.
    text = edited(
        ("[certifiers.smoothing]", '[certifiers.slow]\nmethod = "smoothing"\nbatch_size = 50\nsigma = 0.25\nn0 = 50\n'
         "n = 1_000\nalpha = 0.01\n\n[certifiers.smoothing]"),
        ('["weighted-average", "max-margin"]\ncertifier = "smoothing"', '"single"\ncertifier = "slow"'),
    )  # fmt: skip
    outcome = run(only(plan_of(text), 0, 1, images=3))
    assert outcome.statuses == {"single": "complete", "three · single · slow": "complete"}
    assert outcome.computed == 3
    rows = rows_with_seconds(outcome)
    pd.testing.assert_frame_equal(rows["single"], rows["three · single · slow"])
    assert len(blocks(trained)) == 1
    assert run(only(plan_of(text), 0, 1, images=3)).computed == 0


def test_cells_of_one_key_have_one_answer(run: Callable[..., Outcome], plan_of: Make, scripted: Any) -> None:
    def never(*_: Any) -> None:
        raise Unsupported("not on a Tuesday")

    plan = only(with_certifier(plan_of(), scripted(never)()), 0, images=2)
    twice = dataclasses.replace(plan, cells=(plan.cells[0], dataclasses.replace(plan.cells[0], name="again")))
    outcome = run(twice)
    assert outcome.statuses == {"single": "unsupported", "again": "unsupported"}
    assert outcome.reasons == {"single": "not on a Tuesday", "again": "not on a Tuesday"}


def test_verdicts_of_images_are_kept_one_by_one(run: Callable[..., Outcome], plan_of: Make, scripted: Any) -> None:
    plan = only(plan_of(), 0, images=6)
    verdicts = dict(zip(plan.images.ids.tolist(), (0, 1, 2, 3, 5, 6), strict=True))

    def found(classifier: Any, x: Any, threat: Any, rng: Any) -> Findings:
        return Findings(
            radius=torch.ones(1, dtype=torch.float64),
            prediction=torch.tensor([4]),
            verdict=torch.tensor([verdicts[rng.image_ids[0]]]),
            failure_probability=0.05,
        )

    made = scripted(found, guarantee=Guarantee.PROBABILISTIC)
    outcome = run(with_certifier(plan, made()))
    rows = rows_with_seconds(outcome)["single"]
    # A positive radius with the verdict left open is a certificate; with any other verdict it is none.
    assert rows["verdict"].tolist() == ["CERTIFIED", "CERTIFIED", "ABSTAINED", "FALSIFIED", "TIMEOUT", "ERROR"]
    assert (rows["radius"] > 0).tolist() == [True, True, False, False, False, False]
    assert rows["prediction"].tolist() == [4, 4, -1, -1, -1, -1]
    assert outcome.statuses == {"single": "failed"}
    assert outcome.timeouts == 1
    assert outcome.reasons["single"] == "1 of 6 images failed: error"


# ---- data and store


def test_an_image_that_cannot_be_read_ends_the_run_and_keeps_what_is_stored(
    trained: Path, tmp_path: Path, tiny: str, monkeypatch: pytest.MonkeyPatch, certbench: Callable[..., Result]
) -> None:
    (tmp_path / "tiny.toml").write_text(tiny)
    read = InMemorySplit._images

    def damaged(self: InMemorySplit, positions: Any) -> torch.Tensor:
        if len(self) == 20 and positions[0] >= 10:
            raise DataError("The file x.jpg cannot be read.")
        return read(self, positions)

    with monkeypatch.context() as patch:
        patch.setattr(InMemorySplit, "_images", damaged)
        result = certbench("run", tmp_path / "tiny.toml", "--output", trained)
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.endswith("error: The file x.jpg cannot be read.\n")
    result = certbench("run", tmp_path / "tiny.toml", "--output", trained)
    assert "30 rows computed, 30 were stored." in result.stderr


def test_a_store_in_use_is_refused(copied: Path, plan_of: Make, reporter: Any) -> None:
    from bench.store import Store

    with Store(copied).locked(), pytest.raises(StoreError, match="Another certbench run is writing to"):
        runner.run(plan_of(), Options(copied), reporter)


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "", "cpu:0"])
def test_a_device_that_is_not_here_is_refused(device: str) -> None:
    with pytest.raises(ValueError, match=rf"^Device '{device}' is not here\. Available: cpu"):
        runner.check_device(device)
    runner.check_device("cpu")
