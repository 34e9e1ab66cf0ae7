"""The store: results as files that a killed program cannot damage and a damaged disk cannot falsify.

    OUTPUT/ensembles/<digest of the recipe>.safetensors    trained members
    OUTPUT/ensembles/<digest of the recipe>.log.jsonl      their training, an epoch a line
    OUTPUT/ensembles/<digest of the recipe>.training       the state of an unfinished training
    OUTPUT/diagnostics/<digest>.json                       what the members of an ensemble agree on
    OUTPUT/cells/<key>/rows-<first image>-<digest>.parquet rows of finished images
    OUTPUT/cells/<key>/errors-....parquet                  rows of images that failed; computed again
    OUTPUT/cells/<key>/audit-....parquet, witness-....     what audits found, see `audit_store`
    OUTPUT/cells/<key>/cell.json                           key, spec and provenance, once all rows are there
    OUTPUT/runs/<name>/run.json                            the entries of a run
    OUTPUT/boards/<name>/                                  the published board

Every file is written under a temporary name, synced and renamed.
"""

import contextlib
import errno
import fcntl
import io
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from leaderboards.records import FAILURES, ROW_SCHEMA, block_name, is_failed_block, read_block
from leaderboards.verified_files import CELL_METADATA, StoredDataError, cell_folder


class StoreError(RuntimeError):
    """The store cannot be written: full, not writable, or in use."""


class Store:
    """The results under one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the store for one program; the lock goes with the process, however that ends.

        Raises:
            StoreError: another program holds it, or the folder cannot be made.
        """
        with _explained(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            lock = (self.root / ".lock").open("w")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise StoreError(
                    f"Another certbench run is writing to {self.root}. Wait for it, or choose another --output."
                ) from None
            for leftover in self.root.rglob(".*.tmp"):
                leftover.unlink(missing_ok=True)
            yield

    def checkpoint(self, recipe_digest: str) -> Path:
        """Where the members made by a recipe are kept."""
        return self.root / "ensembles" / f"{recipe_digest[:32]}.safetensors"

    def cell(self, key: str) -> Path:
        """The folder of a cell."""
        return self.root / cell_folder(key)

    def manifest(self, run: str) -> Path:
        """The file that describes a run."""
        return self.root / "runs" / run / "run.json"

    def board(self, run: str) -> Path:
        """The folder of a run's published board."""
        return self.root / "boards" / run

    def stored_images(self, key: str, *, set_aside: bool = True) -> tuple[set[int], list[str]]:
        """The images with finished rows, every file verified, and a message for each file that is not.

        Such a file is renamed to `*.corrupt`, unless `set_aside` is false: then it is only passed over.
        """
        found: set[int] = set()
        messages = []
        for path in sorted(self.cell(key).glob("rows-*.parquet")):
            try:
                found |= _new_images(path, found)
            except StoredDataError as error:
                fate = f" Set aside as {_set_aside(path).name}; its images are computed again." if set_aside else ""
                messages.append(f"{error}{fate}")
        return found, messages

    def forget_failures(self, key: str) -> None:
        """Drop the rows of failed images before they are computed again: failures are never cached."""
        for path in self.cell(key).glob("errors-*.parquet"):
            if is_failed_block(path):
                with _explained(path):
                    path.unlink()

    def write_rows(self, key: str, rows: pd.DataFrame) -> None:
        """Store the rows of a block of images; failures apart, so that they are tried again.

        Raises:
            StoreError: the disk is full or not writable; what was stored before is untouched.
        """
        failed = rows["verdict"].isin(FAILURES)
        for part, is_failed in ((rows[~failed], False), (rows[failed], True)):
            if len(part):
                content = _parquet(part, key)
                name = block_name(content, int(part["image_id"].iloc[0]), failed=is_failed)
                write_file(self.cell(key) / name, content)

    def write_json(self, path: Path, document: Mapping[str, Any]) -> None:
        """Store a JSON document."""
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
        write_file(path, (text + "\n").encode())


def write_file(path: Path, content: bytes) -> None:
    """Write a file so that it is whole or absent, whenever the program or the machine stops.

    Raises:
        StoreError: the disk is full or not writable.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        what = "no space is left on the disk" if full else str(error.strerror or error)
        fix = "Free some space" if full else "Make the folder writable or choose another --output"
        raise StoreError(
            f"Cannot write {path}: {what}. {fix} and run the same command: what is stored stays valid and is kept."
        ) from error


def _new_images(path: Path, known: set[int]) -> set[int]:
    rows = read_block(path)
    images: set[int] = set(rows["image_id"].tolist())
    if images & known or len(images) < len(rows):
        raise StoredDataError(f"{path}: repeats images that are stored already.")
    if rows["verdict"].isin(FAILURES).any():
        raise StoredDataError(f"{path}: holds failed rows under the name of finished ones.")
    return images


def _set_aside(path: Path) -> Path:
    with _explained(path):
        return path.rename(path.with_name(f"{path.name}.corrupt"))


def _parquet(rows: pd.DataFrame, key: str) -> bytes:
    evidence = [name for name in rows.columns if name not in ROW_SCHEMA.names]
    table = pa.table(
        {
            **{item.name: pa.array(rows[item.name], type=item.type) for item in ROW_SCHEMA},
            **{name: pa.array(rows[name]) for name in evidence},
        }
    ).replace_schema_metadata({CELL_METADATA: key.encode()})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, write_page_checksum=True, compression="zstd")
    return buffer.getvalue()
