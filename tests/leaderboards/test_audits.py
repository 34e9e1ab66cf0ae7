import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from leaderboards.audits import AUDIT_SCHEMA, Audit, attack_radii, audit_name, audit_texts, audited, read_audits
from leaderboards.board import board_of
from leaderboards.documents import json_document
from leaderboards.page import html_page
from leaderboards.records import Entry
from leaderboards.tables import latex_table, markdown_page
from leaderboards.verified_files import CELL_METADATA, StoredDataError


def rows(radii: list[float]) -> pd.DataFrame:
    count = len(radii)
    return pd.DataFrame(
        {
            "image_id": range(count),
            "label": [1] * count,
            "clean_prediction": [1] * count,
            "prediction": [1] * count,
            "verdict": ["CERTIFIED" if radius else "UNKNOWN" for radius in radii],
            "radius": radii,
            "failure_probability": [0.25 if radius else 0.0 for radius in radii],
            "forward_passes": [1] * count,
            "bound_passes": [1] * count,
            "seconds": [0.5] * count,
            "reason": [""] * count,
        }
    )


def audits(*found: tuple[int, float, float], prediction: int = 1) -> pd.DataFrame:
    """Of each an image, the radius that was attacked, the distance of what was found."""
    frame = pd.DataFrame(found, columns=["image_id", "radius", "attack_radius"])
    frame = frame.assign(prediction=prediction, answer=2, margin=0.5, p_value=0.0, method="apgd", witness="")
    return frame.assign(attack="{}", forward_passes=3, seconds=0.1)


def store(folder: Path, frame: pd.DataFrame, key: str = "k") -> Path:
    columns = {item.name: pa.array(frame[item.name], type=item.type) for item in AUDIT_SCHEMA}
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns).replace_schema_metadata({CELL_METADATA: key.encode()}), buffer)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / audit_name(buffer.getvalue(), int(frame["image_id"].iloc[0]))
    path.write_bytes(buffer.getvalue())
    return path


def test_counts_tightness_and_refuted_rows() -> None:
    stored = rows([0.5, 0.5, 0.5, 0.5, 0.0])
    found, audit = audited(stored, audits((0, 0.5, 1.0), (1, 0.5, 0.5), (2, 0.5, float("inf")), (4, 0.5, 0.1)))
    # Image 1 has a counterexample at its very radius; 3 was not audited; 4 had no certificate to refute.
    assert found["verdict"].tolist() == ["CERTIFIED", "FALSIFIED", "CERTIFIED", "CERTIFIED", "UNKNOWN"]
    assert found["radius"].tolist() == [0.5, 0.0, 0.5, 0.5, 0.0]
    assert found["reason"][1] == "refuted by an audit: an input at distance 0.5 is answered 2, not 1"
    assert found["failure_probability"][1] == 0
    assert stored["verdict"].tolist() == ["CERTIFIED"] * 4 + ["UNKNOWN"]  # what was given is as it was
    assert audit == Audit(4, 3, 1, 1, 0.5, 1.25), "alpha of all five images that were asked"
    assert audit.warnings() == ("UNSOUND: 1 of 3 audited certificates refuted, at most 1.2 expected of all images",)
    assert audit_texts(audit) == ("3 of 4, 1 refuted", "0.500")
    assert audit_texts(None) == ("–", "–")


def test_the_nearest_of_several_audits_counts() -> None:
    twice = audits((0, 0.5, float("inf")), (0, 0.5, 0.625), (1, 0.25, 1.0), (1, 0.25, 0.5))
    found, audit = audited(rows([0.5, 0.25]), twice)
    assert audit is not None
    assert (audit.audited, audit.refuted, audit.enclosed, audit.tightness) == (2, 0, 2, 0.65)
    assert (found["verdict"] == "CERTIFIED").all()


