import json
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import pandas as pd
import pytest

from leaderboards import published, render
from leaderboards.published import Log, is_published, read_published, write_published
from leaderboards.records import StoredDataError, read_run
from leaderboards.render import replace_file
from tests.leaderboards.test_audits import audits
from tests.leaderboards.test_audits import store as store_audits
from tests.leaderboards.test_records import entry_item, store, write_run

KEY = "k" * 64


@pytest.fixture
def manifest(tmp_path: Path, make_rows: Callable[..., pd.DataFrame]) -> Path:
    """A store with one cell of three images, one of whose certificates an audit refuted."""
    cell = tmp_path / "cells" / KEY[:32]
    store(cell, make_rows([0.5, 1.0, None]))
    store_audits(cell, audits((0, 0.5, 0.25), (10, 1.0, 2.0)), key=KEY)
    (cell / "witness-000000-aa.safetensors").write_bytes(b"witness")
    item = entry_item(key=KEY, folder=f"cells/{KEY[:32]}", image_ids=[20, 0, 10], details={"certifier": {"name": "x"}})
    for name, certifier in (("ours", "x"), ("other", "y")):
        check = {"document": "certbench-conformance", "document_version": 1, "certifier": {"name": certifier}}
        check |= {"kit": 1, "seed": 7, "quick": True, "checks": []}
        (tmp_path / "conformance").mkdir(exist_ok=True)
        (tmp_path / "conformance" / f"{name}.json").write_text(json.dumps(check))
    return write_run(tmp_path, [item])


def test_everything_that_pages_need_is_in_the_folder(manifest: Path, tmp_path: Path) -> None:
    folder = tmp_path / "published"
    write_published(manifest, folder, logs=[Log("one", ({"loss": 1.0},))], trained={"name": [0]})
    found, (entry,) = read_published(folder), read_run(manifest).entries
    pd.testing.assert_frame_equal(found.run.entries[0].rows, entry.rows, check_exact=True)
    assert entry.audit is not None
    assert (entry.audit, entry.attack_radii) == (found.run.entries[0].audit, {0: 0.25, 10: 2.0})
    assert entry.audit.unsound
    assert (found.logs, found.trained) == ((Log("one", ({"loss": 1.0},)),), {"name": (0,)})
    assert (folder / "witnesses" / KEY[:32] / "witness-000000-aa.safetensors").read_bytes() == b"witness"
    # The checks of other certifiers are not the run's.
    assert [path.name for path in (folder / "conformance").iterdir()] == ["ours.json"]
    assert found.run.entries[0].conformance == entry.conformance
    assert entry.conformance is not None
    assert (is_published(folder / "run.json"), is_published(manifest)) == (True, False)


def test_a_store_is_not_a_published_folder(manifest: Path) -> None:
    with pytest.raises(StoredDataError, match=r"without packed rows\. Publish the run again"):
        read_published(manifest.parent)
    manifest.write_text("{")
    with pytest.raises(StoredDataError, match="not the description of a run"):
        is_published(manifest)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"logs": []}',
        '{"logs": [{"label": "a"}], "entries": {}}',
        '{"logs": [], "entries": {"name": [0]}}',
        '{"logs": [{"label": "a", "epochs": []}], "entries": {"name": [-1]}}',
    ],
)
def test_logs_that_are_none_are_refused(manifest: Path, tmp_path: Path, text: str) -> None:
    folder = tmp_path / "published"
    write_published(manifest, folder)
    (folder / "training.json").write_text(text)
    with pytest.raises(StoredDataError, match="not the logs of trainings"):
        read_published(folder)


@pytest.mark.parametrize("packed", [None, {}, {"rows": []}, {"rows": [3], "audits": []}, "rows"])
def test_a_description_that_names_no_files_is_refused(manifest: Path, tmp_path: Path, packed: object) -> None:
    folder = tmp_path / "published"
    write_published(manifest, folder)
    document = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(document | {"packed": packed}))
    with pytest.raises(StoredDataError, match="not the description of a run"):
        read_published(folder)


