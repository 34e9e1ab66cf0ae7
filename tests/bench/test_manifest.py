"""What is written down beside the rows: the manifest, the descriptions of cells, and their provenance."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from bench import provenance, runner
from bench.keys import digest
from bench.runner import Options, Outcome
from ensembles import checkpoint
from leaderboards import read_rows, read_run
from tests.bench.runs_under_test import Make


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

    monkeypatch.setattr(provenance, "collect", lambda device, *_: {"time": "later", "device": device})
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
