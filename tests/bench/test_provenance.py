import platform
import re
import subprocess
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path

import pytest
import torch

from bench import provenance


def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As if the package lay there."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "provenance.py"
    source.write_text("")
    monkeypatch.setattr(provenance, "__file__", str(source))
    return source


def git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_it_says_with_what_where_and_when() -> None:
    found = provenance.collect("cpu")
    assert set(found) == {
        *("time", "versions", "commit", "system", "processor", "cores", "jobs", "threads", "batch_size"),
        *("device", "tf32"),
    }
    assert timedelta(0) <= datetime.now(UTC) - datetime.fromisoformat(found["time"]) < timedelta(minutes=1)
    assert set(found["versions"]) == {
        "certbench",
        "torch",
        "numpy",
        "scipy",
        "pandas",
        "pyarrow",
        "auto-LiRPA",
        "python",
    }
    assert found["versions"]["torch"] == metadata.version("torch")
    assert found["versions"]["python"] == platform.python_version()
    assert found["system"] == f"{platform.system()} {platform.release()} {platform.machine()}"
    assert found["processor"]
    assert found["cores"] >= 1
    assert found["threads"] == torch.get_num_threads()
    assert found["device"] == "cpu"
    assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?|unknown", found["commit"])


def test_a_package_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_PACKAGES", ("certbench-of-nobody",))
    assert provenance.collect("cpu")["versions"]["certbench-of-nobody"] == "not installed"


def test_tf32_is_what_torch_says() -> None:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    try:
        for there in ((False, False), (True, False), (False, True)):
            matmul.allow_tf32, cudnn.allow_tf32 = there
            assert provenance.collect("cpu")["tf32"] is any(there)
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def test_outside_a_repository_the_commit_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_folder(tmp_path / "site-packages", monkeypatch)
    assert provenance.collect("cpu")["commit"] == "unknown"


def test_another_repository_around_an_installed_copy_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_folder(tmp_path / "venv", monkeypatch)
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "theirs")
    assert provenance.collect("cpu")["commit"] == "unknown"


def test_without_git_the_commit_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.collect("cpu")["commit"] == "unknown"


def test_in_our_repository_it_is_the_commit_and_whether_it_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = in_folder(tmp_path / "bench", monkeypatch)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "ours")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert provenance.collect("cpu")["commit"] == commit
    source.write_text("changed")
    assert provenance.collect("cpu")["commit"] == f"{commit}+changes"
