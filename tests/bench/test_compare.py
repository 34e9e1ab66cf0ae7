"""The gate as a command: streams, files, exit codes; a mutant certifier slipped into a run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import Result
from junitparser import Failure, JUnitXml, Skipped
from torch import nn
from typer.testing import CliRunner

from bench.cli import app
from bench.store import Store
from ensembles.architectures import Classifier
from leaderboards import read_run
from leaderboards.records import read_rows
from tests.bench.conftest import PLAIN
from tests.bench.test_cli import LOADED
from tests.certifiers.conformance.mutants import Intervals
from tests.certifiers.conformance.mutants.bounds import SignError

Certbench = Callable[..., Result]
RUN = "runs/tiny/run.json"


def changed(store: Path, change: Callable[[pd.DataFrame], pd.DataFrame], entry: int = 0, key: str = "") -> str:
    """Another program's rows under the key of an entry, or under a new key; returns the entry's name."""
    manifest = store / RUN
    document = json.loads(manifest.read_text())
    item = document["entries"][entry]
    folder = store / item["folder"]
    rows = change(read_rows(folder))
    shutil.rmtree(folder)
    if key:
        item |= {"key": key * 64, "folder": f"cells/{key * 32}"}
        manifest.write_text(json.dumps(document))
    Store(store).write_rows(item["key"], rows)
    return str(item["name"])


def weaker(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(verdict="ABSTAINED", radius=0.0, prediction=-1, reason="abstained")


def test_a_run_against_itself_passes_in_every_form(
    finished: tuple[Path, Result], tmp_path: Path, certbench: Certbench
) -> None:
    store = finished[0]
    files = {
        "--json": tmp_path / "g" / "gate.json",
        "--junit": tmp_path / "g" / "gate.xml",
        "--markdown": tmp_path / "gate.md",
    }
    result = certbench("compare", "tiny", store, "--output", store, *(word for pair in files.items() for word in pair))
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("PASS: 6 checks, nothing lost beyond the margin.\n")
    assert "20 rows of one key are equal" in result.stdout
    document = json.loads(files["--json"].read_text())
    assert (document["outcome"], document["exit_code"], document["soundness_alarms"]) == ("pass", 0, 0)
    assert {item["kind"] for item in document["findings"]} == {"soundness", "determinism"}
    suites = JUnitXml.fromfile(str(files["--junit"]))
    assert (suites.tests, suites.failures, suites.skipped) == (6, 0, 0)
    summary = files["--markdown"].read_text()
    assert "**PASS: 6 checks" in summary
    # Of two runs of one name the other is told apart by what was written on the command line.
    assert summary.startswith("## certbench: tiny against tiny (tiny)\n")
    assert certbench("compare", store / RUN, store / "runs" / "tiny").exit_code == 0


def test_the_command_does_not_load_torch(finished: tuple[Path, Result], plain_python: Callable[..., str]) -> None:
    store = finished[0]
    assert plain_python(LOADED, "compare", "tiny", "tiny", "--output", store).split()[:2] == ["0", "False"]


def test_a_difference_under_one_key_is_exit_1(
    finished: tuple[Path, Result], copied: Path, tmp_path: Path, certbench: Certbench
) -> None:
    name = changed(copied, weaker)
    junit = tmp_path / "gate.xml"
    result = certbench("compare", finished[0], copied, "--junit", junit)
    assert result.exit_code == 1
    assert result.stdout.startswith("REGRESSION: 1 of 6 checks failed.\n")
    (failed,) = [case for suite in JUnitXml.fromfile(str(junit)) for case in suite if case.result]
    assert (failed.name, failed.classname) == (name, "certbench.determinism")
    assert isinstance(failed.result[0], Failure)
    assert "one key, two results: " in failed.result[0].message


def test_a_loss_is_exit_1_and_too_few_images_are_exit_3(
    finished: tuple[Path, Result], copied: Path, tmp_path: Path, certbench: Certbench
) -> None:
    changed(copied, lambda rows: rows, key="a")
    junit, markdown = tmp_path / "gate.xml", tmp_path / "gate.md"
    result = certbench("compare", finished[0], copied, "--junit", junit, "--markdown", markdown)
    assert result.exit_code == 3
    assert "it takes 268 images, or a wider margin" in markdown.read_text()
    skipped = [case for suite in JUnitXml.fromfile(str(junit)) for case in suite if case.result]
    assert len(skipped) == 3
    assert all(isinstance(case.result[0], Skipped) for case in skipped)
    assert certbench("compare", finished[0], copied, "--margin", 20).exit_code == 0

    shutil.rmtree(copied)
    shutil.copytree(finished[0], copied)
    changed(copied, weaker, key="a")
    assert certbench("compare", finished[0], copied).exit_code == 1


def test_an_altered_file_is_a_soundness_alarm_and_said_first(
    finished: tuple[Path, Result], copied: Path, tmp_path: Path, certbench: Certbench
) -> None:
    path = next(copied.glob("cells/*/rows-*.parquet"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    result = certbench("compare", finished[0], copied, "--json", "-")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["soundness_alarms"] == 1
    assert result.stderr.startswith("UNSOUND: 1 soundness alarm")
    assert "the bytes do not match the digest" in result.stderr
    assert certbench("compare", finished[0], copied).stdout.startswith("UNSOUND: 1 soundness alarm")


def test_a_radius_beyond_its_votes_is_told_before_all_else(
    finished: tuple[Path, Result], copied: Path, certbench: Certbench
) -> None:
    changed(copied, lambda rows: rows.assign(radius=rows["radius"] * 1.01), entry=1)
    result = certbench("compare", finished[0], copied)
    assert result.exit_code == 1
    assert result.stdout.startswith("UNSOUND: 1 soundness alarm in tiny. three · weighted-average · smoothing: ")
    assert "a radius beyond what its samples and alpha allow" in result.stdout.splitlines()[0]


def test_nothing_in_common_is_exit_4(
    finished: tuple[Path, Result], copied: Path, tmp_path: Path, certbench: Certbench
) -> None:
    document = json.loads((copied / RUN).read_text())
    for item in document["entries"]:
        item["name"] += " again"
    (copied / RUN).write_text(json.dumps(document))
    junit = tmp_path / "gate.xml"
    result = certbench("compare", finished[0], copied, "--allow-missing", "--junit", junit)
    assert result.exit_code == 4
    assert result.stdout.startswith("NOTHING MEASURED")
    assert JUnitXml.fromfile(str(junit)).failures == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere", "tiny"), "No run 'nowhere': neither a run.json, nor a folder with one, nor a run in"),
        (("tiny", "tiny", "--false-alarms", "0"), "false_alarms must be at least 0 and below 0.5, got 0.0"),
    ],
)
def test_bad_usage_is_exit_2(
    finished: tuple[Path, Result], certbench: Certbench, words: tuple[str, ...], message: str
) -> None:
    result = certbench("compare", *words, "--output", finished[0])
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_folder_of_several_runs_must_be_told_which(copied: Path, certbench: Certbench) -> None:
    shutil.copytree(copied / "runs" / "tiny", copied / "runs" / "other")
    result = certbench("compare", copied, copied / "runs" / "tiny")
    assert result.exit_code == 2
    assert "holds several runs: other, tiny. Name one: " in result.stderr


def test_hostile_names_stay_text(
    finished: tuple[Path, Result], copied: Path, tmp_path: Path, certbench: Certbench
) -> None:
    hostile = "<img src=x onerror=alert(1)> [red]x[/red] | ]]> \x00\u202e"
    document = json.loads((copied / RUN).read_text())
    document["entries"][0]["name"] = hostile
    document["entries"][1]["status"], document["entries"][1]["reason"] = "failed", hostile
    (copied / RUN).write_text(json.dumps(document))
    junit, markdown = tmp_path / "gate.xml", tmp_path / "gate.md"
    result = certbench("compare", finished[0], copied, "--junit", junit, "--markdown", markdown)
    assert result.exit_code == 1
    cases = [case for suite in JUnitXml.fromfile(str(junit)) for case in suite]
    assert any("<img src=x onerror=alert(1)> [red]x[/red]" in case.name for case in cases)
    assert "<img" not in markdown.read_text()
    assert "\u202e" not in result.stdout


# ---- a mutant of the conformance kit


def reading(certifier: type[Intervals]) -> type[Intervals]:
    """The same certifier, of the networks that specs name as well."""

    class Reading(certifier):  # type: ignore[misc, valid-type]
        def network(self, network: nn.Module, *others: Any) -> Any:
            if isinstance(network, Classifier):
                network = nn.Sequential(network.normalize, network.body, network.head)
            return super().network(network, *others)

    return Reading


@pytest.fixture
def interval_run(trained: Path, tmp_path: Path, edited: Any, offered: Any) -> Callable[..., Path]:
    """A run of interval bounds of that class in a store of its own, on the same weights and under the same name."""
    text = edited(
        ('norm = "l2"', 'norm = "linf"'),
        ('radii = [0, 0.25, "1/2"]', "radii = [0, 0.01, 0.03]"),
        ("[certifiers.smoothing]", "[certifiers.intervals]\n\n[certifiers.smoothing]"),
        ('aggregation = "single"\ncertifier = "smoothing"', 'aggregation = "single"\ncertifier = "intervals"'),
    )
    spec = tmp_path / "tiny.toml"
    spec.write_text(text[: text.rindex("[[entries]]")])

    def run(certifier: type, name: str, *, check: bool) -> Path:
        offered("intervals", reading(certifier))
        store = Path(shutil.copytree(trained, tmp_path / name))
        environment = PLAIN | {"CERTBENCH_NO_CHECK": None if check else "1"}
        result = CliRunner(env=environment).invoke(app, ["run", str(spec), "--output", str(store), "--jobs", "1"])
        assert result.exit_code in (0, 1), result.output
        return store

    return run


def test_a_mutant_slipped_into_a_run_is_stopped_by_its_rows(
    interval_run: Callable[..., Path], certbench: Certbench
) -> None:
    """It has the name, version and parameters of the honest one, and so its key: nothing but the rows gives it away."""
    base, head = interval_run(Intervals, "base", check=False), interval_run(SignError, "head", check=False)
    keys = {read_run(store / RUN).entries[0].key for store in (base, head)}
    assert len(keys) == 1
    assert (read_run(base / RUN).entries[0].rows["verdict"] == "CERTIFIED").any()
    honest = interval_run(Intervals, "again", check=False)
    assert certbench("compare", base, honest).exit_code == 0
    result = certbench("compare", base, head)
    assert result.exit_code == 1
    assert "one key, two results" in result.stdout.replace("\n", " ")


@pytest.mark.slow
def test_a_mutant_slipped_into_a_run_is_stopped_by_the_kit(
    interval_run: Callable[..., Path], certbench: Certbench
) -> None:
    """Against itself no row differs: what is left is that its certifier fails the checks of `certbench run`."""
    head = interval_run(SignError, "head", check=True)
    result = certbench("compare", head, head)
    assert result.exit_code == 1
    assert result.stdout.startswith(
        "UNSOUND: 1 soundness alarm in tiny. single: its certifier fails the conformance kit"
    )
