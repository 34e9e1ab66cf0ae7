import dataclasses
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import Result

from bench import certification, provenance, runner
from bench.datasets import DataError, Dataset, InMemorySplit
from bench.keys import digest
from bench.plan import Plan
from bench.runner import Options, Outcome
from bench.store import StoreError, write_file
from certifiers import Findings, Guarantee, Norm, RadiusCertifier, ThreatModel, Unsupported, create
from certifiers.smoothing.noise import CHUNK, GaussianNoise
from ensembles import MaxMargin, Single, WeightedAverage, checkpoint
from ensembles.checkpoint import CheckpointError
from leaderboards import read_rows, read_run

Make = Callable[..., Plan]
ENTRIES = ["single", "three · weighted-average · smoothing", "three · max-margin · smoothing"]


@dataclass(frozen=True, kw_only=True)
class Scripted(RadiusCertifier):
    """A certifier that does what a test tells it to."""

    norms: ClassVar[frozenset[Norm]] = frozenset(Norm)
    script: ClassVar[Callable[..., Any]]

    def radii(self, classifier: Any, x: Any, threat: Any, rng: Any) -> Any:
        return type(self).script(classifier, x, threat, rng)


@pytest.fixture
def scripted(offered: Callable[..., None]) -> Callable[..., type[Scripted]]:
    def make(script: Callable[..., Any], name: str = "scripted", **attributes: Any) -> type[Scripted]:
        made = type("Made", (Scripted,), {"script": staticmethod(script), **attributes})
        offered(name, made)
        return made

    return make


@pytest.fixture
def trained(copied: Path) -> Path:
    """A store with the three members and nothing else."""
    for folder in ("cells", "runs", "boards"):
        shutil.rmtree(copied / folder)
    return copied


@pytest.fixture
def run(trained: Path, reporter: Any) -> Callable[..., Outcome]:
    def execute(plan: Plan, folder: Path = trained, **options: Any) -> Outcome:
        return runner.run(plan, Options(folder, **options), reporter)

    return execute


def with_certifier(plan: Plan, certifier: Any) -> Plan:
    return dataclasses.replace(plan, cells=tuple(dataclasses.replace(cell, certifier=certifier) for cell in plan.cells))


def only(plan: Plan, *numbers: int, images: int | None = None) -> Plan:
    return dataclasses.replace(
        plan,
        cells=tuple(plan.cells[number] for number in numbers),
        images=plan.images if images is None else plan.images.spread(images),
    )


def rows_with_seconds(outcome: Outcome) -> dict[str, pd.DataFrame]:
    return {entry.name: entry.rows for entry in read_run(outcome.manifest).entries}


def rows_without_seconds(outcome: Outcome) -> dict[str, pd.DataFrame]:
    return {name: rows.drop(columns="seconds", errors="ignore") for name, rows in rows_with_seconds(outcome).items()}


def assert_equal(found: dict[str, pd.DataFrame], expected: dict[str, pd.DataFrame]) -> None:
    assert list(found) == list(expected)
    for name, rows in found.items():
        pd.testing.assert_frame_equal(rows, expected[name], check_exact=True, obj=name)


def blocks(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob("cells/*/*.parquet"))}


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


def test_an_entry_alone_has_the_rows_it_has_among_others(
    run: Callable[..., Outcome], plan_of: Make, finished: tuple[Path, Result], rows_in: Any
) -> None:
    whole = rows_in(finished[0])
    for number, name in enumerate(ENTRIES):
        found = rows_without_seconds(run(only(plan_of(), number, images=6)))
        expected = whole[name][whole[name]["image_id"].isin(found[name]["image_id"])].reset_index(drop=True)
        assert_equal(found, {name: expected})


