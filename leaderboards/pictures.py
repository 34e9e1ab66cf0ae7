"""Small pictures of the images of a run, on one sheet: rows hold the ids of images, not their pixels."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leaderboards.verified_files import StoredDataError, digest_of

_NAME = re.compile(r"^images-(?P<digest>[0-9a-f]{32})\.png$")

#: Of more images a page would be too large.
MOST_PICTURES = 1000

_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Pictures:
    """A sheet of pictures.

    Attributes:
        sheet: a PNG of rows of tiles, filled from the left, then downwards.
        image_ids: the images, in the order of the tiles.
        columns: tiles a row.
        width: of a tile, in pixels.
        height: of a tile, in pixels.
    """

    sheet: bytes
    image_ids: tuple[int, ...]
    columns: int
    width: int
    height: int

    @property
    def name(self) -> str:
        """The name of the sheet's file: `images-<digest of its bytes>.png`."""
        return f"images-{digest_of(self.sheet)}.png"

    def document(self) -> dict[str, Any]:
        """What `run.json` says of it."""
        own = {"file": self.name, "image_ids": list(self.image_ids)}
        return own | {"columns": self.columns, "width": self.width, "height": self.height}


def read_pictures(folder: Path, document: Mapping[str, Any] | None) -> Pictures | None:
    """The sheet that a published `run.json` names; None where it names none.

    Raises:
        StoredDataError: it is missing, was altered, or is not described as one.
    """
    if document is None:
        return None
    try:
        match = _NAME.match(document["file"])
        content = (folder / document["file"]).read_bytes() if match else b""
        ids = tuple(map(int, document["image_ids"]))
        columns, width, height = (int(document[name]) for name in ("columns", "width", "height"))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise StoredDataError(f"{folder}: the pictures of its images cannot be read ({error}).") from error
    if match is None or match["digest"] != digest_of(content) or not content.startswith(_PNG):
        raise StoredDataError(f"{folder}: {document['file']!r} is not the sheet of pictures that was published.")
    if min(columns, width, height) < 1:
        raise StoredDataError(f"{folder}: pictures of {width} x {height} pixels, {columns} a row, are none.")
    return Pictures(content, ids, columns, width, height)


def is_sheet(path: Path) -> bool:
    """Whether a file's name is that of a sheet of pictures."""
    return _NAME.match(path.name) is not None
