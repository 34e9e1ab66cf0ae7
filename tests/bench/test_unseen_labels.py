"""Certifiers never see labels."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from click.testing import Result

from bench.datasets import InMemorySplit
from bench.runner import Outcome
from certifiers import ThreatModel
from tests.bench.runs_under_test import Make, only, rows_without_seconds, with_certifier


def test_certificates_do_not_depend_on_labels(
    run: Callable[..., Outcome], plan_of: Make, finished: tuple[Path, Result], rows_in: Any
) -> None:
    plan = plan_of()
    images = plan.images
    assert isinstance(images, InMemorySplit)
    other = InMemorySplit(images.pixels, (images.labels + 1) % 10, images.ids, scale=images.scale)
    found = rows_without_seconds(run(dataclasses.replace(plan, images=other)))
    for name, rows in rows_in(finished[0]).items():
        assert ((rows["label"] + 1) % 10).tolist() == found[name]["label"].tolist()
        pd.testing.assert_frame_equal(rows.drop(columns="label"), found[name].drop(columns="label"), check_exact=True)


def test_a_certifier_is_given_images_norm_and_keyed_randomness_and_nothing_else(
    run: Callable[..., Outcome], plan_of: Make, scripted: Any
) -> None:
    given = []

    def spy(*words: Any) -> torch.Tensor:
        given.append(words)
        return torch.ones(len(words[1]))

    plan = only(plan_of(), 1, images=5)
    run(with_certifier(plan, scripted(spy)()), block_size=5)
    assert len(given) == 5
    for position, (_, x, threat, rng) in enumerate(given):
        assert torch.equal(x, plan.images.images([position]))
        assert threat == ThreatModel("l2")
        assert (sorted(vars(rng)), rng.image_ids) == (["image_ids", "seed"], (int(plan.images.ids[position]),))
    labels = plan.images.labels.tolist()
    kept = [value for module in given[0][0].modules() for value in vars(module).values()]
    assert not any(isinstance(value, list | tuple) and list(value) == labels for value in kept)
    assert not any(isinstance(value, torch.Tensor) and value.flatten().tolist() == labels for value in kept)
