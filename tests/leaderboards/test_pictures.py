from pathlib import Path
from typing import Any

import pytest

from leaderboards.pictures import Pictures, is_sheet, read_pictures
from leaderboards.records import StoredDataError

SHEET = Pictures(b"\x89PNG\r\n\x1a\n...", (3, 1), 2, 8, 8)


def test_a_sheet_comes_back_as_it_was(tmp_path: Path) -> None:
    (tmp_path / SHEET.name).write_bytes(SHEET.sheet)
    assert is_sheet(tmp_path / SHEET.name)
    assert read_pictures(tmp_path, SHEET.document()) == SHEET
    assert read_pictures(tmp_path, None) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"file": "../images.png"}, "is not the sheet of pictures that was published"),
        ({"file": "images-" + "0" * 32 + ".png"}, "cannot be read"),
        ({"columns": 0}, "pictures of 8 x 8 pixels, 0 a row, are none"),
        ({"image_ids": None}, "cannot be read"),
    ],
)
def test_what_is_no_sheet_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    (tmp_path / SHEET.name).write_bytes(SHEET.sheet)
    with pytest.raises(StoredDataError, match=words):
        read_pictures(tmp_path, SHEET.document() | change)


def test_an_altered_sheet_and_one_that_is_no_png_are_refused(tmp_path: Path) -> None:
    (tmp_path / SHEET.name).write_bytes(SHEET.sheet + b"x")
    with pytest.raises(StoredDataError, match="is not the sheet"):
        read_pictures(tmp_path, SHEET.document())
    script = Pictures(b"<svg onload=alert(1)>", (3,), 1, 8, 8)
    (tmp_path / script.name).write_bytes(script.sheet)
    with pytest.raises(StoredDataError, match="is not the sheet"):
        read_pictures(tmp_path, script.document())
