from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.rows import error_rows, rows_of
from certifiers import Certificates, Cost, Verdict
from leaderboards.records import ROW_SCHEMA, VERDICTS


def certificates(verdicts: list[Verdict], **changes: Any) -> Certificates:
    count = len(verdicts)
    fields: dict[str, Any] = {
        "prediction": torch.arange(count),
        "radius": torch.linspace(0, 1, count, dtype=torch.float64),
        "verdict": torch.tensor([int(verdict) for verdict in verdicts], dtype=torch.int8),
        "failure_probability": torch.full((count,), 0.001, dtype=torch.float64),
        "evidence": {"p_A": torch.linspace(0.5, 1, count), "side": ["one-sided"] * count},
        "reason": tuple(f"reason {number}" for number in range(count)),
        "cost": Cost(
            forward_passes=torch.arange(count) + 10,
            bound_passes=torch.arange(count) + 20,
            seconds=torch.full((count,), 0.5, dtype=torch.float64),
        ),
    }
    return Certificates(**(fields | changes))


def test_rows_are_the_certificates_with_ids_labels_and_clean_predictions() -> None:
    rows = rows_of([7, 9], [1, 2], [1, 0], certificates([Verdict.CERTIFIED, Verdict.ABSTAINED]))
    assert rows.to_dict("list") == {
        "image_id": [7, 9],
        "label": [1, 2],
        "clean_prediction": [1, 0],
        "prediction": [0, 1],
        "verdict": ["CERTIFIED", "ABSTAINED"],
        "radius": [0.0, 1.0],
        "failure_probability": [0.001, 0.001],
        "forward_passes": [10, 11],
        "bound_passes": [20, 21],
        "seconds": [0.5, 0.5],
        "reason": ["reason 0", "reason 1"],
        "evidence_p_A": [0.5, 1.0],
        "evidence_side": ["one-sided", "one-sided"],
    }


def test_the_names_of_verdicts_are_those_of_the_schema() -> None:
    rows = rows_of(range(7), [0] * 7, [0] * 7, certificates(list(Verdict)))
    assert rows["verdict"].tolist() == [verdict.name for verdict in Verdict]
    assert set(rows["verdict"]) == set(VERDICTS)


def test_what_is_unknown_of_a_broken_classifier_is_an_error_and_nothing_else_changes() -> None:
    broken = rows_of(range(7), [0] * 7, [-1] * 7, certificates(list(Verdict)))
    expected = [Verdict.ERROR if verdict is Verdict.UNKNOWN else verdict for verdict in Verdict]
    assert broken["verdict"].tolist() == [verdict.name for verdict in expected]
    assert broken["reason"].tolist() == [f"reason {number}" for number in range(7)]


def test_rows_of_errors_have_the_schema_and_no_certificate() -> None:
    rows = error_rows([3, 4], [0, 9], "it broke")
    assert list(rows) == ROW_SCHEMA.names
    assert rows["image_id"].tolist() == [3, 4]
    assert rows["label"].tolist() == [0, 9]
    assert (rows["verdict"] == "ERROR").all()
    assert (rows["reason"] == "it broke").all()
    assert (rows[["prediction", "clean_prediction"]] == -1).all(axis=None)
    assert (rows[["radius", "failure_probability", "forward_passes", "bound_passes", "seconds"]] == 0).all(axis=None)


@pytest.mark.parametrize(
    "values", [torch.zeros(1, 1), torch.zeros(1, dtype=torch.complex64), [None], [1.5], [["a"]], torch.zeros(())]
)
def test_evidence_that_is_not_one_number_or_string_an_image_is_refused(values: Any) -> None:
    # Not a `Certificates`, whose types this process enforces and an outsider's does not.
    found = SimpleNamespace(**vars(certificates([Verdict.CERTIFIED])) | {"evidence": {"bounds": values}})
    with pytest.raises(ValueError, match=r"^The evidence 'bounds' must be one real number or one string an image\.$"):
        rows_of([0], [0], [0], found)  # type: ignore[arg-type]
