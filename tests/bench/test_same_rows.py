"""The rows of an entry do not depend on other entries, other images, or the sizes of blocks and batches."""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pytest
import torch
from click.testing import Result

from bench import runner
from bench.runner import Options, Outcome
from certifiers import Norm, RadiusCertifier, create
from certifiers.smoothing.noise import CHUNK, GaussianNoise
from tests.bench.runs_under_test import (
    ENTRIES,
    Make,
    assert_equal,
    blocks,
    only,
    rows_with_seconds,
    rows_without_seconds,
    with_certifier,
)


def test_an_entry_alone_has_the_rows_it_has_among_others(
    run: Callable[..., Outcome], plan_of: Make, finished: tuple[Path, Result], rows_in: Any
) -> None:
    whole = rows_in(finished[0])
    for number, name in enumerate(ENTRIES):
        found = rows_without_seconds(run(only(plan_of(), number, images=6)))
        expected = whole[name][whole[name]["image_id"].isin(found[name]["image_id"])].reset_index(drop=True)
        assert_equal(found, {name: expected})


@pytest.mark.parametrize("size", [1, 5, 50])
def test_the_size_of_blocks_changes_nothing(
    size: int, run: Callable[..., Outcome], plan_of: Make, finished: tuple[Path, Result], rows_in: Any, trained: Path
) -> None:
    outcome = run(plan_of(), block_size=size)
    assert (outcome.computed, outcome.stored) == (60, 0)
    assert len(blocks(trained)) == 3 * -(-20 // size)
    assert_equal(rows_without_seconds(outcome), rows_in(finished[0]))


def test_methods_that_compute_on_batches_have_the_same_rows_in_all_blocks(
    plan_of: Make, edited: Callable[..., str], tmp_path: Path, reporter: Any
) -> None:
    # Matrix products of a batch differ in their last bits from those of one image.
    text = edited(("hidden = [16]", "hidden = []"), ("epochs = 3", "epochs = 1"), ("every = 18", "every = 9"))
    plan = only(with_certifier(plan_of(text), create("closed-form")), 0)
    outcome = runner.run(plan, Options(tmp_path, block_size=1), reporter)
    expected = rows_without_seconds(outcome)
    # As after a kill, or damage: what is left to do starts and ends anywhere.
    for number, path in enumerate(sorted(tmp_path.glob("cells/*/rows-*"))):
        if number % 3:
            path.unlink()
    assert_equal(rows_without_seconds(runner.run(plan, Options(tmp_path, block_size=7), reporter)), expected)
    shutil.rmtree(tmp_path / "cells")
    assert_equal(rows_without_seconds(runner.run(plan, Options(tmp_path, block_size=50), reporter)), expected)


def test_the_number_of_an_image_changes_nothing(
    run: Callable[..., Outcome], plan_of: Make, finished: tuple[Path, Result], rows_in: Any
) -> None:
    few = rows_without_seconds(run(only(plan_of(), 0, 1, 2, images=7)))
    for name, rows in rows_in(finished[0]).items():
        expected = rows[rows["image_id"].isin(few[name]["image_id"])].reset_index(drop=True)
        pd.testing.assert_frame_equal(few[name], expected, check_exact=True)


@pytest.mark.parametrize("size", [64, 1100])
def test_another_batch_size_has_the_same_key_and_noise_and_flips_few_votes(
    size: int, run: Callable[..., Outcome], plan_of: Make, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise: list[dict[Any, str]] = []
    fill = GaussianNoise.fill

    def watched(self: GaussianNoise, buffer: torch.Tensor, row: int, stream: int, first_chunk: int) -> None:
        fill(self, buffer, row, stream, first_chunk)
        for number, chunk in enumerate(torch.split(buffer, CHUNK)):
            key = (self.rng.image_ids[row], stream, first_chunk + number)
            noise[-1][key] = hashlib.sha256(chunk.numpy().tobytes()).hexdigest()

    monkeypatch.setattr(GaussianNoise, "fill", watched)
    plan = only(plan_of(), 0, 1, 2, images=4)
    found = []
    for options in ({}, {"batch_size": size}):
        noise.append({})
        found.append(rows_without_seconds(run(plan, **options)))
        keys = sorted(path.name for path in (trained / "cells").iterdir())
        assert len(keys) == 3
        shutil.rmtree(trained / "cells")
    assert noise[0] == noise[1]
    assert len(noise[0]) == 4 * 3  # one chunk to select, two to estimate
    assert len(set(noise[0].values())) == 12
    flipped = 0
    for name in ENTRIES:
        ours, theirs = found[0][name], found[1][name]
        flipped += int((ours["evidence_n_A"] - theirs["evidence_n_A"]).abs().sum())
        flipped += int((ours["evidence_n0_top"] - theirs["evidence_n0_top"]).abs().sum())
        pd.testing.assert_frame_equal(
            ours.drop(columns=["radius", "evidence_n_A", "evidence_n0_top", "evidence_p_A", "reason"]),
            theirs.drop(columns=["radius", "evidence_n_A", "evidence_n0_top", "evidence_p_A", "reason"]),
        )
    assert flipped <= 3  # of 12600 votes


def test_a_batch_size_that_is_not_a_matter_of_execution_is_left_alone(
    run: Callable[..., Outcome], plan_of: Make, offered: Callable[..., None]
) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Own(RadiusCertifier):
        norms: ClassVar[frozenset[Norm]] = frozenset(Norm)
        batch_size: int = 3

        def radii(self, classifier: Any, x: Any, threat: Any, rng: Any) -> Any:
            return torch.full((len(x),), float(self.batch_size))

    offered("own", Own)
    outcome = run(only(with_certifier(plan_of(), Own()), 0, images=2), batch_size=9)
    assert rows_with_seconds(outcome)["single"]["radius"].round(5).tolist() == [3.0, 3.0]
