"""Groups in parts, which workers certify side by side."""

from pathlib import Path

import pytest

from bench.certification import groups_of, parts_of, tasks_of
from bench.options import Options
from bench.store import Store
from bench.training import stored_members
from tests.bench.conftest import Recording
from tests.bench.runs_under_test import Make


@pytest.mark.parametrize(("jobs", "size"), [(1, 3), (2, 1), (2, 3), (3, 4), (16, 2), (2, 50)])
def test_parts_hold_every_image_once(jobs: int, size: int, plan_of: Make, trained: Path) -> None:
    plan, store = plan_of(), Store(trained)
    members = {job.digest: stored_members(job, store.checkpoint(job.digest)) for job in plan.jobs()}
    tasks = tasks_of(plan, store, members, Options(trained), Recording())
    (group,) = groups_of(list(tasks.values()))
    parts = parts_of(group, jobs, size)
    assert sum((part[0].pending for part in parts), ()) == group[0].pending == tuple(range(20))
    assert all([task.key for task in part] == [task.key for task in group] for part in parts)
    assert all(task.pending == part[0].pending for part in parts for task in part)
    assert all(own is not whole for part in parts for own, whole in zip(part, group, strict=True))
    assert len(parts) <= 1 + 4 * jobs
    if jobs == 1:
        assert len(parts) == 1
    else:
        assert len(parts[0][0].pending) == min(size, 20), "what finds out that a method does not apply"
