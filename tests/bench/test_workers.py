import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.progress import Reporter
from bench.workers import Piece, WorkerError, Workers, jobs_for, threads
from ensembles import ParameterError
from tests.bench.conftest import Recording


def square(number: int, reporter: Reporter) -> int:
    with reporter.task(f"square {number}", 1) as task:
        task.advance(1, "done")
    reporter.note(f"{number} in {os.getpid()}")
    return number**2


def stamped(path: Path, name: str, reporter: Reporter) -> float:
    started = time.monotonic()
    time.sleep(0.2)
    (path / name).touch()
    return started


def complain(reporter: Reporter) -> None:
    raise ParameterError("no good")


def killed(reporter: Reporter) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def wait_long(path: Path, reporter: Reporter) -> None:
    path.write_text(str(os.getpid()))
    time.sleep(600)


def thread_count(reporter: Reporter) -> int:
    return torch.get_num_threads()


def tf32(reporter: Reporter) -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.fixture(scope="module", params=[1, 2], ids=["here", "two processes"])
def crew(request: pytest.FixtureRequest) -> Iterator[tuple[Workers, Recording, int]]:
    """Workers, what their reporter was told, and how many they are; they take seconds to start."""
    reporter = Recording()
    with Workers(request.param, reporter) as workers:
        yield workers, reporter, request.param


Crew = tuple[Workers, Recording, int]


def test_answers_reach_done_and_progress_reaches_the_reporter(crew: Crew) -> None:
    workers, reporter, jobs = crew
    found: dict[int, int] = {}

    def piece(number: int) -> Piece:
        return Piece(square, (number,), done=lambda answer: found.update({number: answer}))

    workers.run([piece(number) for number in range(5)])
    workers.run([piece(number) for number in range(5, 7)])
    assert found == {number: number**2 for number in range(7)}
    deadline = time.monotonic() + 60
    while len(reporter.notes) < 7 and time.monotonic() < deadline:
        time.sleep(0.01)  # they come through a pipe
    assert sorted(reporter.tasks) == [(f"square {number}", 1) for number in range(7)]
    where = {int(line.split()[-1]) for line in reporter.notes}
    assert len(reporter.notes) == 7
    assert (where == {os.getpid()}) is (jobs == 1)
    assert len(where) <= jobs


def test_a_piece_starts_when_those_it_names_are_done(tmp_path: Path, crew: Crew) -> None:
    order: list[str] = []
    first = Piece(stamped, (tmp_path, "first"), done=lambda _: order.append("first"))

    def ready() -> tuple[Any, ...]:
        assert (tmp_path / "first").exists()
        assert order == ["first"], "done of the first was called"
        return tmp_path, "second"

    second = Piece(stamped, after=[first], prepare=ready, done=lambda _: order.append("second"))
    workers, _, jobs = crew
    workers.run([second, first] if jobs > 1 else [first, second])  # one job takes them in their order
    assert order == ["first", "second"]


def test_a_piece_without_arguments_is_left_out(crew: Crew) -> None:
    done: list[int] = []
    left_out = Piece(square, prepare=lambda: None, done=done.append)
    crew[0].run([left_out, Piece(square, (3,), done=done.append)])
    assert done == [9]


def test_what_a_piece_raises_goes_to_failed_and_others_go_on(crew: Crew) -> None:
    seen: list[Exception] = []
    done: list[int] = []
    crew[0].run([Piece(complain, failed=seen.append), Piece(square, (2,), done=done.append)])
    assert done == [4]
    assert [(type(error), str(error)) for error in seen] == [(ParameterError, "no good")]


def test_what_nobody_takes_is_raised(crew: Crew) -> None:
    with pytest.raises(ParameterError, match="no good"):
        crew[0].run([Piece(complain), Piece(square, (2,))])


def test_a_worker_that_is_killed_is_told() -> None:
    with pytest.raises(WorkerError, match=r"probably because memory ran out.*fewer than 2 jobs"):  # noqa: SIM117
        with Workers(2, Recording()) as workers:
            workers.run([Piece(killed), Piece(square, (2,))])


def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.workers.certification_threads", lambda jobs: 3)
    counts: list[int] = []
    with Workers(2, Recording()) as workers:
        workers.run([Piece(thread_count, done=counts.append)] * 1 + [Piece(thread_count, done=counts.append)])
    assert counts == [3, 3]


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_an_accelerator_is_not_shared() -> None:
    assert jobs_for("cuda") == 1
    assert 1 <= jobs_for("cpu") <= (os.cpu_count() or 1)


TWO = """
[ensembles.warm]
architecture = "mlp"
options = { hidden = [16] }
members = 3
objective = { name = "adp", sigma = 0.25 }
schedule = { epochs = 2, batch_size = 64 }
start = "three"

[[entries]]
name = "warm"
ensemble = "warm"
aggregation = "weighted-average"
certifier = "smoothing"
"""


@pytest.mark.slow
def test_rows_do_not_depend_on_the_number_of_jobs(
    tiny: str, tmp_path: Path, started: Callable[..., Any], assert_same_rows: Callable[..., None]
) -> None:
    spec = tmp_path / "spec.toml"
    spec.write_text(tiny + TWO)
    for jobs in (1, 2):
        process = started("run", spec, "--output", tmp_path / f"store{jobs}", "--jobs", jobs)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, out + err
    keys = [{path.name for path in (tmp_path / f"store{jobs}" / "cells").iterdir()} for jobs in (1, 2)]
    assert len(keys[0]) == 4
    assert keys[0] == keys[1], "the same weights"
    assert_same_rows(tmp_path / "store2", tmp_path / "store1")


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_run(how: signal.Signals, tmp_path: Path) -> None:
    paths = [tmp_path / "one", tmp_path / "two"]
    program = f"""
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
from bench.workers import Piece, Workers
from tests.bench.conftest import Recording
from tests.bench.test_workers import wait_long
with Workers(2, Recording()) as workers:
    workers.run([Piece(wait_long, (Path(path),)) for path in {[str(path) for path in paths]}])
"""
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen([sys.executable, "-c", program], cwd=root, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not all(path.exists() and path.read_text() for path in paths):
        assert time.monotonic() < deadline, "both workers begin"
        time.sleep(0.1)
    process.send_signal(how)
    process.wait(timeout=60)
    pids = [int(path.read_text()) for path in paths]
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < deadline, "both workers end"
        time.sleep(0.1)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_workers_do_not_round_to_tf32() -> None:
    found: list[tuple[bool, bool]] = []
    with Workers(2, Recording()) as workers:
        workers.run([Piece(tf32, done=found.append) for _ in range(2)])
    assert found == [(False, False)] * 2
