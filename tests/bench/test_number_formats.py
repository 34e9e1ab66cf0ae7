"""Entries in shorter number formats, and ensembles of some of the members, beside the one that they are made of."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from bench.audit_subjects import images_of, read_manifest, subject_of
from bench.certification import Task, groups_of
from bench.plan import Plan
from bench.runner import Outcome
from bench.store import Store
from certifiers import Certifier, create
from ensembles import Ensemble
from ensembles.precision import ReducedPrecision
from tests.bench.runs_under_test import Make, rows_without_seconds

AVERAGE = 'aggregation = ["weighted-average", "max-margin"]'
BOTH = 'aggregation = "weighted-average"\nprecision = ["float32", "bfloat16"]'


def test_a_format_is_part_of_name_label_and_key(plan_of: Make, edited: Callable[..., str]) -> None:
    cells = plan_of(edited((AVERAGE, BOTH))).cells
    names = ["single", "three · weighted-average · smoothing", "three · weighted-average in bfloat16 · smoothing"]
    assert [cell.name for cell in cells] == names
    assert cells[2].labels == ("weighted-average in bfloat16", "smoothing")
    plan = plan_of()
    fields = [cell.key_fields(["w"], plan.spec, plan.images) for cell in (*cells[1:], plan.cells[1])]
    assert [own.pop("dtype") for own in fields] == ["float32", "bfloat16", "float32"]
    assert fields[0] == fields[1] == fields[2]
    assert [job.digest for job in cells[1].jobs] == [job.digest for job in cells[2].jobs], "trained once"


def test_bounds_of_shorter_formats_are_unsupported(plan_of: Make, edited: Callable[..., str]) -> None:
    text = edited((AVERAGE, BOTH), ("[certifiers.smoothing]", "[certifiers.lipschitz]\n[certifiers.smoothing]"))
    text = text.replace(
        'precision = ["float32", "bfloat16"]\ncertifier = "smoothing"', 'precision = "float16"\ncertifier = "lipschitz"'
    )
    reasons = [cell.reason for cell in plan_of(text).cells]
    assert reasons == ["", "lipschitz bounds networks in float32 or float64, not in float16; smoothing samples any."]


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ('"bf16"', "Input should be 'float32', 'bfloat16' or 'float16'"),
        ("[]", "at least 1 item"),
        ('["float32", "float16"]\nname = "two"', "a name fits one line of the board, this entry makes 4"),
    ],
)
def test_what_is_not_a_format_is_refused(written: str, told: str, plan_of: Make, edited: Callable[..., str]) -> None:
    with pytest.raises(ValueError, match=told):
        plan_of(edited((AVERAGE, f"{AVERAGE}\nprecision = {written}")))


def test_a_run_counts_votes_of_the_rounded_networks_and_an_audit_attacks_them(
    run: Callable[..., Outcome], plan_of: Make, edited: Callable[..., str], trained: Path
) -> None:
    plan = plan_of(edited((AVERAGE, BOTH), ("every = 18", "every = 60")))
    outcome = run(plan)
    rows = rows_without_seconds(outcome)
    _, plain, rounded = (rows[cell.name] for cell in plan.cells)
    counts = plain["evidence_n_A"], rounded["evidence_n_A"]
    assert 0 < int((counts[0] - counts[1]).abs().sum()) < 0.05 * int(counts[0].sum())
    entries = read_manifest(outcome.manifest)["entries"]
    assert [entry["details"].get("precision") for entry in entries] == [None, None, "bfloat16"]
    subjects = [subject_of(entry, images_of(entry, plan.dataset), Store(trained), "cpu") for entry in entries[1:]]
    kinds = [{type(member) is ReducedPrecision for member in subject.ensemble.members} for subject in subjects]
    assert kinds == [{False}, {True}]


# ---- groups


def tasks(plan: Plan, certifier: Certifier | None = None, pending: tuple[int, ...] = (0, 1)) -> list[Task]:
    ensemble = Ensemble([nn.Identity()])
    return [
        Task(cell, "", {}, [], ensemble, certifier or cell.certifier, pending) for cell in plan.cells if not cell.reason
    ]


@pytest.fixture
def nested(plan_of: Make, edited: Callable[..., str]) -> Plan:
    """Three members, the first two of them, and three others."""
    text = edited()
    start, end = text.index("[ensembles.three]"), text.index("[certifiers")
    table = text[start:end]
    text = (
        text[:end]
        + table.replace(".three", ".two").replace("= 3\nobj", "= 2\nobj")
        + table.replace(".three", ".others").replace("[16]", "[17]")
        + text[end:]
    )
    text += '\n[[entries]]\nensemble = ["two", "others"]\naggregation = "max-margin"\ncertifier = "smoothing"\n'
    return plan_of(text)


def names(groups: list[list[Task]]) -> list[list[str]]:
    return [[task.cell.name.split(" · ")[0] for task in group] for group in groups]


def test_some_of_the_members_share_the_pass_of_all(nested: Plan) -> None:
    assert names(groups_of(tasks(nested))) == [["single", "three", "three", "two"], ["others"]]


def test_methods_that_share_nothing_are_not_put_together(nested: Plan) -> None:
    found = names(groups_of(tasks(nested, create("lipschitz"))))
    assert found == [["single", "three", "three"], ["two"], ["others"]]


def test_tasks_with_other_images_to_do_are_apart(nested: Plan) -> None:
    some = tasks(nested)
    some[3].pending = (1,)
    some[1].pending = ()
    assert names(groups_of(some)) == [["single", "three"], ["two"], ["others"]]


def test_formats_are_apart(plan_of: Make, edited: Callable[..., str]) -> None:
    assert names(groups_of(tasks(plan_of(edited((AVERAGE, BOTH)))))) == [["single", "three"], ["three"]]


def test_rows_of_an_ensemble_of_two_are_the_same_beside_that_of_three(
    run: Callable[..., Outcome], nested: Plan, trained: Path
) -> None:
    plan = dataclasses.replace(nested, cells=nested.cells[1:4], images=nested.images.spread(4))
    together = rows_without_seconds(run(plan))
    shutil.rmtree(trained / "cells")
    alone: dict[str, Any] = {}
    for cell in plan.cells:
        alone |= rows_without_seconds(run(dataclasses.replace(plan, cells=(cell,))))
    assert list(alone) == list(together)
    for name, rows in together.items():
        assert rows.equals(alone[name]), name
