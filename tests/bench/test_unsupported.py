"""What a method does not support is an answer with its reason, of an entry or of an image."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result

from bench.runner import Outcome
from certifiers import Unsupported, create
from ensembles import WeightedAverage
from leaderboards import read_run
from tests.bench.runs_under_test import ENTRIES, Make, only, rows_with_seconds, with_certifier


def test_unsupported_is_an_answer_with_its_reason(
    run: Callable[..., Outcome], plan_of: Make, certbench: Callable[..., Result], trained: Path
) -> None:
    plan = plan_of()
    cells = (plan.cells[0], dataclasses.replace(plan.cells[1], certifier=create("closed-form")))
    outcome = run(dataclasses.replace(plan, cells=cells, images=plan.images.spread(4)))
    assert outcome.statuses == {"single": "complete", ENTRIES[1]: "unsupported"}
    reason = "the layer ReLU is not linear. Use smoothing, or a certifier for networks."
    assert reason in outcome.reasons[ENTRIES[1]]
    entry = read_run(outcome.manifest).entries[1]
    assert (entry.status, len(entry.rows)) == ("unsupported", 0)
    assert reason in entry.reason
    shown = json.loads(certbench("board", "tiny", "--output", trained, "--json").stdout)
    assert [(line["name"], line["status"], line["rank"]) for line in shown["entries"]] == [
        ("single", "complete", 1),
        (ENTRIES[1], "unsupported", None),
    ]
    assert reason in shown["entries"][1]["reason"]


@pytest.mark.slow
def test_workers_leave_out_what_the_first_part_found_to_be_unsupported(
    run: Callable[..., Outcome], plan_of: Make, trained: Path
) -> None:
    plan = plan_of()
    cells = (plan.cells[0], dataclasses.replace(plan.cells[1], certifier=create("closed-form")))
    outcome = run(dataclasses.replace(plan, cells=cells, images=plan.images.spread(6)), jobs=2, block_size=2)
    assert outcome.statuses == {"single": "complete", ENTRIES[1]: "unsupported"}
    assert outcome.computed == 6, "no row of a later part"
    assert "the layer ReLU is not linear" in outcome.reasons[ENTRIES[1]]
    assert len(list(trained.glob("cells/*/rows-*"))) == 3


def test_unsupported_by_one_of_a_group_leaves_the_others(
    run: Callable[..., Outcome], plan_of: Make, scripted: Any
) -> None:
    def picky(classifier: Any, x: Any, threat: Any, rng: Any) -> torch.Tensor:
        if isinstance(classifier.aggregation, WeightedAverage):
            raise Unsupported("not averages; use max-margin")
        return torch.ones(len(x))

    outcome = run(only(with_certifier(plan_of(), scripted(picky)()), 0, 1, 2, images=4), block_size=2)
    assert outcome.statuses == dict(zip(ENTRIES, ("complete", "unsupported", "complete"), strict=True))
    assert outcome.reasons[ENTRIES[1]] == "not averages; use max-margin"
    assert outcome.computed == 8
    assert not outcome.failed


@pytest.mark.parametrize("size", [1, 2, 50])
def test_an_image_that_is_not_supported_is_a_row_unless_it_is_the_first(
    size: int, run: Callable[..., Outcome], plan_of: Make, scripted: Any
) -> None:
    plan = only(plan_of(), 0, images=5)
    refused = plan.images.ids[[1, 2, 3]].tolist()

    def picky(classifier: Any, x: Any, threat: Any, rng: Any) -> torch.Tensor:
        if set(rng.image_ids) & set(refused):
            raise Unsupported("too dark")
        return torch.ones(len(x))

    outcome = run(with_certifier(plan, scripted(picky)()), block_size=size)
    assert outcome.statuses == {"single": "complete"}
    rows = rows_with_seconds(outcome)["single"]
    assert rows["verdict"].tolist() == ["CERTIFIED", *["UNSUPPORTED"] * 3, "CERTIFIED"]
    assert rows["reason"].tolist() == ["", *["too dark"] * 3, ""]
    refused[0] = int(plan.images.ids[0])
    outcome = run(with_certifier(plan, scripted(picky, "pickier")()), block_size=size)
    assert (outcome.statuses, outcome.reasons) == ({"single": "unsupported"}, {"single": "too dark"})
    assert outcome.measured == []
