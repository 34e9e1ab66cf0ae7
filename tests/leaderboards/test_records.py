import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from leaderboards.records import (
    ROW_SCHEMA,
    SCHEMA_VERSION,
    StoredDataError,
    block_name,
    is_block,
    is_failed_block,
    no_rows,
    read_block,
    read_rows,
    read_run,
)

MakeRows = Callable[..., pd.DataFrame]


def parquet(rows: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table = pa.Table.from_pandas(rows, preserve_index=False)
    # pandas' own strings are Arrow's large ones; the schema asks for the plain type.
    plain = [pa.field(f.name, pa.string() if pa.types.is_large_string(f.type) else f.type) for f in table.schema]
    table = table.cast(pa.schema(plain))
    pq.write_table(table, buffer, write_page_checksum=True)
    return buffer.getvalue()


def store(folder: Path, rows: pd.DataFrame, *, failed: bool = False) -> Path:
    content = parquet(rows)
    path = folder / block_name(content, int(rows["image_id"].iloc[0]), failed=failed)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def write_run(root: Path, entries: list[dict[str, Any]], **changes: Any) -> Path:
    document = {
        "schema": SCHEMA_VERSION,
        "name": "quick",
        "title": "Quick",
        "description": "",
        "radii": ["0", "8/255"],
        "spec_text": "",
        "entries": entries,
    }
    manifest = root / "runs" / "quick" / "run.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps(document | changes))
    return manifest


def entry_item(**changes: Any) -> dict[str, Any]:
    texts = ("name", "dataset", "split", "images_digest", "norm", "ensemble", "aggregation", "certifier")
    item: dict[str, Any] = {text: text for text in (*texts, "guarantee")}
    item |= {"images": 3, "status": "complete", "key": "k", "folder": "cells/k", "image_ids": [20, 0, 10]}
    return item | changes


def test_rows_come_back_as_they_were(tmp_path: Path, make_rows: MakeRows) -> None:
    rows = make_rows([0.5, None, 1 / 3], evidence_n=[1, 2, 3])
    path = store(tmp_path, rows)
    assert is_block(path)
    assert not is_failed_block(path)
    pd.testing.assert_frame_equal(read_block(path), rows, check_dtype=False, check_exact=True)


def test_a_changed_or_truncated_file_is_refused(tmp_path: Path, make_rows: MakeRows) -> None:
    path = store(tmp_path, make_rows([0.5, 1.0]))
    content = path.read_bytes()
    for altered in (content[:-1], content[:100] + bytes([content[100] ^ 1]) + content[101:], b""):
        path.write_bytes(altered)
        with pytest.raises(StoredDataError, match="do not match the digest in the name"):
            read_block(path)


def test_a_file_of_another_name_is_refused(tmp_path: Path, make_rows: MakeRows) -> None:
    path = store(tmp_path, make_rows([0.5]))
    renamed = path.rename(tmp_path / "rows-000000.parquet")
    with pytest.raises(StoredDataError, match="do not match the digest in the name"):
        read_block(renamed)


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / block_name(b"hello", 0)
    path.write_bytes(b"hello")
    with pytest.raises(StoredDataError, match="not a readable Parquet file"):
        read_block(path)


def test_missing_mistyped_and_empty_columns_are_refused(tmp_path: Path, make_rows: MakeRows) -> None:
    rows = make_rows([0.5, 1.0])
    for wrong in (rows.drop(columns="label"), rows.assign(label=["a", "b"])):
        with pytest.raises(StoredDataError, match="column 'label' is missing or not of type int64"):
            read_block(store(tmp_path, wrong))
    with pytest.raises(StoredDataError, match="column 'reason' has empty cells"):
        read_block(store(tmp_path, rows.assign(reason=["", None])))


def test_finished_rows_win_over_failed_ones(tmp_path: Path, make_rows: MakeRows) -> None:
    rows = make_rows([0.5, 1.0, 1.5])
    store(tmp_path, rows.iloc[1:].assign(verdict="ERROR"), failed=True)
    store(tmp_path, rows.iloc[:2])
    found = read_rows(tmp_path).set_index("image_id")["verdict"]
    assert found.to_dict() == {0: "CERTIFIED", 10: "CERTIFIED", 20: "ERROR"}


def test_two_finished_rows_of_one_image_are_refused(tmp_path: Path, make_rows: MakeRows) -> None:
    rows = make_rows([0.5, 1.0])
    store(tmp_path, rows)
    store(tmp_path, rows.iloc[1:])
    with pytest.raises(StoredDataError, match=r"an image has two stored rows\. Remove the folder"):
        read_rows(tmp_path)


def test_an_empty_folder_has_no_rows_but_all_columns(tmp_path: Path) -> None:
    assert list(read_rows(tmp_path).columns) == ROW_SCHEMA.names
    assert no_rows().empty


def test_a_run_holds_the_rows_of_its_images_in_their_order(tmp_path: Path, make_rows: MakeRows) -> None:
    store(tmp_path / "cells" / "k", make_rows([0.5, 1.0, 1.5, 2.0]))
    without = entry_item(name="none", status="unsupported", folder="", image_ids=[])
    run = read_run(write_run(tmp_path, [entry_item(), without]))
    assert run.radii == ("0", "8/255")
    assert list(run.entries[0].rows["image_id"]) == [20, 0, 10]
    assert list(run.entries[0].rows["radius"]) == [1.5, 0.5, 1.0]
    assert run.entries[1].rows.empty


@pytest.mark.parametrize(
    "change",
    [
        {"folder": "cells/" + "b" * 32},  # of another entry
        {"folder": f"elsewhere/../cells/{'a' * 32}"},
        {"folder": f"cells/{'a' * 31}"},
        {"key": ""},
    ],
    ids=str,
)
def test_rows_of_another_key_are_refused(tmp_path: Path, make_rows: MakeRows, change: dict[str, str]) -> None:
    """Rows whose files do not say whose they are: only the folder does."""
    items = [entry_item(name=name, key=name * 64, folder=f"cells/{name * 32}") for name in ("a", "b")]
    for name in ("a", "b"):
        store(tmp_path / "cells" / (name * 32), make_rows([0.5, 1.0, 1.5]))
    manifest = write_run(tmp_path, items)
    assert [len(entry.rows) for entry in read_run(manifest).entries] == [3, 3]
    document = json.loads(manifest.read_text())
    document["entries"][0] |= change
    manifest.write_text(json.dumps(document))
    said = r"Entry 'a' takes its rows from '.*', but its key '.*' has the folder 'cells/.*'\. .* run the spec again"
    with pytest.raises(StoredDataError, match=said):
        read_run(manifest)


@pytest.mark.parametrize("name", ["../x", "/x", "..", "", "a/b", "a b", None, 3], ids=repr)
def test_a_run_whose_name_is_none_of_a_folder_is_refused(tmp_path: Path, name: object) -> None:
    said = r"run\.json: the run is named .*, which may lead out of the folder .* A name has .* run the spec again"
    with pytest.raises(StoredDataError, match=said):
        read_run(write_run(tmp_path, [], name=name))


def test_another_schema_is_refused(tmp_path: Path) -> None:
    manifest = write_run(tmp_path, [], schema=99)
    with pytest.raises(StoredDataError, match=r"written with schema 99, this program reads schema \d+\. Run"):
        read_run(manifest)


@pytest.mark.parametrize("text", ["{", "[]", "{}", "\xff"])
def test_what_is_no_run_is_refused(tmp_path: Path, text: str) -> None:
    manifest = write_run(tmp_path, [])
    manifest.write_text(text, encoding="latin-1")
    with pytest.raises(StoredDataError, match="not the description of a run"):
        read_run(manifest)


def test_an_entry_without_its_fields_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoredDataError, match="not the description of a run"):
        read_run(write_run(tmp_path, [{"folder": "", "image_ids": []}]))


def test_a_missing_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_run(tmp_path / "runs" / "none" / "run.json")
