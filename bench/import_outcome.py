"""What became of logs that were imported."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ImportedEntry:
    """What became of one log: `left_out` counts its images that the run beside it does not have."""

    name: str
    file: str
    sha256: str
    key: str
    certifier: str
    printing: str
    source: str
    rows: int
    images: int
    left_out: int
    status: str
    reason: str


@dataclass(frozen=True)
class Imported:
    """The run that logs became."""

    manifest: Path
    entries: tuple[ImportedEntry, ...]

    @property
    def incomplete(self) -> tuple[ImportedEntry, ...]:
        """The entries with images missing, which have no numbers."""
        return tuple(entry for entry in self.entries if entry.status != "complete")