def test_rows_left_out_of_the_description_are_missed(manifest: Path, tmp_path: Path) -> None:
    folder = tmp_path / "published"
    write_published(manifest, folder)
    document = json.loads((folder / "run.json").read_text())
    document["packed"]["rows"] = []
    (folder / "run.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match="is complete for 3 images but has 0 rows"):
        read_published(folder)


def test_audits_with_impossible_numbers_are_refused(manifest: Path, tmp_path: Path) -> None:
    folder, cell = tmp_path / "published", tmp_path / "cells" / KEY[:32]
    write_published(manifest, folder)
    assert len(list(folder.glob("audits-*.parquet"))) == 1
    store_audits(cell, audits((10, 1.0, -2.0)), key=KEY)
    with pytest.raises(StoredDataError, match="a radius that is not a positive number"):
        write_published(manifest, folder)
    assert read_published(folder).run.entries[0].attack_radii == {0: 0.25, 10: 2.0}


def files_under(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_while_there_is_room(room: Iterator[int], path: Path, content: bytes) -> None:
    if next(room, None) is None:
        raise OSError("disk full")
    replace_file(path, content)


def test_publishing_that_stops_at_any_file_leaves_the_folder_as_it_was(
    manifest: Path, tmp_path: Path, make_rows: Callable[..., pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, cell, checks = tmp_path / "published", tmp_path / "cells" / KEY[:32], tmp_path / "conformance"
    write_published(manifest, folder, logs=[Log("one", ({"loss": 1.0},))], trained={"name": [0]})
    (folder / "findings.md").write_text("ours")
    before, known = files_under(folder), read_published(folder)
    # Since then: other rows, no audit but a witness, another training, and of the checks one replaced, one more.
    for path in cell.iterdir():
        path.unlink()
    store(cell, make_rows([0.7, 1.1, None]))
    (cell / "witness-000000-bb.safetensors").write_bytes(b"other")
    document = json.loads((checks / "ours.json").read_text())
    (checks / "ours.json").write_text(json.dumps(document | {"kit": 2}))
    (checks / "again.json").write_text(json.dumps(document | {"seed": 8}))
    for files in count():
        write = partial(write_while_there_is_room, iter(range(files)))
        with monkeypatch.context() as patched:
            for module in (published, render):
                patched.setattr(module, "replace_file", write)
            try:
                write_published(manifest, folder, logs=[Log("two", ({"loss": 2.0},))], trained={"name": [0]})
                break
            except OSError:
                assert files_under(folder) == before
                pd.testing.assert_frame_equal(read_published(folder).board.table(), known.board.table())
    assert files >= 9
    found, (entry,) = read_published(folder), read_run(manifest).entries
    pd.testing.assert_frame_equal(found.run.entries[0].rows, entry.rows, check_exact=True)
    assert found.run.entries[0].conformance == entry.conformance != known.run.entries[0].conformance
    assert (found.logs, found.findings) == ((Log("two", ({"loss": 2.0},)),), "ours")
    assert sorted(path.name for path in (folder / "conformance").iterdir()) == ["again.json", "ours.json"]
    assert (len(list(folder.glob("rows-*.parquet"))), list(folder.glob("audits-*"))) == (1, [])


def test_a_run_called_as_the_folder_of_checks_keeps_its_other_files(manifest: Path, tmp_path: Path) -> None:
    folder = tmp_path / "boards" / "conformance"
    write_published(manifest, folder)
    (folder / "findings.md").write_text("ours")
    (folder / "conformance" / "stale.json").write_text("{}")
    write_published(manifest, folder)
    assert read_published(folder).findings == "ours"
    assert [path.name for path in (folder / "conformance").iterdir()] == ["ours.json"]


def test_findings_are_read_and_stay_when_the_run_is_published_again(manifest: Path, tmp_path: Path) -> None:
    folder = tmp_path / "published"
    write_published(manifest, folder)
    assert read_published(folder).findings == ""
    (folder / "findings.md").write_text("# Was h\u00e4lt", encoding="utf-8")
    write_published(manifest, folder)
    assert read_published(folder).findings == "# Was h\u00e4lt"
    (folder / "findings.md").write_bytes(b"\xff\xfe")
    with pytest.raises(StoredDataError, match=r"findings\.md: not a text in UTF-8 .* a board needs no findings"):
        read_published(folder)
