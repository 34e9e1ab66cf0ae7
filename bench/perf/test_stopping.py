"""Certifying images from end to end: smoothing that stops, beside the textbook loop with all its samples."""

import time
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

import certifiers
from bench import datasets
from bench.perf.test_votes import SIGMA, as_the_runner_does, members_of, textbook
from ensembles import Ensemble, MaxMargin, WeightedAverage, training

N0, N = 100, 100_000
IMAGES = 25

#: Samples of the textbook loop that are timed for an image and an ensemble; its time is proportional to them.
_TIMED = 2000


@cache
def quickstart() -> Ensemble:
    """The ensemble of the quickstart."""
    data = datasets.load("mnist-5k")
    ensemble = Ensemble(members_of("lenet5"))
    schedule = training.Schedule(
        epochs=30, batch_size=64, optimizer="adam", learning_rate=0.002, decay_every=12, decay_factor=0.3
    )
    training.train(ensemble, training.create("gaussian", sigma=SIGMA), schedule, data.train, data.validation, seed=0)
    return ensemble.eval()


@pytest.mark.parametrize(
    ("radii", "least"), [(tuple(step / 4 for step in range(8)), 8.0), ((1.0,), 40.0)], ids=["grid", "one radius"]
)
def test_whole_certificates_beside_the_textbook_loop(
    benchmark: Any, tell: Callable[[str], None], radii: tuple[float, ...], least: float
) -> None:
    """Average and max-margin ensemble, the guarantee of n = 100 000: one after the other by the loop, together by ours.

    A small part of the loop is timed beside every image, and its time for all samples follows from that.
    """
    plain = quickstart()
    both = [plain, plain.with_aggregation(MaxMargin())]
    fast = as_the_runner_does(plain)
    together = [fast.with_aggregation(how) for how in (WeightedAverage(), MaxMargin())]
    certifier = certifiers.create("smoothing-adaptive", sigma=SIGMA, n0=N0, n=N)
    test = datasets.load("mnist-5k").test.spread(IMAGES)
    images, threat = test.images(range(IMAGES)), certifiers.ThreatModel(norm="l2")
    seconds, samples = {"loop": 0.0, "ours": 0.0}, []

    def measured() -> None:
        for position in range(IMAGES):
            started = time.perf_counter()
            for classifier in both:
                textbook(classifier, images[position], _TIMED)
            seconds["loop"] += (time.perf_counter() - started) * (N0 + N) / _TIMED
            started = time.perf_counter()
            found = certifier.certify_together(
                together, images[position : position + 1], threat, radii, 0, [int(test.ids[position])]
            )
            seconds["ours"] += time.perf_counter() - started
            samples.append(max(N0 + int(each.evidence["samples"][0]) for each in found))

    benchmark.pedantic(measured, rounds=1)
    ratio, mean = seconds["loop"] / seconds["ours"], sum(samples) / len(samples)
    benchmark.extra_info.update(ratio=ratio, samples=mean)
    tell(f"{ratio:.1f}x the loop of two ensembles, {mean:,.0f} samples an image beside 2 x {N0 + N:,}")
    assert ratio > least
