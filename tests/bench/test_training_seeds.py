"""An ensemble with training seeds, from its spec to the board."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from click.testing import Result

from leaderboards import build_board, read_run
from leaderboards.training_seeds import families


def test_training_seeds_are_trained_certified_and_taken_together(
    trained: Path, tmp_path: Path, edited: Callable[..., str], certbench: Callable[..., Result]
) -> None:
    text = edited(("members = 3\n", "members = 3\nseeds = [7, 8, 9]\n"))
    spec = tmp_path / "tiny.toml"
    spec.write_text(text[: text.rindex("[[entries]]")])
    result = certbench("run", spec, "--output", trained, "--jobs", 1)
    assert result.exit_code == 0, result.stderr
    # Members of the spec's own seed, 7, were there; two other seeds are trained, three members each.
    assert result.stderr.count("train three seed ") == 6
    run = read_run(trained / "runs/tiny/run.json")
    assert [entry.details["training_seed"]["seed"] for entry in run.entries] == [7, 8, 9]
    assert len({tuple(entry.details["weights"]) for entry in run.entries}) == 3
    (family,) = families(build_board(run))
    accuracies = [
        [
            np.mean(
                (e.rows["verdict"] == "CERTIFIED") & (e.rows["prediction"] == e.rows["label"]) & (e.rows["radius"] >= r)
            )
            for r in (0, 0.25, 0.5)
        ]
        for e in run.entries
    ]
    assert family.name == "single"
    assert family.certified.tolist() == np.mean(accuracies, axis=0).tolist()
    assert family.deviation.tolist() == np.std(accuracies, axis=0, ddof=1).tolist()
    board = trained / "boards" / "tiny"
    assert "## Training seeds" in (board / "board.md").read_text(encoding="utf-8")
    document = json.loads((board / "board.json").read_text())
    assert document["statistics"]["training_seeds"][0]["seeds"] == [7, 8, 9]


def test_the_own_seed_gives_the_rows_of_a_spec_without_seeds(
    copied: Path, tmp_path: Path, edited: Callable[..., str], certbench: Callable[..., Result]
) -> None:
    before = read_run(copied / "runs/tiny/run.json").entries[0].rows
    shutil.rmtree(copied / "boards")
    spec = tmp_path / "tiny.toml"
    text = edited(("members = 3\n", "members = 3\nseeds = [7, 8, 9]\n"))
    spec.write_text(text[: text.rindex("[[entries]]")])
    result = certbench("run", spec, "--output", copied, "--jobs", 1)
    assert "40 rows computed, 20 were stored." in result.stderr
    after = read_run(copied / "runs/tiny/run.json").entries[0]
    assert after.name == "single · seed 7"
    pd.testing.assert_frame_equal(after.rows, before, check_exact=True)