@pytest.mark.parametrize("size", [1, 5, 50])
def test_the_size_of_blocks_changes_nothing(
    size: int, run: Callable[..., Outcome], plan_of: Make, finished: tuple[Path, Result], rows_in: Any, trained: Path
) -> None:
    outcome = run(plan_of(), block_size=size)
    assert (outcome.computed, outcome.stored) == (60, 0)
    assert len(blocks(trained)) == 3 * -(-20 // size)
    assert_equal(rows_without_seconds(outcome), rows_in(finished[0]))


def test_methods_that_compute_on_batches_have_the_same_rows_in_all_blocks(
    plan_of: Make, edited: Callable[..., str], tmp_path: Path, reporter: Any
) -> None:
    # Matrix products of a batch differ in their last bits from those of one image.
    text = edited(("hidden = [16]", "hidden = []"), ("epochs = 3", "epochs = 1"), ("every = 18", "every = 9"))
    plan = only(with_certifier(plan_of(text), create("closed-form")), 0)
    outcome = runner.run(plan, Options(tmp_path, block_size=1), reporter)
    expected = rows_without_seconds(outcome)
    # As after a kill, or damage: what is left to do starts and ends anywhere.
    for number, path in enumerate(sorted(tmp_path.glob("cells/*/rows-*"))):
        if number % 3:
            path.unlink()
    assert_equal(rows_without_seconds(runner.run(plan, Options(tmp_path, block_size=7), reporter)), expected)
    shutil.rmtree(tmp_path / "cells")
    assert_equal(rows_without_seconds(runner.run(plan, Options(tmp_path, block_size=50), reporter)), expected)


def test_the_number_of_an_image_changes_nothing(
    run: Callable[..., Outcome], plan_of: Make, finished: tuple[Path, Result], rows_in: Any
) -> None:
    few = rows_without_seconds(run(only(plan_of(), 0, 1, 2, images=7)))
    for name, rows in rows_in(finished[0]).items():
        expected = rows[rows["image_id"].isin(few[name]["image_id"])].reset_index(drop=True)
        pd.testing.assert_frame_equal(few[name], expected, check_exact=True)


@pytest.mark.parametrize("size", [64, 1100])
def test_another_batch_size_has_the_same_key_and_noise_and_flips_few_votes(
    size: int, run: Callable[..., Outcome], plan_of: Make, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise: list[dict[Any, str]] = []
    fill = GaussianNoise.fill

    def watched(self: GaussianNoise, buffer: torch.Tensor, row: int, stream: int, first_chunk: int) -> None:
        fill(self, buffer, row, stream, first_chunk)
        for number, chunk in enumerate(torch.split(buffer, CHUNK)):
            key = (self.rng.image_ids[row], stream, first_chunk + number)
            noise[-1][key] = hashlib.sha256(chunk.numpy().tobytes()).hexdigest()

    monkeypatch.setattr(GaussianNoise, "fill", watched)
    plan = only(plan_of(), 0, 1, 2, images=4)
    found = []
    for options in ({}, {"batch_size": size}):
        noise.append({})
        found.append(rows_without_seconds(run(plan, **options)))
        keys = sorted(path.name for path in (trained / "cells").iterdir())
        assert len(keys) == 3
        shutil.rmtree(trained / "cells")
    assert noise[0] == noise[1]
    assert len(noise[0]) == 4 * 3  # one chunk to select, two to estimate
    assert len(set(noise[0].values())) == 12
    flipped = 0
    for name in ENTRIES:
        ours, theirs = found[0][name], found[1][name]
        flipped += int((ours["evidence_n_A"] - theirs["evidence_n_A"]).abs().sum())
        flipped += int((ours["evidence_n0_top"] - theirs["evidence_n0_top"]).abs().sum())
        pd.testing.assert_frame_equal(
            ours.drop(columns=["radius", "evidence_n_A", "evidence_n0_top", "evidence_p_A", "reason"]),
            theirs.drop(columns=["radius", "evidence_n_A", "evidence_n0_top", "evidence_p_A", "reason"]),
        )
    assert flipped <= 3  # of 12600 votes


def test_a_batch_size_that_is_not_a_matter_of_execution_is_left_alone(
    run: Callable[..., Outcome], plan_of: Make, offered: Callable[..., None]
) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Own(RadiusCertifier):
        norms: ClassVar[frozenset[Norm]] = frozenset(Norm)
        batch_size: int = 3

        def radii(self, classifier: Any, x: Any, threat: Any, rng: Any) -> Any:
            return torch.full((len(x),), float(self.batch_size))

    offered("own", Own)
    outcome = run(only(with_certifier(plan_of(), Own()), 0, images=2), batch_size=9)
    assert rows_with_seconds(outcome)["single"]["radius"].round(5).tolist() == [3.0, 3.0]


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


# ---- certifiers never see labels


def test_certificates_do_not_depend_on_labels(
    run: Callable[..., Outcome], plan_of: Make, finished: tuple[Path, Result], rows_in: Any
) -> None:
    plan = plan_of()
    images = plan.images
    assert isinstance(images, InMemorySplit)
    other = InMemorySplit(images.pixels, (images.labels + 1) % 10, images.ids, scale=images.scale)
    found = rows_without_seconds(run(dataclasses.replace(plan, images=other)))
    for name, rows in rows_in(finished[0]).items():
        assert ((rows["label"] + 1) % 10).tolist() == found[name]["label"].tolist()
        pd.testing.assert_frame_equal(rows.drop(columns="label"), found[name].drop(columns="label"), check_exact=True)


def test_a_certifier_is_given_images_norm_and_keyed_randomness_and_nothing_else(
    run: Callable[..., Outcome], plan_of: Make, scripted: Any
) -> None:
    given = []

    def spy(*words: Any) -> torch.Tensor:
        given.append(words)
        return torch.ones(len(words[1]))

    plan = only(plan_of(), 1, images=5)
    run(with_certifier(plan, scripted(spy)()), block_size=5)
    assert len(given) == 5
    for position, (_, x, threat, rng) in enumerate(given):
        assert torch.equal(x, plan.images.images([position]))
        assert threat == ThreatModel("l2")
        assert (sorted(vars(rng)), rng.image_ids) == (["image_ids", "seed"], (int(plan.images.ids[position]),))
    labels = plan.images.labels.tolist()
    kept = [value for module in given[0][0].modules() for value in vars(module).values()]
    assert not any(isinstance(value, list | tuple) and list(value) == labels for value in kept)
    assert not any(isinstance(value, torch.Tensor) and value.flatten().tolist() == labels for value in kept)


# ---- what goes wrong


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


@pytest.mark.parametrize(
    ("evidence", "text"),
    [
        ({"bounds": torch.zeros(1, 3)}, "ValueError: The evidence 'bounds' must be one real number or one string an "),
        ({"roots": torch.zeros(1, dtype=torch.complex64)}, "ValueError: The evidence 'roots' must be one real number"),
        ({"long": torch.zeros(2)}, "ValueError: Findings.evidence['long'] must have 1 entries, got 2."),
    ],
)
def test_evidence_that_cannot_be_stored_fails_the_entry_and_not_the_run(
    evidence: dict[str, Any], text: str, run: Callable[..., Outcome], plan_of: Make, scripted: Any
) -> None:
    found = Findings(radius=torch.ones(1), evidence=evidence)
    outcome = run(only(with_certifier(plan_of(), scripted(lambda *_: found)()), 0, images=2))
    assert outcome.statuses == {"single": "failed"}
    assert text in outcome.reasons["single"]


def test_evidence_is_stored_as_columns(run: Callable[..., Outcome], plan_of: Make, scripted: Any) -> None:
    def found(classifier: Any, x: Any, threat: Any, rng: Any) -> Findings:
        evidence = {"bound": torch.tensor([rng.image_ids[0] / 8]), "side": [f"left of {rng.image_ids[0]}"]}
        return Findings(radius=torch.ones(1), evidence=evidence)

    rows = rows_with_seconds(run(only(with_certifier(plan_of(), scripted(found)()), 0, images=2)))["single"]
    assert rows["evidence_bound"].tolist() == [image / 8 for image in rows["image_id"]]
    assert rows["evidence_side"].tolist() == [f"left of {image}" for image in rows["image_id"]]


def test_unsupported_is_an_answer_with_its_reason(
    run: Callable[..., Outcome], plan_of: Make, certbench: Callable[..., Result], trained: Path
) -> None:
    plan = plan_of()
    cells = (plan.cells[0], dataclasses.replace(plan.cells[1], certifier=create("closed-form")))
    outcome = run(dataclasses.replace(plan, cells=cells, images=plan.images.spread(4)))
    assert outcome.statuses == {"single": "complete", ENTRIES[1]: "unsupported"}
    reason = "the layer ReLU is not linear. Use smoothing, or a certifier for networks."
    assert reason in outcome.reasons[ENTRIES[1]]
    entry = read_run(outcome.manifest).entries[1]
    assert (entry.status, len(entry.rows)) == ("unsupported", 0)
    assert reason in entry.reason
    shown = json.loads(certbench("board", "tiny", "--output", trained, "--json").stdout)
    assert [(line["name"], line["status"], line["rank"]) for line in shown["entries"]] == [
        ("single", "complete", 1),
        (ENTRIES[1], "unsupported", None),
    ]
    assert reason in shown["entries"][1]["reason"]


def test_unsupported_by_one_of_a_group_leaves_the_others(
    run: Callable[..., Outcome], plan_of: Make, scripted: Any
) -> None:
    def picky(classifier: Any, x: Any, threat: Any, rng: Any) -> torch.Tensor:
        if isinstance(classifier.aggregation, WeightedAverage):
            raise Unsupported("not averages; use max-margin")
        return torch.ones(len(x))

    outcome = run(only(with_certifier(plan_of(), scripted(picky)()), 0, 1, 2, images=4), block_size=2)
    assert outcome.statuses == dict(zip(ENTRIES, ("complete", "unsupported", "complete"), strict=True))
    assert outcome.reasons[ENTRIES[1]] == "not averages; use max-margin"
    assert outcome.computed == 8
    assert not outcome.failed


@pytest.mark.parametrize("size", [1, 2, 50])
def test_an_image_that_is_not_supported_is_a_row_unless_it_is_the_first(
    size: int, run: Callable[..., Outcome], plan_of: Make, scripted: Any
) -> None:
    plan = only(plan_of(), 0, images=5)
    refused = plan.images.ids[[1, 2, 3]].tolist()

    def picky(classifier: Any, x: Any, threat: Any, rng: Any) -> torch.Tensor:
        if set(rng.image_ids) & set(refused):
            raise Unsupported("too dark")
        return torch.ones(len(x))

    outcome = run(with_certifier(plan, scripted(picky)()), block_size=size)
    assert outcome.statuses == {"single": "complete"}
    rows = rows_with_seconds(outcome)["single"]
    assert rows["verdict"].tolist() == ["CERTIFIED", *["UNSUPPORTED"] * 3, "CERTIFIED"]
    assert rows["reason"].tolist() == ["", *["too dark"] * 3, ""]
    refused[0] = int(plan.images.ids[0])
    outcome = run(with_certifier(plan, scripted(picky, "pickier")()), block_size=size)
    assert (outcome.statuses, outcome.reasons) == ({"single": "unsupported"}, {"single": "too dark"})
    assert outcome.measured == []


# ---- exit codes, through the command


def certify_with(name: str) -> list[tuple[str, str]]:
    """Changes of the tiny spec that certify its single member with another method."""
    return [
        ("[certifiers.smoothing]", f"[certifiers.{name}]\n\n[certifiers.smoothing]"),
        ('aggregation = "single"\ncertifier = "smoothing"', f'aggregation = "single"\ncertifier = "{name}"'),
    ]


def test_timeouts_are_exit_3_and_no_certificates(
    trained: Path, tmp_path: Path, edited: Any, scripted: Any, certbench: Callable[..., Result]
) -> None:
    def slow(*_: Any) -> None:
        raise TimeoutError("spent 3 s of 2 s")

    scripted(slow, "slow")
    (tmp_path / "tiny.toml").write_text(edited(*certify_with("slow"), ("every = 18", "every = 100")))
    result = certbench("run", tmp_path / "tiny.toml", "--output", trained)
    assert result.exit_code == 3
    entry = read_run(trained / "runs" / "tiny" / "run.json").entries[0]
    assert (entry.rows["verdict"] == "TIMEOUT").all()
    assert (entry.rows["reason"] == "spent 3 s of 2 s").all()
    assert (entry.rows["radius"] == 0).all()
    # A faster machine may do better: a timeout is shown, but the next run tries again.
    assert not [path for path in (trained / "cells" / entry.key[:32]).iterdir() if path.name.startswith("rows-")]
    again = certbench("run", tmp_path / "tiny.toml", "--output", trained)
    assert again.exit_code == 3
    assert f"{len(entry.rows)} rows computed, " in again.stderr


def test_an_error_of_one_entry_is_exit_3_and_the_others_are_on_the_board(
    trained: Path, tmp_path: Path, edited: Any, scripted: Any, certbench: Callable[..., Result]
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("no margin")

    scripted(broken, "broken")
    (tmp_path / "tiny.toml").write_text(edited(*certify_with("broken"), ("every = 18", "every = 100")))
    result = certbench("run", tmp_path / "tiny.toml", "--output", trained)
    assert result.exit_code == 3
    assert "warning: single: failed: 4 of 4 images failed: ZeroDivisionError: no margin" in result.stderr
    board = json.loads((trained / "boards" / "tiny" / "board.json").read_text())
    assert [(line["status"], line["errors"]) for line in board["entries"]] == [
        ("complete", 0),
        ("complete", 0),
        ("failed", 4),
    ]


def test_nothing_measured_is_exit_4(
    trained: Path, tmp_path: Path, edited: Any, scripted: Any, certbench: Callable[..., Result]
) -> None:
    def never(*_: Any) -> None:
        raise Unsupported("not on a Tuesday")

    scripted(never, "never")
    text = edited(*certify_with("never"))
    (tmp_path / "tiny.toml").write_text(text[: text.rindex("[[entries]]")])
    result = certbench("run", tmp_path / "tiny.toml", "--output", trained)
    assert result.exit_code == 4
    assert result.stderr.endswith("error: Nothing was measured: no entry of the spec could be.\n")
    assert "warning: single: unsupported: not on a Tuesday" in result.stderr


# ---- checkpoints


def test_a_checkpoint_with_altered_weights_is_refused(
    copied: Path, tmp_path: Path, tiny: str, certbench: Callable[..., Result]
) -> None:
    (tmp_path / "tiny.toml").write_text(tiny)
    path = sorted((copied / "ensembles").iterdir())[1]
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    before = blocks(copied)
    for words in ((), ("--dry-run",)):
        result = certbench("run", tmp_path / "tiny.toml", "--output", copied, *words)
        assert (result.exit_code, result.stdout) == (3, "")
        assert f"error: {path}: the weights have digest " in result.stderr
        assert "they were altered. Delete the file to train again." in result.stderr
    assert path.read_bytes() == bytes(content)
    assert blocks(copied) == before
    path.unlink()
    assert certbench("run", tmp_path / "tiny.toml", "--output", copied).exit_code == 0


def test_a_checkpoint_of_other_members_is_refused(copied: Path, plan_of: Make, reporter: Any) -> None:
    first, second, _ = sorted((copied / "ensembles").glob("*.safetensors"))
    shutil.copy(first, second)
    with pytest.raises(CheckpointError, match=r"holds other members than its name says\. Delete the file to train "):
        runner.run(plan_of(), Options(copied), reporter)


def test_other_weights_are_other_cells(
    copied: Path, plan_of: Make, reporter: Any, finished: tuple[Path, Result]
) -> None:
    # Trained again to other weights (as another processor might), nothing that was stored is taken for theirs.
    plan = only(plan_of(), 0, images=3)
    path = copied / "ensembles" / f"{plan.cells[0].jobs[0].digest[:32]}.safetensors"
    stored = checkpoint.load(path)
    next(stored.members[0].parameters()).data[0, 0] += 1
    write_file(path, checkpoint.serialize(stored.members, stored.header))  # type: ignore[arg-type]
    outcome = runner.run(plan, Options(copied), reporter)
    assert (outcome.computed, outcome.stored) == (3, 0)


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


# ---- what is written down


def test_the_manifest_and_the_cells_say_what_was_done(finished: tuple[Path, Result], plan_of: Make, tiny: str) -> None:
    plan, root = plan_of(), finished[0]
    manifest = json.loads((root / "runs" / "tiny" / "run.json").read_text())
    assert (root / "runs" / "tiny" / "spec.toml").read_text() == tiny == manifest["spec_text"]
    assert (manifest["schema"], manifest["name"], manifest["title"]) == (1, "tiny", "A tiny board")
    assert manifest["radii"] == ["0", "0.25", "1/2"]
    weights = [checkpoint.load(root / "ensembles" / f"{job.digest[:32]}.safetensors") for job in plan.cells[0].jobs]
    for entry, cell in zip(manifest["entries"], plan.cells, strict=True):
        key_fields = cell.key_fields([member.digest for member in weights], plan.spec, plan.images)
        assert entry["key"] == digest(key_fields)
        assert entry["folder"] == f"cells/{entry['key'][:32]}"
        assert entry["name"] == cell.name
        assert (entry["dataset"], entry["split"], entry["images"], entry["norm"]) == ("digits", "test", 20, "l2")
        assert entry["images_digest"] == plan.images.digest
        assert entry["image_ids"] == plan.images.ids.tolist()
        assert (entry["status"], entry["reason"], entry["schema"]) == ("complete", "", 1)
        assert (entry["certifier"], entry["guarantee"]) == ("smoothing", "probabilistic")
        assert entry["parameters"] == {"sigma": 0.25, "n0": 50, "n": 1000, "alpha": 0.01}
        assert entry["details"]["certifier"]["version"] == cell.certifier.version
        assert [job["seed"] for job in entry["details"]["training"]] == [job.recipe["seed"] for job in cell.jobs]
        stored = json.loads((root / entry["folder"] / "cell.json").read_text())
        assert stored["key"] == entry["key"] == digest(stored["key_fields"])
        assert stored["spec"] == tiny
        assert stored["provenance"] == entry["provenance"]
        assert len(read_rows(root / entry["folder"])) == 20
    assert Counter(path.parent.name for path in root.glob("cells/*/rows-*")) == dict.fromkeys(
        (entry["key"][:32] for entry in manifest["entries"]), 2
    )


def test_provenance_is_that_of_the_run_that_computed(
    copied: Path, plan_of: Make, reporter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def provenances(outcome: Outcome) -> list[Any]:
        return [dict(entry.provenance) for entry in read_run(outcome.manifest).entries]

    monkeypatch.setattr(provenance, "collect", lambda device: {"time": "later", "device": device})
    again = provenances(runner.run(plan_of(), Options(copied), reporter))
    assert all(found["time"] != "later" and "versions" in found for found in again)
    # One cell loses a block: the run that repairs it is the one that finished it.
    folder = read_run(copied / "runs" / "tiny" / "run.json").entries[1].key[:32]
    next((copied / "cells" / folder).glob("rows-*")).unlink()
    repaired = provenances(runner.run(plan_of(), Options(copied), reporter))
    assert [found["time"] == "later" for found in repaired] == [False, True, False]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"provenance": 3}', b"null"])
def test_a_damaged_description_of_a_cell_is_written_again(
    content: bytes, copied: Path, plan_of: Make, reporter: Any
) -> None:
    path = next(copied.glob("cells/*/cell.json"))
    path.write_bytes(content)
    outcome = runner.run(plan_of(), Options(copied), reporter)
    assert set(outcome.statuses.values()) == {"complete"}
    assert json.loads(path.read_text())["key"].startswith(path.parent.name)


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
