"""The cost of an objective beside Gaussian training: three LeNet-5, batches of 128, a tenth of an epoch of MNIST-5k."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ensembles import Ensemble, architectures, training

BATCHES, BATCH = 4, 128


def steps(ensemble: Ensemble, objective: training.Objective, x: torch.Tensor, y: torch.Tensor) -> float:
    """A few steps of the loop, the optimizer's included; the last loss."""
    optimizer = torch.optim.SGD(ensemble.parameters(), lr=1e-4, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    loss = torch.zeros(())
    for _ in range(BATCHES):
        loss = objective.loss(ensemble, x, y, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return float(loss.detach())


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("adp", {}),
        ("pdd", {}),
        ("lpd", {}),
        ("gal", {}),
        ("drt", {}),
        ("drt", {"form": "code"}),
        ("trs", {}),
        ("pdd+deg", {}),
        ("stability", {}),
        ("consistency", {}),
        ("ibp", {}),
        ("macer", {"draws": 4}),
        ("smoothadv", {"steps": 2}),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(f"{k}={v}" for k, v in value.items()) or "defaults",
)
def test_slowdown_beside_gaussian(against: Callable[..., float], name: str, fields: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.rand(BATCH, 1, 28, 28, generator=generator), torch.randint(10, (BATCH,), generator=generator)
    members = [architectures.create("lenet5", input_shape=(1, 28, 28), classes=10, seed=seed) for seed in range(3)]
    ensemble = Ensemble(members).train().to(memory_format=torch.channels_last)
    plain = training.create("gaussian", sigma=1.0)
    objective = training.create(name, sigma=1.0, **fields)
    ratio = against(
        lambda: steps(ensemble, plain, x, y),
        lambda: steps(ensemble, objective, x, y),
        amount=BATCHES * BATCH,
        unit="images",
    )
    assert ratio < 1.5, "no objective does less work than Gaussian training: the measurement is wrong"
