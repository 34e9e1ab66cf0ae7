from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.choosing import ChoosingError
from bench.datasets import Dataset
from bench.store import Store
from bench.training import stored_members
from leaderboards import read_run

CHOSEN = ("every = 18", "every = 2\nanswered_rightly = 6")


def test_images_are_the_first_that_all_members_answer_rightly(
    run: Callable[..., Any],
    plan_of: Callable[..., Any],
    edited: Callable[..., str],
    trained: Path,
    digits: Dataset,
) -> None:
    plan = plan_of(edited(CHOSEN))
    outcome = run(plan)
    pool = digits.test.select(every=2)
    x, y = pool.images(range(len(pool))), pool.labels
    jobs = plan.jobs()
    right = torch.ones(len(pool), dtype=torch.bool)
    with torch.no_grad():
        for job in jobs:
            for member in stored_members(job, Store(trained).checkpoint(job.digest)).members:
                right &= member(x).argmax(1) == y
    expected = pool.ids[right.numpy()][:6].tolist()
    assert len(jobs) == 3
    assert not bool(right[: right.nonzero()[5, 0]].all()), "some image before is answered wrongly"
    found = read_run(outcome.manifest)
    assert all(sorted(entry.rows["image_id"]) == sorted(expected) for entry in found.entries)
    assert all((entry.rows["clean_prediction"] == entry.rows["label"]).all() for entry in found.entries)
    assert "The images are the first 6 that all members on this board answer rightly" in found.description


def test_too_few_are_told(run: Callable[..., Any], plan_of: Callable[..., Any], edited: Callable[..., str]) -> None:
    message = r"answered_rightly = 21, but all 3 members are right on \d+ of the 20 images"
    with pytest.raises(ChoosingError, match=message):
        run(plan_of(edited(("every = 18", "every = 18\nanswered_rightly = 21"))))


def test_a_limit_lowers_the_number_and_names_the_run(plan_of: Callable[..., Any], edited: Callable[..., str]) -> None:
    full, limited = plan_of(edited(CHOSEN)), plan_of(edited(CHOSEN), limit=2)
    assert limited.name == "tiny-limit2"
    assert limited.spec.data.answered_rightly == 2
    assert limited.images.ids.tolist() == full.images.ids.tolist(), "chosen from the same images"
    assert plan_of(edited(CHOSEN), limit=6).name == "tiny"


def test_a_dry_run_says_so(
    certbench: Callable[..., Any], write_spec: Callable[..., Path], edited: Callable[..., str], tmp_path: Path
) -> None:
    result = certbench("run", write_spec(edited(CHOSEN)), "--output", tmp_path / "none", "--dry-run")
    assert result.exit_code == 0
    assert "tiny: 6 of 177 test images of digits" in result.stdout
    assert "to certify: 6 images that all members answer rightly, chosen after training" in result.stdout
