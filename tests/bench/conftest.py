import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

import bench
from bench import datasets, runner
from bench.cli import app
from bench.datasets import Dataset
from bench.plan import Plan, make_plan
from bench.progress import Reporter, Task
from bench.runner import Options, Outcome
from bench.spec import read_spec
from bench.store import Store
from certifiers import Certifier
from certifiers import registry as certifier_registry
from ensembles.registry import Registry
from leaderboards import read_run
from tests.bench.runs_under_test import Scripted

# Twenty images, three members of one hidden layer, a thousand samples: everything is real, and takes a second.
TINY = """
name = "tiny"
title = "A tiny board"
seed = 7

[data]
name = "digits"
split = "test"
every = 18

[threat]
norm = "l2"
radii = [0, 0.25, "1/2"]

[ensembles.three]
architecture = "mlp"
options = { hidden = [16] }
members = 3
objective = { name = "gaussian", sigma = 0.25 }
schedule = { epochs = 3, batch_size = 64, optimizer = "adam", learning_rate = 0.005 }

[certifiers.smoothing]
sigma = 0.25
n0 = 50
n = 1_000
alpha = 0.01

[[entries]]
name = "single"
ensemble = "three"
aggregation = "single"
certifier = "smoothing"

[[entries]]
ensemble = "three"
aggregation = ["weighted-average", "max-margin"]
certifier = "smoothing"
"""

# What the script `certbench` does; but a shell that runs tests in the background has Ctrl-C ignored in its children.
COMMAND = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from bench.cli import main
main()
"""

ROOT = Path(bench.__file__).resolve().parents[1]
# Whoever runs the tests may have set what changes the form of the output.
PLAIN = {"FORCE_COLOR": None, "TTY_COMPATIBLE": None, "COLUMNS": None, "_TYPER_FORCE_DISABLE_TERMINAL": "1"}
# Checks of certifiers take seconds, and are no part of what most of these tests are about.
UNCHECKED = {"CERTBENCH_NO_CHECK": "1"}


class Recording(Reporter):
    """Keeps what a person would have been told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.tasks: list[tuple[str, int]] = []
        self.steps: list[int] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Task]:
        self.tasks.append((label, total))
        yield _Steps(self.steps)


class _Steps(Task):
    def __init__(self, steps: list[int]) -> None:
        self.steps = steps

    def advance(self, steps: int, detail: str = "") -> None:
        self.steps.append(steps)


@pytest.fixture(scope="session")
def tiny() -> str:
    return TINY


@pytest.fixture(scope="session")
def edited() -> Callable[..., str]:
    """The tiny spec with some texts replaced; each must be there exactly once."""

    def edit(*changes: tuple[str, str], text: str = TINY) -> str:
        for old, new in changes:
            assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in the spec"
            text = text.replace(old, new)
        return text

    return edit


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return datasets.load("digits")


@pytest.fixture
def write_spec(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str, name: str = "tiny.toml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


@pytest.fixture
def plan_of(write_spec: Callable[..., Path], digits: Dataset) -> Callable[..., Plan]:
    def make(text: str = TINY, limit: int | None = None) -> Plan:
        spec, read = read_spec(write_spec(text))
        return make_plan(spec, read, digits, limit)

    return make


@pytest.fixture
def reporter() -> Recording:
    return Recording()


@pytest.fixture(scope="session")
def certbench() -> Callable[..., Result]:
    """The command, in this process; what it writes to stdout and stderr is kept apart."""

    def invoke(*words: object) -> Result:
        result = CliRunner(env=PLAIN | UNCHECKED).invoke(app, [str(word) for word in words])
        unexpected = result.exception is not None and not isinstance(result.exception, SystemExit)
        assert not unexpected, f"certbench raised {result.exception!r}"
        return result

    return invoke


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The environment of other processes: this tree, one thread, plain output."""
    kept = {name: value for name, value in os.environ.items() if name not in PLAIN}
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | UNCHECKED


@pytest.fixture(scope="session")
def plain_python(environment: dict[str, str]) -> Callable[..., str]:
    """What a piece of Python writes to stdout, run in another process, without this one's type checks."""

    def run(code: str, *words: object, path: Path | None = None) -> str:
        command = [sys.executable, "-c", code, *map(str, words)]
        paths = os.pathsep.join([environment["PYTHONPATH"], *([str(path)] if path else [])])
        finished = subprocess.run(command, env=environment | {"PYTHONPATH": paths}, capture_output=True, text=True)
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    return run


@pytest.fixture(scope="session")
def started(environment: dict[str, str]) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """The command, in a process of its own that signals can hit."""
    running: list[subprocess.Popen[str]] = []

    def start(*words: object) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *map(str, words)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, certbench: Callable[..., Result]) -> tuple[Path, Result]:
    """The store of an undisturbed run of the tiny spec, not to be changed, and what the command said."""
    folder = tmp_path_factory.mktemp("finished")
    spec = folder / "tiny.toml"
    spec.write_text(TINY)
    result = certbench("run", spec, "--output", folder / "results")
    assert result.exit_code == 0, result.stderr
    return folder / "results", result


@pytest.fixture
def copied(finished: tuple[Path, Result], tmp_path: Path) -> Path:
    """A copy of that store, to be damaged."""
    return Path(shutil.copytree(finished[0], tmp_path / "results"))


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


@pytest.fixture(scope="session")
def rows_in() -> Callable[..., dict[str, pd.DataFrame]]:
    """The rows of each entry of a stored run, without the one column that is measured."""

    def read(store: Path, name: str = "tiny") -> dict[str, pd.DataFrame]:
        run = read_run(store / "runs" / name / "run.json")
        return {entry.name: entry.rows.drop(columns="seconds") for entry in run.entries}

    return read


@pytest.fixture(scope="session")
def assert_same_rows(rows_in: Callable[..., dict[str, pd.DataFrame]]) -> Callable[..., None]:
    def check(found: Path, expected: Path) -> None:
        ours, theirs = rows_in(found), rows_in(expected)
        assert list(ours) == list(theirs)
        for name, rows in ours.items():
            assert len(rows) == 20
            pd.testing.assert_frame_equal(rows, theirs[name], check_exact=True, obj=name)

    return check


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """File a class under a name, as a decorator or an entry point would, until the test ends."""

    def offer(name: str, item: Any, registry: Registry[Any] = certifier_registry._registry) -> None:
        if issubclass(item, Certifier):
            monkeypatch.setattr(item, "name", name)
        monkeypatch.setitem(registry._registered, name, item)
        monkeypatch.setitem(registry._spelling, name, name)

    return offer


@pytest.fixture
def scripted(offered: Callable[..., None]) -> Callable[..., type[Scripted]]:
    def make(script: Callable[..., Any], name: str = "scripted", **attributes: Any) -> type[Scripted]:
        made = type("Made", (Scripted,), {"script": staticmethod(script), **attributes})
        offered(name, made)
        return made

    return make
