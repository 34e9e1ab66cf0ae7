"""Provenance: with what, where and when a result was computed. None of it is part of a key."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from bench.workers import certification_threads

_PACKAGES = ("certbench", "torch", "numpy", "scipy", "pandas", "pyarrow", "auto-LiRPA")


def collect(device: str, jobs: int = 1, batch_size: int | None = None) -> dict[str, Any]:
    """Versions, commit, processor, jobs, threads of each, batch size, number formats and the time, ready for JSON."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: package_version(name) for name in _PACKAGES} | {"python": platform.python_version()},
        "commit": _commit(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "jobs": jobs,
        "threads": torch.get_num_threads() if jobs == 1 else certification_threads(jobs),
        "batch_size": batch_size,
        "device": device if device == "cpu" else f"{device} ({torch.cuda.get_device_name(device)})",
        "tf32": bool(torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32),
    }


def package_version(package: str) -> str:
    """The version of an installed package, or `not installed`."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    """The commit of the source tree, with `+changes` where it differs; `unknown` outside a repository."""
    source = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        finished = subprocess.run(  # noqa: S603
            ["git", "-C", str(source), *words],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        return finished.stdout.strip()

    try:
        # Only a repository that tracks this very file is ours; an installed copy may lie inside another one.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"
