"""Evidence is stored as columns, and what cannot be stored fails its entry alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from bench.runner import Outcome
from certifiers import Findings
from tests.bench.runs_under_test import Make, only, rows_with_seconds, with_certifier


@pytest.mark.parametrize(
    ("evidence", "text"),
    [
        ({"bounds": torch.zeros(1, 3)}, "ValueError: The evidence 'bounds' must be one real number or one string an "),
        ({"roots": torch.zeros(1, dtype=torch.complex64)}, "ValueError: The evidence 'roots' must be one real number"),
        ({"long": torch.zeros(2)}, "ValueError: Findings.evidence['long'] must have 1 entries, got 2."),
    ],
)
def test_evidence_that_cannot_be_stored_fails_the_entry_and_not_the_run(
    evidence: dict[str, Any], text: str, run: Callable[..., Outcome], plan_of: Make, scripted: Any
) -> None:
    found = Findings(radius=torch.ones(1), evidence=evidence)
    outcome = run(only(with_certifier(plan_of(), scripted(lambda *_: found)()), 0, images=2))
    assert outcome.statuses == {"single": "failed"}
    assert text in outcome.reasons["single"]


def test_evidence_is_stored_as_columns(run: Callable[..., Outcome], plan_of: Make, scripted: Any) -> None:
    def found(classifier: Any, x: Any, threat: Any, rng: Any) -> Findings:
        evidence = {"bound": torch.tensor([rng.image_ids[0] / 8]), "side": [f"left of {rng.image_ids[0]}"]}
        return Findings(radius=torch.ones(1), evidence=evidence)

    rows = rows_with_seconds(run(only(with_certifier(plan_of(), scripted(found)()), 0, images=2)))["single"]
    assert rows["evidence_bound"].tolist() == [image / 8 for image in rows["image_id"]]
    assert rows["evidence_side"].tolist() == [f"left of {image}" for image in rows["image_id"]]
