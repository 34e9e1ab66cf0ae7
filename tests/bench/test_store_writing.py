"""A file of a store is whole when it gets its name, and a write that fails says why and changes nothing."""

import errno
import os
from pathlib import Path

import pytest

from bench.store import Store, StoreError, write_file
from tests.bench.stores_under_test import KEY, files_under, some_rows


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.ENOSPC, "no space is left on the disk. Free some space and run the same command: what is stored stays "),
        (errno.EDQUOT, "no space is left on the disk. Free some space and run the same command"),
        (errno.EACCES, "Permission denied. Make the folder writable or choose another --output and run the same"),
        (errno.EROFS, "Read-only file system. Make the folder writable or choose another --output"),
        (errno.EIO, "Input/output error. "),
    ],
)
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_no_other(
    store: Store, monkeypatch: pytest.MonkeyPatch, step: str, number: int, text: str
) -> None:
    store.write_rows(KEY, some_rows())
    path = store.cell(KEY) / "cell.json"
    write_file(path, b"old")
    before = files_under(store.root)

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail) if step == "fsync" else patch.setattr(Path, "replace", fail)
        with pytest.raises(StoreError) as raised:
            write_file(path, b"new")
        with pytest.raises(StoreError):
            store.write_rows(KEY, some_rows(5))
    assert str(raised.value).startswith(f"Cannot write {path}: {text}")
    assert files_under(store.root) == before
    assert store.stored_images(KEY) == (set(range(5)), [])


def test_a_file_is_whole_when_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    synced = []
    fsync, replace = os.fsync, Path.replace

    def watch_sync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def watch_replace(self: Path, target: Path) -> Path:
        seen.append((self.read_bytes(), self.stat().st_ino in synced, Path(target).exists()))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", watch_sync)
    monkeypatch.setattr(Path, "replace", watch_replace)
    write_file(tmp_path / "new" / "file", b"content")
    assert seen == [(b"content", True, False)]  # written and synced under another name first
    assert synced[-1] == (tmp_path / "new").stat().st_ino  # then the folder, so that the name lasts


def test_what_cannot_be_set_aside_is_said(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write_rows(KEY, some_rows())
    (path,) = store.cell(KEY).iterdir()
    path.write_bytes(b"")

    def fail(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(StoreError, match="Read-only file system"):
        store.stored_images(KEY)


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("mine")
    with (
        pytest.raises(StoreError, match=r"^Cannot write .*results: .*Make the folder writable or choose another --out"),
        Store(tmp_path / "results").locked(),
    ):
        pass
    assert (tmp_path / "results").read_text() == "mine"
