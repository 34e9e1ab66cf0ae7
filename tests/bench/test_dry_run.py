import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.dry_run import describe_plan
from bench.plan import Plan
from bench.runner import Options
from ensembles.checkpoint import CheckpointError

Make = Callable[..., Plan]
ENTRIES = ["single", "three · weighted-average · smoothing", "three · max-margin · smoothing"]
#: What is told of every run of the tiny spec: see `test_calibration`.
EXPECTED = [
    "reach:",
    "  smoothing: radii up to 0.6512 in l2",
    "95% intervals of certified accuracies over 20 images: up to 45.6 points wide",
]


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_without_a_store_everything_is_to_be_done_and_nothing_is_made(plan_of: Make, tmp_path: Path) -> None:
    output = tmp_path / "results"
    lines = describe_plan(plan_of(), Options(output))
    assert lines == [
        f"tiny: 20 test images of digits, norm l2, radii 0, 0.25, 1/2; store {output}",
        "training:",
        *(f"  three member {number} of 3: to train, 3 epochs" for number in (1, 2, 3)),
        "cells:",
        *(f"  {name}: to certify: 20 images, after training" for name in ENTRIES),
        *EXPECTED,
    ]
    assert not output.exists()


def test_with_a_finished_store_nothing_is_to_be_done(finished: tuple[Path, Any], plan_of: Make) -> None:
    before = snapshot(finished[0])
    lines = describe_plan(plan_of(), Options(finished[0]))
    assert lines[2:5] == [f"  three member {number} of 3: stored" for number in (1, 2, 3)]
    keys = {path.name[:12] for path in (finished[0] / "cells").iterdir()}
    assert [line.partition(", key ")[0] for line in lines[6:9]] == [f"  {name}: stored" for name in ENTRIES]
    assert {line.partition(", key ")[2] for line in lines[6:9]} == keys
    assert lines[9:] == EXPECTED
    assert snapshot(finished[0]) == before


def test_what_is_damaged_or_failed_or_missing_is_to_be_done_and_left_as_it_is(copied: Path, plan_of: Make) -> None:
    manifests = sorted(copied.glob("cells/*"))
    damaged, failed, missing = (sorted(cell.glob("rows-*"))[0] for cell in manifests)
    damaged.write_bytes(b"")
    failed.rename(failed.with_name(failed.name.replace("rows-", "errors-")))
    missing.unlink()
    before = snapshot(copied)
    lines = describe_plan(plan_of(), Options(copied))
    assert sum("to certify: 10 of 20 images, key " in line for line in lines) == 3
    assert snapshot(copied) == before


def test_what_cannot_be_measured_says_why(plan_of: Make, tmp_path: Path) -> None:
    plan = plan_of()
    plan = dataclasses.replace(plan, cells=(dataclasses.replace(plan.cells[0], reason="not in l0."),))
    assert describe_plan(plan, Options(tmp_path))[-3:-1] == ["cells:", "  single: unsupported: not in l0."]


def test_an_altered_checkpoint_is_refused(copied: Path, plan_of: Make) -> None:
    path = next((copied / "ensembles").glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(CheckpointError, match="they were altered"):
        describe_plan(plan_of(), Options(copied))
