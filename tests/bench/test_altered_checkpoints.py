"""Checkpoints that were altered or hold other members are refused, and other weights are other cells."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from bench import runner
from bench.runner import Options
from bench.store import write_file
from ensembles import checkpoint
from ensembles.checkpoint import CheckpointError
from tests.bench.runs_under_test import Make, blocks, only


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
