"""How to run, as opposed to what."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """How to run, as opposed to what: none of it is part of a key.

    Attributes:
        output: folder of the store.
        device: where networks run.
        block_size: images stored at a time.
        batch_size: inputs a forward pass, for certifiers that have one.
        compile_networks: compile networks before their votes are counted, for certifiers that can.
        jobs: trainings and certifications side by side; one runs in this process.
    """

    output: Path
    device: str = "cpu"
    block_size: int = 10
    batch_size: int | None = None
    jobs: int = 1
    compile_networks: bool = False
