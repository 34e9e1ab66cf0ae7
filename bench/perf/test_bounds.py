"""Bounds of three `conv_small` trained on MNIST-5k, as ratios against plain references in the same run."""

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import certifiers
from bench import datasets
from certifiers.networks import prepare
from certifiers.relaxation import BackwardBounds, Ball
from certifiers.relaxation.ensemble_margins import pairs
from ensembles import Ensemble, WeightedAverage, architectures, training

RADIUS = 0.03
LINF = certifiers.ThreatModel(norm="linf")


@cache
def trained() -> tuple[Ensemble, torch.Tensor]:
    """Three members after two epochs, as a weighted average of logits, and some test images."""
    data = datasets.load("mnist-5k")
    members = [
        # Without normalisation: before padding it makes auto_LiRPA 0.3 fail, as it is.
        architectures.create("conv_small", input_shape=data.input_shape, classes=10, seed=seed)
        for seed in range(3)
    ]
    ensemble = Ensemble(members, WeightedAverage(of="logit"))
    schedule = training.Schedule(epochs=2, batch_size=64, optimizer="adam", learning_rate=0.002)
    training.train(ensemble, training.create("gaussian"), schedule, data.train, data.validation, seed=0)
    return ensemble.eval(), data.test.images(np.array([0, 250, 500, 750]))


def decide(name: str, **parameters: Any) -> certifiers.Certificates:
    ensemble, x = trained()
    return certifiers.create(name, **parameters).certify(ensemble, x, LINF, radii=[RADIUS])


class Sum(nn.Module):
    """The sum of the members' logits, as somebody would write it for auto_LiRPA: it answers as their mean does."""

    def __init__(self, members: nn.ModuleList) -> None:
        super().__init__()
        self.members = members

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second, third = (member.head(member.body(x)) for member in self.members)
        return torch.as_tensor(first + second + third)


def direct() -> list[bool]:
    """A direct loop over auto_LiRPA, one image at a time."""
    from certifiers.relaxation.lirpa import library, record

    lirpa = library()
    ensemble, x = trained()
    model = record(Sum(ensemble.members), x[:1])
    held = []
    for image in x:
        center = image[None]
        ball = lirpa.PerturbationLpNorm(
            norm=float("inf"), x_L=(center - RADIUS).clamp(min=0), x_U=(center + RADIUS).clamp(max=1)
        )
        answer = ensemble(center).argmax(1)
        rows = pairs(answer, 10).float()
        others = [j for j in range(10) if j != int(answer)]
        lower, _ = model.compute_bounds(
            x=(lirpa.BoundedTensor(center, ball),), C=rows[:, others], method="CROWN", bound_upper=False
        )
        held.append(bool((lower > 0).all()))
    return held


needs_auto_lirpa = pytest.mark.skipif(find_spec("auto_LiRPA") is None, reason="auto_LiRPA is not installed")


@needs_auto_lirpa
def test_crown_beside_a_direct_loop(against: Callable[..., float]) -> None:
    against(direct, lambda: decide("crown"), amount=4, unit="images", rounds=5)
    assert decide("crown").certified.tolist() == direct()


@needs_auto_lirpa
def test_native_crown_beside_crown(against: Callable[..., float]) -> None:
    against(lambda: decide("crown"), lambda: decide("native-crown"), amount=4, unit="images", rounds=5)
    assert decide("crown").certified.tolist() == decide("native-crown").certified.tolist()


@needs_auto_lirpa
def test_native_ibp_beside_ibp(against: Callable[..., float]) -> None:
    against(lambda: decide("ibp"), lambda: decide("native-ibp"), amount=4, unit="images", rounds=5)


def test_joint_bounds_beside_the_members_own(against: Callable[..., float]) -> None:
    ensemble, x = trained()
    with torch.no_grad():
        networks = prepare(ensemble, x).networks
        prediction = ensemble(x).argmax(1)
    rows = [pairs(prediction, 10) / 3] * 3
    ball = Ball.around(x.double(), torch.full((4,), RADIUS).double(), LINF)

    def separately() -> list[torch.Tensor]:
        return [BackwardBounds(ball, "crown").lower([network], rows[:1]) for network in networks]

    def jointly() -> torch.Tensor:
        return BackwardBounds(ball, "crown").lower(networks, rows)

    against(separately, jointly, amount=4, unit="images", rounds=5)
    assert bool((jointly() >= torch.stack(separately()).sum(0) - 1e-9).all())


@needs_auto_lirpa
def test_cascade_beside_alpha_crown_on_everything(against: Callable[..., float]) -> None:
    stages = ("native-ibp", "native-crown-ibp", "attack", "native-crown", "alpha-crown")
    against(lambda: decide("alpha-crown"), lambda: decide("cascade", stages=stages), amount=4, unit="images", rounds=3)
    assert decide("cascade", stages=stages).certified.tolist() == decide("alpha-crown").certified.tolist()


RESNET = """
import resource, torch, certifiers
from ensembles import Ensemble, WeightedAverage, architectures
members = [architectures.create("resnet18", input_shape=(3, 32, 32), classes=10, seed=s, width=4) for s in range(3)]
images = torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
for member in members:  # batch norms as after training, where activations do not grow from layer to layer
    member.train()
    with torch.no_grad():
        for _ in range(30):
            member(images)
ensemble = Ensemble(members, WeightedAverage(of="logit")).eval()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = certifiers.create(NAME).certify(ensemble, images[:1], certifiers.ThreatModel(norm="linf"), radii=[0.0005])
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, float(found.cost.seconds[0]))
"""


@pytest.mark.parametrize("name", ["native-crown", pytest.param("crown", marks=needs_auto_lirpa)])
def test_memory_of_resnet18(benchmark: Any, tell: Callable[[str], None], name: str) -> None:
    """Three ResNet-18 of width 4 on one 32x32 image: peak memory of a process of its own, in MiB."""
    command = [sys.executable, "-c", RESNET.replace("NAME", repr(name))]
    answer = benchmark.pedantic(subprocess.check_output, args=(command,), kwargs={"text": True}, rounds=1)
    before, peak, seconds = map(float, answer.split())
    benchmark.extra_info.update(before_mib=before / 1024, peak_mib=peak / 1024, seconds=seconds)
    tell(f"peak {peak / 1024:.0f} MiB, {before / 1024:.0f} before the bounds; {seconds:.1f} s an image")
    assert peak / 2**20 < 4
