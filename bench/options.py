"""How to run, as opposed to what."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """How to run, as opposed to what: none of it is part of a key."""

    output: Path
    device: str = "cpu"
    block_size: int = 10
    batch_size: int | None = None