def test_an_audit_of_a_smaller_ball_or_another_class_is_no_audit() -> None:
    _, smaller = audited(rows([0.5]), audits((0, 0.25, float("inf"))))
    assert smaller == Audit(1, 0, 0, 0, None, 0.25)
    kept, other = audited(rows([0.5]), audits((0, 0.5, 0.1), prediction=3))
    assert other == Audit(1, 0, 0, 0, None, 0.25)
    assert kept["verdict"].tolist() == ["CERTIFIED"]
    # But a counterexample refutes every larger radius, whatever ball it was looked for in.
    found, larger = audited(rows([0.5]), audits((0, 0.25, 0.125)))
    assert found["verdict"].tolist() == ["FALSIFIED"]
    assert larger == Audit(1, 1, 1, 0, None, 0.25)


def test_without_audits_nothing_is_said(tmp_path: Path) -> None:
    stored = rows([0.5])
    assert read_audits(tmp_path) is None
    assert audited(stored, None) == (stored, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "the bytes do not match the digest in the name"),
        (lambda path: path.rename(path.with_name("audit-1-x.parquet")), "the bytes do not match the digest"),
    ],
)
def test_altered_files_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    change(store(tmp_path / "k", audits((0, 0.5, 1.0))))
    with pytest.raises(StoredDataError, match=message):
        read_audits(tmp_path / "k")


def test_strange_numbers_and_other_cells_are_refused(tmp_path: Path) -> None:
    store(tmp_path / "k", audits((0, 0.5, -1.0)))
    with pytest.raises(StoredDataError, match="an audit has a radius that is not a positive number"):
        read_audits(tmp_path / "k")
    store(tmp_path / "other", audits((0, 0.5, 1.0)))
    with pytest.raises(StoredDataError, match="holds rows of another cell, k"):
        read_audits(tmp_path / "other")


def entry(name: str, radii: list[float], audit: pd.DataFrame | None = None) -> Entry:
    found, summary = audited(rows(radii), audit)
    return Entry(
        *(name, "digits", "test", "d", len(radii), "l2", "three", "single", "crown", "probabilistic", "complete"),
        rows=found,
        audit=summary,
        warnings=summary.warnings() if summary else (),
    )


def test_an_unsound_entry_is_last_and_without_a_rank() -> None:
    best = entry("liar", [0.5, 0.5, 0.5], audits((0, 0.5, 0.25)))
    board = board_of([best, entry("poor", [0.1, 0.0, 0.0]), entry("good", [0.5, 0.0, 0.0])], [0, "1/2"])
    assert [(line.entry.name, line.rank) for line in board.lines] == [("good", 1), ("poor", 2), ("liar", None)]
    table = board.table().set_index("entry")
    assert table.loc["liar", "certified@0.5"] == pytest.approx(2 / 3)
    assert table["refuted"].to_dict() == {"good": 0, "poor": 0, "liar": 1}
    page, text = html_page(board), markdown_page(board)
    assert "UNSOUND: 1 of 1 audited certificates refuted" in page
    assert "**UNSOUND: 1 of 1 audited certificates refuted" in text
    assert "| 1 of 3, 1 refuted | – |" in text
    assert "its entry is UNSOUND and without a rank" in text
    assert r"liar (\textbf{unsound})" in latex_table(board)
    document = json.loads(json_document(board))
    assert document["entries"][2]["audit"] == {
        **dataclasses.asdict(Audit(3, 1, 1, 0, None, 0.75)),
        "unsound": True,
    }
    assert "audit" not in document["entries"][0]


def test_a_board_without_audits_has_no_such_columns() -> None:
    board = board_of([entry("good", [0.5])], [0])
    assert "tightness" not in board.table().columns
    assert "Tightness" not in html_page(board)
    assert "tightness" not in markdown_page(board)


def test_attack_radii_are_the_nearest_of_each_certificate() -> None:
    stored = rows([0.5, 0.5, 0.5, 0.5])
    found = audits((0, 0.5, 1.0), (0, 0.5, 0.75), (1, 0.5, float("inf")), (2, 0.25, float("inf")), (3, 0.25, 0.125))
    # Nothing found in a part of the ball of image 2 says nothing; a counterexample there does.
    assert attack_radii(stored, found) == {0: 0.75, 1: float("inf"), 3: 0.125}
    assert attack_radii(stored, audits((0, 0.5, 0.75), prediction=3)) == {}
    assert attack_radii(stored.assign(verdict="UNKNOWN"), found) == {}
    assert attack_radii(stored, None) == {}
