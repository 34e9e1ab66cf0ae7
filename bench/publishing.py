"""What of a stored run is published beside its rows: the logs of its trainings, and pictures of its images."""

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from bench import datasets
from bench.audit_subjects import AuditError, images_of
from bench.datasets import DataError
from bench.keys import digest
from bench.spec import SpecError, spec_of
from bench.store import Store
from ensembles.registry import RegistryError
from leaderboards.pictures import MOST_PICTURES, Pictures
from leaderboards.published import Log

#: Longer sides are reduced to this, in pixels.
_LARGEST = 32


def training_logs(document: Mapping[str, Any], store: Store) -> tuple[list[Log], dict[str, list[int]]]:
    """The logs of all trainings of a run, and which of them are each entry's.

    A training whose log is not stored, such as one that was only planted, is left out.
    """
    numbers: dict[str, int] = {}
    logs: list[Log] = []
    trained: dict[str, list[int]] = {}
    for entry in document["entries"]:
        own = []
        for job in entry.get("details", {}).get("training", ()):
            key = digest({name: value for name, value in job.items() if name != "label"})
            path = store.checkpoint(key).with_suffix(".log.jsonl")
            if key not in numbers and path.is_file():
                lines = path.read_text(encoding="utf-8").splitlines()
                numbers[key] = len(logs)
                logs.append(Log(str(job["label"]), tuple(json.loads(line) for line in lines)))
            if key in numbers:
                own.append(numbers[key])
        trained[str(entry["name"])] = own
    return logs, trained


def pictures_of(document: Mapping[str, Any]) -> tuple[Pictures | None, str]:
    """A sheet with a small picture of every image of a run, or None and why there is none.

    The images are those that the rows are about: their digest is that of the run.
    """
    ids = [int(image) for image in document["entries"][0]["image_ids"]]
    if not 0 < len(ids) <= MOST_PICTURES:
        return None, f"{len(ids)} images; pictures are published of 1 to {MOST_PICTURES}"
    try:
        spec = spec_of(document["spec_text"], "run.json")
        dataset = datasets.load(spec.data.name, spec.data.root)
        images = images_of(document["entries"][0], dataset)
        pixels = images.images(range(len(images))).numpy()
    except (SpecError, RegistryError, AuditError, DataError, ImportError, OSError) as error:
        return None, f"the images cannot be loaded: {error}"
    if pixels.shape[1] not in (1, 3):
        return None, f"images have {pixels.shape[1]} channels; a picture has 1 or 3"
    tiles = [_tile(image) for image in pixels]
    width, height = tiles[0].size
    columns = max(1, int(np.ceil(np.sqrt(len(tiles)))))
    sheet = Image.new(tiles[0].mode, (columns * width, -(-len(tiles) // columns) * height))
    for number, tile in enumerate(tiles):
        sheet.paste(tile, (number % columns * width, number // columns * height))
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    return Pictures(buffer.getvalue(), tuple(ids), columns, width, height), ""


def _tile(image: npt.NDArray[np.float32]) -> Image.Image:
    levels = np.round(image * 255).astype(np.uint8)
    tile = Image.fromarray(levels[0]) if len(levels) == 1 else Image.fromarray(levels.transpose(1, 2, 0))
    if max(tile.size) > _LARGEST:
        tile.thumbnail((_LARGEST, _LARGEST))
    return tile
