import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import Result

from ensembles import checkpoint

Process = subprocess.Popen[str]
Start = Callable[..., Process]


def stopped(process: Process, by: signal.Signals, when: Callable[[], bool]) -> tuple[int, str, str]:
    """Send a signal as soon as something has happened; returns exit status, stdout and stderr."""
    deadline = time.monotonic() + 300
    while not when():
        if process.poll() is not None:
            break
        assert time.monotonic() < deadline
        time.sleep(0.001)
    else:
        process.send_signal(by)
    stdout, stderr = process.communicate()
    return process.returncode, stdout, stderr


def stopped_in_time(
    start: Callable[[], Process], store: Path, by: signal.Signals, when: Callable[[], bool]
) -> tuple[int, str, str]:
    """As `stopped`; a run that is done before the signal comes, as on a busy machine, is started again."""
    before = store.with_name(f"{store.name}-before")
    if store.exists():
        shutil.copytree(store, before)
    for _ in range(5):
        found = stopped(start(), by, when)
        if found[0] != 0:
            return found
        shutil.rmtree(store)
        if before.exists():
            shutil.copytree(before, store)
    raise AssertionError("five runs were done before they could be stopped")


def members(store: Path) -> list[Path]:
    return sorted(store.glob("ensembles/*.safetensors"))


def rows(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.glob("cells/*/rows-*.parquet")}


@pytest.mark.slow
def test_a_run_that_is_killed_or_interrupted_resumes_to_the_rows_of_an_undisturbed_one(
    finished: tuple[Path, Result],
    tmp_path: Path,
    tiny: str,
    started: Start,
    certbench: Callable[..., Result],
    assert_same_rows: Callable[..., None],
) -> None:
    spec, killed, interrupted = tmp_path / "tiny.toml", tmp_path / "killed", tmp_path / "interrupted"
    spec.write_text(tiny)

    def command(store: Path) -> tuple[object, ...]:
        return ("run", spec, "--output", store, "--block-size", 1)

    # kill -9 in the middle of training; in another store Ctrl-C in the middle of certifying
    with ThreadPoolExecutor() as pool:
        training = pool.submit(stopped, started(*command(killed)), signal.SIGKILL, lambda: len(members(killed)) >= 1)
        certifying = pool.submit(
            stopped_in_time,
            lambda: started(*command(interrupted)),
            *(interrupted, signal.SIGINT, lambda: len(rows(interrupted)) >= 4),
        )
    assert training.result()[0] == -signal.SIGKILL
    assert len(members(killed)) in (1, 2)
    assert not rows(killed)
    trained = {path.name: path.stat().st_mtime_ns for path in members(killed)}

    status, stdout, stderr = certifying.result()
    assert (status, stdout) == (130, "")
    assert stderr.endswith("Interrupted. Finished blocks are stored; the same command resumes.\n")
    assert "Traceback" not in stderr

    # kill -9 in the middle of certifying
    status, _, _ = stopped_in_time(
        lambda: started(*command(killed)), killed, signal.SIGKILL, lambda: len(rows(killed)) >= 4
    )
    assert status == -signal.SIGKILL
    assert trained.items() <= {path.name: path.stat().st_mtime_ns for path in members(killed)}.items()

    for store in (killed, interrupted):
        before = rows(store)
        assert 4 <= len(before) < 60
        assert not (store / "runs").exists()
        # the same command, left alone
        result = certbench(*command(store))
        assert result.exit_code == 0
        found = re.search(r"(\d+) rows computed, (\d+) were stored", result.stderr)
        assert found is not None
        assert list(map(int, found.groups())) == [60 - len(before), len(before)]
        assert before.items() <= rows(store).items()
        assert_same_rows(store, finished[0])
        digests = [[checkpoint.load(path).digest for path in members(root)] for root in (store, finished[0])]
        assert digests[0] == digests[1]
        described = [{path.parent.name for path in root.glob("cells/*/cell.json")} for root in (store, finished[0])]
        assert described[0] == described[1]
        assert not [path for path in store.rglob("*") if path.name.endswith((".tmp", ".corrupt"))]
