"""Exit codes, through the command: what went wrong with an entry is 3, nothing measured is 4."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import Result

from certifiers import Unsupported
from leaderboards import read_run


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
