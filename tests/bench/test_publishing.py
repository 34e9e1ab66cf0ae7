import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from PIL import Image

from bench.datasets import Dataset
from bench.publishing import pictures_of
from leaderboards import build_board, read_run
from leaderboards.documents import json_document
from leaderboards.published import read_published
from tests.bench.stores_under_test import files_under
from tests.bench.test_cli import LOADED

Certbench = Callable[..., Result]


@pytest.fixture(scope="module")
def published(finished: tuple[Path, Result], tmp_path_factory: pytest.TempPathFactory, certbench: Certbench) -> Path:
    """The tiny run, published."""
    folder = tmp_path_factory.mktemp("published")
    result = certbench("publish", "tiny", "--output", finished[0], "--to", folder)
    assert result.exit_code == 0, result.stderr
    assert "Its page: certbench pages." in result.stdout
    return folder


def test_what_is_published_is_what_is_stored(finished: tuple[Path, Result], published: Path) -> None:
    stored = read_run(finished[0] / "runs" / "tiny" / "run.json")
    found = read_published(published / "tiny")
    for ours, theirs in zip(found.run.entries, stored.entries, strict=True):
        pd.testing.assert_frame_equal(ours.rows, theirs.rows, check_exact=True)
    assert json_document(found.board) == json_document(build_board(stored))
    assert (published / "tiny" / "board.json").read_text() == json_document(found.board)
    assert len(list((published / "tiny").glob("rows-*.parquet"))) == 1


def test_the_logs_are_those_of_the_trainings_of_each_entry(finished: tuple[Path, Result], published: Path) -> None:
    found = read_published(published / "tiny")
    logs = [path.read_text().splitlines() for path in sorted((finished[0] / "ensembles").glob("*.log.jsonl"))]
    assert sorted(json.dumps(list(log.epochs)) for log in found.logs) == sorted(
        json.dumps([json.loads(line) for line in lines]) for lines in logs
    )
    assert found.trained == {entry.name: (0, 1, 2) for entry in found.run.entries}


def test_each_picture_is_its_image(published: Path, digits: Dataset) -> None:
    pictures = read_published(published / "tiny").pictures
    assert pictures is not None
    assert len(pictures.image_ids) == 20
    sheet = np.asarray(Image.open(io.BytesIO(pictures.sheet)))
    for number, image in enumerate(pictures.image_ids):
        down, right = divmod(number, pictures.columns)
        tile = sheet[down * 8 : down * 8 + 8, right * 8 : right * 8 + 8]
        np.testing.assert_array_equal(tile, np.round(digits.test.of_ids([image]).images([0]).numpy()[0, 0] * 255))


def test_images_that_are_not_those_of_the_run_get_no_pictures(published: Path) -> None:
    document = json.loads((published / "tiny" / "run.json").read_text())
    document["entries"][0]["images_digest"] = "0" * 64
    pictures, why = pictures_of(document)
    assert pictures is None
    assert "the images cannot be loaded: the images of digits have digest" in why


def test_published_again_from_itself_every_byte_is_the_same(
    published: Path, tmp_path: Path, certbench: Certbench
) -> None:
    folder = shutil.copytree(published, tmp_path / "published")
    assert certbench("publish", folder / "tiny" / "run.json").exit_code == 0
    assert files_under(folder) == files_under(published)


def test_a_published_run_is_no_store(published: Path, tmp_path: Path, certbench: Certbench) -> None:
    manifest = published / "tiny" / "run.json"
    result = certbench("audit", manifest)
    assert result.exit_code == 3
    assert "a published run has rows but no weights to attack. Audit it in the store" in result.stderr
    result = certbench("board", manifest, "--output", tmp_path)
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "boards" / "tiny" / "board.json").read_bytes() == manifest.with_name("board.json").read_bytes()
    assert sorted(path.name for path in published.iterdir()) == ["tiny"]


def test_what_was_published_before_goes(
    finished: tuple[Path, Result], published: Path, tmp_path: Path, certbench: Certbench
) -> None:
    folder = shutil.copytree(published, tmp_path / "published")
    (stale,) = (folder / "tiny").glob("rows-*.parquet")
    old = stale.with_name(f"rows-{'0' * 32}.parquet")
    old.write_bytes(b"old")
    note = folder / "tiny" / "findings.md"
    note.write_text("ours")
    words = ("--output", finished[0], "--to", folder, "--no-pictures")
    assert certbench("publish", "tiny", *words).exit_code == 0
    assert not old.exists()
    assert note.read_text() == "ours"
    assert not list((folder / "tiny").glob("images-*.png"))
    assert read_published(folder / "tiny").pictures is None


@pytest.mark.parametrize("name", ["rows-*.parquet", "images-*.png", "training.json"])
def test_pages_of_altered_or_missing_files_are_refused(
    published: Path, tmp_path: Path, certbench: Certbench, name: str
) -> None:
    folder = shutil.copytree(published, tmp_path / "published")
    (path,) = (folder / "tiny").glob(name)
    content = path.read_bytes()
    for altered in (content[:-40], None):
        path.unlink() if altered is None else path.write_bytes(altered)
        result = certbench("pages", "--published", folder, "--output", tmp_path / "pages")
        assert result.exit_code == 1
        assert result.stderr.startswith("error: ")
        assert not (tmp_path / "pages").exists()


def test_pages_are_made_without_torch(published: Path, tmp_path: Path, plain_python: Callable[..., str]) -> None:
    said = plain_python(LOADED, "pages", "--published", published, "--output", tmp_path / "pages")
    code, torch, _ = said.split()
    assert (code, torch) in (("0", "False"), ("None", "False"))
    assert sorted(path.name for path in (tmp_path / "pages").iterdir()) == ["index.html", "tiny.html"]


def test_without_published_boards_nothing_was_measured(tmp_path: Path, certbench: Certbench) -> None:
    result = certbench("pages", "--published", tmp_path / "none", "--output", tmp_path / "pages")
    assert result.exit_code == 4
    assert "Publish one: certbench publish RUN." in result.stderr


def test_no_name_of_a_run_leads_out_of_the_published_boards(
    finished: tuple[Path, Result], tmp_path: Path, certbench: Certbench
) -> None:
    store = shutil.copytree(finished[0], tmp_path / "store")
    manifest = store / "runs" / "tiny" / "run.json"
    document, before = json.loads(manifest.read_text()), files_under(store)
    for name in (str(tmp_path / "elsewhere"), "../elsewhere", ".."):
        manifest.write_text(json.dumps(document | {"name": name}))
        result = certbench("publish", manifest, "--to", tmp_path / "boards")
        assert (result.exit_code, result.stdout) == (1, "")
        assert f"the run is named {name!r}" in result.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert set(files_under(store)) == set(before)


def test_a_run_that_is_not_there_is_named(tmp_path: Path, certbench: Certbench) -> None:
    result = certbench("publish", "tinny", "--output", tmp_path)
    assert result.exit_code == 2
    assert "No run at" in result.stderr
