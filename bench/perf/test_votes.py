"""Votes per second of `smoothing` beside the textbook loop, on three LeNet-5 and 28x28 images."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch

from certifiers import KeyedRandomness
from certifiers.smoothing import CHUNK, GaussianNoise, count_votes
from certifiers.smoothing.noise import ESTIMATION
from ensembles import Ensemble, MaxMargin, Single, WeightedAverage, architectures

SAMPLES, SIGMA = 6000, 0.5


@pytest.fixture
def ensemble() -> Ensemble:
    members = [
        architectures.create("lenet5", input_shape=(1, 28, 28), classes=10, seed=seed).eval() for seed in range(3)
    ]
    return Ensemble(members)


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(1, 28, 28, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def textbook(ensemble: Ensemble, image: torch.Tensor) -> list[int]:
    """The published way: batches of 1000, a forward pass a member, votes counted in Python."""
    counts = [0] * 10
    for _ in range(SAMPLES // 1000):
        batch = image.repeat(1000, 1, 1, 1)
        batch = batch + torch.randn_like(batch) * SIGMA
        for winner in ensemble(batch).argmax(1).tolist():
            counts[winner] += 1
    return counts


def as_the_runner_does(ensemble: Ensemble) -> Ensemble:
    copy: Ensemble = deepcopy(ensemble).to(memory_format=torch.channels_last)
    return copy


@torch.no_grad()
def engine(ensembles: list[Ensemble], image: torch.Tensor) -> list[torch.Tensor]:
    noise = GaussianNoise(SIGMA, KeyedRandomness(0, (0,)))
    return count_votes(ensembles, image, noise, 0, ESTIMATION, SAMPLES, CHUNK)


def test_one_classifier(against: Callable[..., float], ensemble: Ensemble, image: torch.Tensor) -> None:
    fast = as_the_runner_does(ensemble)
    against(lambda: textbook(ensemble, image), lambda: engine([fast], image), amount=SAMPLES, unit="ensemble votes")
    assert [int(counts.sum()) for counts in engine([fast], image)] == [SAMPLES]


def test_single_average_and_max_margin_in_one_pass(
    against: Callable[..., float], ensemble: Ensemble, image: torch.Tensor
) -> None:
    ways = (Single(), WeightedAverage(), MaxMargin())
    classifiers = [ensemble.with_aggregation(how) for how in ways]
    fast = as_the_runner_does(ensemble)
    together = [fast.with_aggregation(how) for how in ways]

    def each_alone() -> None:
        for classifier in classifiers:
            textbook(classifier, image)

    against(each_alone, lambda: engine(together, image), amount=3 * SAMPLES, unit="votes")
    assert [int(counts.sum()) for counts in engine(together, image)] == [SAMPLES] * 3
