"""Certifiers that count the same votes: one pass of a run serves them, and their rows are those of each alone."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.calibration import estimates
from bench.certification import groups_of, tasks_of
from bench.options import Options
from bench.plan import Plan
from bench.runner import Outcome
from bench.store import Store
from bench.training import stored_members
from tests.bench.conftest import Recording
from tests.bench.runs_under_test import Make, assert_equal, rows_with_seconds, rows_without_seconds

SMOOTHING = "[certifiers.smoothing]\nsigma = 0.25\nn0 = 50\nn = 1_000\nalpha = 0.01\n"
MEMBERS = SMOOTHING.replace(".smoothing]", ".smoothing-eas]")
ENTRY = '\n[[entries]]\nensemble = "three"\naggregation = "max-margin"\ncertifier = "smoothing-eas"\n'


@pytest.fixture
def both(plan_of: Make, edited: Callable[..., str]) -> Plan:
    return plan_of(edited((SMOOTHING, SMOOTHING + "\n" + MEMBERS)) + ENTRY)


def pending(plan: Plan, folder: Path) -> list[list[str]]:
    store = Store(folder)
    members = {job.digest: stored_members(job, store.checkpoint(job.digest)) for job in plan.jobs()}
    tasks = tasks_of(plan, store, members, Options(folder), Recording())
    return [[task.cell.name for task in group] for group in groups_of(list(tasks.values()))]


def test_they_are_one_group(both: Plan, trained: Path) -> None:
    assert pending(both, trained) == [[cell.name for cell in both.cells]]


def test_other_numbers_of_samples_are_another_group(plan_of: Make, edited: Callable[..., str], trained: Path) -> None:
    other = MEMBERS.replace("1_000", "1_001")
    plan = plan_of(edited((SMOOTHING, SMOOTHING + "\n" + other)) + ENTRY)
    assert [len(group) for group in pending(plan, trained)] == [3, 1]


def test_rows_are_those_of_each_alone_and_share_their_seconds(
    run: Callable[..., Outcome], both: Plan, trained: Path
) -> None:
    plan = dataclasses.replace(both, images=both.images.spread(5))
    outcome = run(plan)
    seconds = [rows["seconds"].tolist() for rows in rows_with_seconds(outcome).values()]
    assert all(own == seconds[0] for own in seconds)
    together = rows_without_seconds(outcome)
    assert (together[plan.cells[-1].name]["verdict"] == "CERTIFIED").any()
    shutil.rmtree(trained / "cells")
    alone: dict[str, Any] = {}
    for cell in plan.cells:
        alone |= rows_without_seconds(run(dataclasses.replace(plan, cells=(cell,))))
    assert_equal(together, alone)


def test_a_dry_run_measures_them_as_one_pass(both: Plan, trained: Path) -> None:
    found = estimates(both, Options(trained), [cell.name for cell in both.cells])
    assert {estimate.shared for estimate in found.values()} == {4}
    assert len({estimate.seconds for estimate in found.values()}) == 1
