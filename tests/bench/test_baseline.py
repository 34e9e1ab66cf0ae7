import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result

from bench.baseline_command import with_entry
from bench.store import Store, StoreError
from leaderboards import read_run
from leaderboards.gate import find_run, read_measured
from tests.bench.test_compare import changed, weaker

Certbench = Callable[..., Result]
QUICKSTART = Path(__file__).parents[2] / "leaderboards" / "published" / "quickstart"
LOG = "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- A thing.\n\n## [0.1.0]\n\n- First.\n"


@pytest.fixture
def changelog(tmp_path: Path) -> Path:
    path = tmp_path / "CHANGELOG.md"
    path.write_text(LOG)
    return path


def test_a_baseline_holds_the_run_and_the_changelog_says_why(
    finished: tuple[Path, Result], copied: Path, tmp_path: Path, changelog: Path, certbench: Certbench
) -> None:
    to = tmp_path / "published" / "tiny"
    words = ["--to", to, "--changelog", changelog, "--reason"]
    result = certbench("baseline", finished[0], *words, "It is the first.")
    assert result.exit_code == 0, result.stderr
    kept, original = read_run(to / "runs/tiny/run.json"), read_run(finished[0] / "runs/tiny/run.json")
    for entry, expected in zip(kept.entries, original.entries, strict=True):
        pd.testing.assert_frame_equal(entry.rows, expected.rows, check_exact=True)
    # A file an entry, and nothing of weights or boards.
    assert len(list(to.glob("cells/*/*.parquet"))) == 3
    assert {path.name for path in to.iterdir()} == {"runs", "cells"}
    assert certbench("compare", to, finished[0]).exit_code == 0
    text = changelog.read_text()
    assert "### Baselines\n\n- `tiny`, " in text
    assert ": It is the first.\n  - new: 3 entries\n\n## [0.1.0]" in text

    changed(copied, weaker, key="a")
    again = certbench("baseline", copied, *words, "Ties\nabstain.")
    assert again.exit_code == 0
    line = next(line for line in again.stdout.splitlines() if line.startswith("  - single: "))
    assert line.startswith("  - single: mean certified accuracy ")
    assert line.endswith(" -> 0.0 %")
    text = changelog.read_text()
    assert text.index("Ties abstain.") < text.index("It is the first.") < text.index("## [0.1.0]")
    assert "  - 2 entries with the same rows\n" in text
    assert len(list(to.glob("cells/*/*.parquet"))) == 3
    assert certbench("compare", to, copied).exit_code == 0


def test_a_published_run_becomes_a_baseline_with_its_audits(
    tmp_path: Path, changelog: Path, certbench: Certbench
) -> None:
    to = tmp_path / "to"
    words = ["--to", to, "--changelog", changelog, "--reason", "why"]
    result = certbench("baseline", QUICKSTART, *words)
    assert result.exit_code == 0, result.stderr
    kept, original = (read_measured(find_run(folder, folder)) for folder in (to, QUICKSTART))
    for entry, expected in zip(kept.run.entries, original.run.entries, strict=True):
        pd.testing.assert_frame_equal(entry.rows, expected.rows, check_exact=True)
        assert (entry.audit, entry.conformance) == (expected.audit, expected.conformance)
        pd.testing.assert_frame_equal(kept.audits[entry.key], original.audits[entry.key], check_exact=True)
    assert sum(map(len, original.audits.values())) > 0
    assert certbench("compare", to, QUICKSTART).exit_code == 0
    refused = certbench("baseline", to, "--to", QUICKSTART, *words[2:])
    assert (refused.exit_code, "holds a published board" in refused.stderr) == (2, True)


def test_a_baseline_that_cannot_be_written_leaves_the_old_one(
    copied: Path, tmp_path: Path, changelog: Path, certbench: Certbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = tmp_path / "to"
    words = ["--to", to, "--changelog", changelog, "--reason", "why"]
    assert certbench("baseline", copied, *words).exit_code == 0
    before = {path: path.read_bytes() for path in to.rglob("*") if path.is_file()}
    assert before
    changed(copied, weaker, key="a")

    def full(*_: object) -> None:
        raise StoreError("No space left.")

    monkeypatch.setattr(Store, "write_json", full)
    result = certbench("baseline", copied, *words)
    assert (result.exit_code, "No space left. The baseline is as it was." in result.stderr) == (3, True)
    assert {path: path.read_bytes() for path in to.rglob("*") if path.is_file()} == before


def test_what_is_unsound_or_unfinished_is_no_baseline(
    copied: Path, tmp_path: Path, changelog: Path, certbench: Certbench
) -> None:
    words = ["--to", tmp_path / "to", "--changelog", changelog, "--reason", "why"]
    original = (copied / "runs/tiny/run.json").read_text()
    document = json.loads(original)
    document["entries"][0]["status"], document["entries"][0]["reason"] = "failed", "2 of 20 images failed"
    (copied / "runs/tiny/run.json").write_text(json.dumps(document))
    result = certbench("baseline", copied, *words)
    assert (result.exit_code, "single is failed: 2 of 20 images failed" in result.stderr) == (3, True)
    (copied / "runs/tiny/run.json").write_text(original)
    changed(copied, lambda rows: rows.assign(radius=rows["radius"] + (rows["radius"] > 0)))
    result = certbench("baseline", copied, *words)
    assert (result.exit_code, "UNSOUND: 1 soundness alarm" in result.stderr) == (1, True)
    assert not (tmp_path / "to").exists()
    assert changelog.read_text() == LOG


def test_bad_usage_of_baseline_is_exit_2(copied: Path, tmp_path: Path, changelog: Path, certbench: Certbench) -> None:
    def said(*words: object) -> str:
        result = certbench("baseline", *words)
        assert result.exit_code == 2
        return result.stderr

    to = ["--to", tmp_path / "to"]
    assert "A baseline needs a reason" in said(copied, *to, "--changelog", changelog, "--reason", " ")
    assert "No changelog at nowhere.md" in said(copied, *to, "--changelog", "nowhere.md", "--reason", "x")
    assert "No run 'gone'" in said("gone", *to, "--changelog", changelog, "--reason", "x")
    own = said(copied, "--to", copied, "--changelog", changelog, "--reason", "x")
    assert "is the run's own store. Name another folder." in own
    assert (copied / "runs/tiny/run.json").is_file()
    shutil.rmtree(copied)


def test_entries_of_the_changelog_are_under_their_heading() -> None:
    once = with_entry(LOG, "- one")
    assert once == LOG.replace("- A thing.\n", "- A thing.\n\n### Baselines\n\n- one\n")
    assert with_entry(once, "- two") == once.replace("- one", "- two\n- one")
    assert with_entry("# Changelog\n", "- one") == "# Changelog\n\n## [Unreleased]\n\n### Baselines\n\n- one\n"
    last = "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- A thing.\n"
    assert with_entry(last, "- one") == last + "\n### Baselines\n\n- one\n"
