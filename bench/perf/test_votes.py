"""Votes per second of `smoothing` beside the textbook loop, and what fusing, sharing and leaving out are worth."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bench import datasets
from certifiers import KeyedRandomness
from certifiers.smoothing import CHUNK, GaussianNoise, count_votes
from certifiers.smoothing.batches import noisy_batches
from certifiers.smoothing.early_exit import EarlyExit
from certifiers.smoothing.noise import ESTIMATION
from ensembles import Ensemble, MaxMargin, Single, WeightedAverage, architectures, training
from ensembles.fused import fused, fused_network

SIGMA = 0.5

#: Architectures with an input shape, and how many samples take some tenths of a second.
NETWORKS = {
    "lenet5": ((1, 28, 28), 4000),
    "conv_small": ((1, 28, 28), 4000),
    "lenet": ((1, 28, 28), 2000),
    "mlp": ((1, 28, 28), 8000),
    "resnet20": ((3, 32, 32), 500),
}


def members_of(name: str, count: int = 3) -> list[nn.Module]:
    shape, _ = NETWORKS[name]
    return [architectures.create(name, input_shape=shape, classes=10, seed=seed).eval() for seed in range(count)]


def image_of(name: str) -> torch.Tensor:
    return torch.rand(NETWORKS[name][0], generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def textbook(ensemble: Ensemble, image: torch.Tensor, samples: int) -> list[int]:
    """The published way: batches of 1000, a forward pass a member, votes counted in Python."""
    counts = [0] * 10
    for first in range(0, samples, 1000):
        batch = image.repeat(min(1000, samples - first), 1, 1, 1)
        batch = batch + torch.randn_like(batch) * SIGMA
        for winner in ensemble(batch).argmax(1).tolist():
            counts[winner] += 1
    return counts


def as_the_runner_does(ensemble: Ensemble) -> Ensemble:
    copy: Ensemble = deepcopy(ensemble).to(memory_format=torch.channels_last)
    return copy


def noise() -> GaussianNoise:
    return GaussianNoise(SIGMA, KeyedRandomness(0, (0,)))


@torch.no_grad()
def engine(classifiers: Sequence[nn.Module], image: torch.Tensor, samples: int) -> list[torch.Tensor]:
    return count_votes(classifiers, image, noise(), 0, ESTIMATION, samples, CHUNK)


@pytest.mark.parametrize("name", NETWORKS)
def test_average_beside_the_textbook_loop(against: Callable[..., float], name: str) -> None:
    samples, image = NETWORKS[name][1], image_of(name)
    plain = Ensemble(members_of(name))
    fast = as_the_runner_does(plain)
    ratio = against(
        lambda: textbook(plain, image, samples),
        lambda: engine([fast], image, samples),
        amount=samples,
        unit="ensemble votes",
        rounds=5,
    )
    assert [int(counts.sum()) for counts in engine([fast], image, samples)] == [samples]
    assert ratio > (2.5 if name == "lenet5" else 0.9)


def test_single_average_and_max_margin_beside_three_loops(against: Callable[..., float]) -> None:
    samples, image = NETWORKS["lenet5"][1], image_of("lenet5")
    ways = (Single(), WeightedAverage(), MaxMargin())
    plain = Ensemble(members_of("lenet5"))
    classifiers = [plain.with_aggregation(how) for how in ways]
    fast = as_the_runner_does(plain)
    together = [fast.with_aggregation(how) for how in ways]

    def each_alone() -> None:
        for classifier in classifiers:
            textbook(classifier, image, samples)

    against(each_alone, lambda: engine(together, image, samples), amount=3 * samples, unit="votes", rounds=5)
    assert [int(counts.sum()) for counts in engine(together, image, samples)] == [samples] * 3


@pytest.mark.parametrize("name", ["lenet5", "conv_small"])
def test_nine_classifiers_in_the_pass_of_one(against: Callable[..., float], name: str) -> None:
    """Three members alone, prefixes, averages of confidences and of logits, weights and max-margin: one pass."""
    samples, image = NETWORKS[name][1], image_of(name)
    ensemble = as_the_runner_does(Ensemble(members_of(name)))
    ways = [
        *(Single(member=number) for number in range(3)),
        *(WeightedAverage(), WeightedAverage(of="logit"), MaxMargin()),
        *(WeightedAverage(weights=(1.0, 1.0, 0.0)), WeightedAverage(weights=(0.2, 0.3, 0.5))),
    ]
    prefix = Ensemble(list(ensemble.members)[:2], MaxMargin())
    everything = [*(ensemble.with_aggregation(how) for how in ways), prefix]
    # Beside logits, whose average leaves no member out: the difference is what the others cost.
    alone = [ensemble.with_aggregation(WeightedAverage(of="logit"))]
    ratio = against(
        lambda: engine(alone, image, samples),
        lambda: engine(everything, image, samples),
        amount=9 * samples,
        unit="votes",
        rounds=9,
    )
    assert ratio > 1 / 1.15


@pytest.mark.parametrize("name", ["lenet5", "conv_small", "lenet"])
def test_rule_of_fusing(against: Callable[..., float], name: str) -> None:
    """Members one by one beside the fused network: `fused` takes the faster, by its rule and not by the clock."""
    samples, image = NETWORKS[name][1], image_of(name)
    members = list(as_the_runner_does(Ensemble(members_of(name))).members)
    network = fused_network(members)
    assert network is not None
    x = image + SIGMA * torch.randn(CHUNK, *image.shape, generator=torch.Generator().manual_seed(0))
    times = samples // CHUNK

    @torch.no_grad()
    def apart() -> list[list[torch.Tensor]]:
        return [[member(x) for member in members] for _ in range(times)]

    @torch.no_grad()
    def together() -> list[torch.Tensor]:
        return [network(x) for _ in range(times)]

    ratio = against(apart, together, amount=samples, unit="ensemble outputs")
    assert ratio > 0.9 if fused(members) is not None else ratio < 1.15


@pytest.mark.parametrize("name", ["conv_small", "resnet20"])
def test_compiled_members_beside_members_as_they_are(
    against: Callable[..., float], tell: Callable[[str], None], name: str
) -> None:
    """`certbench run --compile`, once it has compiled, of networks that are not fused where votes need all members."""
    samples, image = NETWORKS[name][1], image_of(name)
    both = [as_the_runner_does(Ensemble(members_of(name))).with_aggregation(how) for how in (Single(), MaxMargin())]

    @torch.no_grad()
    def counted(compile_members: bool) -> list[torch.Tensor]:
        return count_votes(both, image, noise(), 0, ESTIMATION, samples, compile_members=compile_members)

    started = time.perf_counter()
    counted(True)
    tell(f"{time.perf_counter() - started:.0f} s to compile")
    against(lambda: counted(False), lambda: counted(True), amount=samples, unit="ensemble votes", rounds=5)
    assert [int(counts.sum()) for counts in counted(True)] == [samples] * 2


@cache
def trained(name: str, count: int) -> Ensemble:
    """Members after two epochs of noisy MNIST-5k."""
    data = datasets.load("mnist-5k")
    ensemble = Ensemble(members_of(name, count))
    schedule = training.Schedule(epochs=2, batch_size=64, optimizer="adam", learning_rate=0.002)
    training.train(ensemble, training.create("gaussian", sigma=SIGMA), schedule, data.train, data.validation, seed=0)
    return as_the_runner_does(ensemble.eval())


@pytest.mark.parametrize(("name", "count"), [("conv_small", 3), ("conv_small", 5), ("lenet", 5)])
def test_early_exit_beside_asking_all(
    against: Callable[..., float], tell: Callable[[str], None], name: str, count: int
) -> None:
    ensemble = trained(name, count)
    images = datasets.load("mnist-5k").test.images(range(0, 1000, 250))
    early = EarlyExit.of([ensemble])
    assert early is not None
    asked = {"all": 0, "some": 0}

    @torch.no_grad()
    def exiting() -> list[list[int]]:
        found = []
        for image in images:
            for x in noisy_batches(image, noise(), 0, ESTIMATION, 1000, CHUNK):
                ballots, evaluations = early.ballots(x)
                asked["all"] += count * len(x)
                asked["some"] += evaluations
                found.append(ballots[0].counted().tolist())
        return found

    @torch.no_grad()
    def asking_all() -> list[list[int]]:
        return [
            torch.bincount(ensemble(x).argmax(1), minlength=11).tolist()
            for image in images
            for x in noisy_batches(image, noise(), 0, ESTIMATION, 1000, CHUNK)
        ]

    ratio = against(asking_all, exiting, amount=1000 * len(images), unit="ensemble votes", rounds=5)
    tell(f"{1 - asked['some'] / asked['all']:.1%} of the evaluations of {count} members are left out")
    different = [
        abs(one - other)
        for ours, theirs in zip(exiting(), asking_all(), strict=True)
        for one, other in zip(ours, theirs, strict=True)
    ]
    assert sum(different) <= 2
    assert ratio > 0.9


def test_share_of_the_machine(benchmark: Any, tell: Callable[[str], None]) -> None:
    """The engine's multiplications and additions a second, as a share of those of a large product of matrices."""
    samples, image = NETWORKS["lenet5"][1], image_of("lenet5")
    ensemble = as_the_runner_does(Ensemble(members_of("lenet5")))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        ensemble(image[None])
    square = torch.randn(1024, 1024)
    shares = []

    def measured() -> None:
        started = time.perf_counter()
        square @ square
        peak = 2 * 1024**3 / (time.perf_counter() - started)
        started = time.perf_counter()
        engine([ensemble], image, samples)
        shares.append(counter.get_total_flops() * samples / (time.perf_counter() - started) / peak)

    benchmark.pedantic(measured, rounds=9, warmup_rounds=1)
    share = sorted(shares)[len(shares) // 2]
    benchmark.extra_info.update(share_of_gemm_peak=share)
    tell(
        f"{share:.0%} of the speed of a 1024x1024 product, {counter.get_total_flops() / 1e6:.2f} MFLOP an ensemble vote"
    )
    assert 0.02 < share < 1


ALLOCATOR = """
import time, torch
from bench.allocator import keep_memory
if KEEP: keep_memory()
from ensembles import architectures
network = architectures.create("resnet20", input_shape=(3, 32, 32), classes=10, seed=0).eval()
network = network.to(memory_format=torch.channels_last)
x = torch.randn(500, 3, 32, 32)
with torch.no_grad():
    network(x)
    started = time.process_time()
    for _ in range(2):
        network(x)
print(time.process_time() - started)
"""


def test_kept_memory(benchmark: Any, tell: Callable[[str], None]) -> None:
    """Batches of a ResNet-20 where malloc keeps its memory, beside its defaults: processes of their own, in turn."""

    def seconds(keep: bool) -> float:
        command = [sys.executable, "-c", ALLOCATOR.replace("KEEP", repr(keep))]
        return float(subprocess.check_output(command, text=True))  # noqa: S603

    ratios = []
    benchmark.pedantic(lambda: ratios.append(seconds(keep=False) / seconds(keep=True)), rounds=3)
    ratio = sorted(ratios)[len(ratios) // 2]
    benchmark.extra_info.update(ratio=ratio)
    tell(f"{ratio:.2f}x the speed with malloc's defaults ({min(ratios):.2f} to {max(ratios):.2f}), in processor time")
