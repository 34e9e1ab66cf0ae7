import math

import pytest
import torch
from torch import Tensor

import ensembles.training
from ensembles import Ensemble, MaxMargin, ParameterError, architectures
from ensembles.training import Gaussian

SHAPE = (1, 2, 3)


def ensemble_of(members: int) -> Ensemble:
    return Ensemble(
        [
            architectures.create("mlp", input_shape=SHAPE, classes=4, seed=seed, hidden=(5,)).double()
            for seed in range(members)
        ]
    )


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(11)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    x = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return x, torch.tensor([0, 1, 2, 3, 0, 1])


def literal_loss(ensemble: Ensemble, x: Tensor, y: Tensor, sigma: float, noise: Tensor) -> float:
    total = 0.0
    for member in ensemble.members:
        for image, label, delta in zip(x, y.tolist(), noise, strict=True):
            logits = member((image + sigma * delta)[None])[0].tolist()
            total -= math.log(math.exp(logits[label]) / math.fsum(math.exp(value) for value in logits)) / len(x)
    return total


@pytest.mark.parametrize("sigma", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("members", [1, 3])
def test_loss_equals_its_formula(sigma: float, members: int, batch: tuple[Tensor, Tensor]) -> None:
    ensemble, (x, y) = ensemble_of(members), batch
    noise = torch.randn(x.shape, generator=generator(), dtype=x.dtype)
    loss = ensembles.training.create("gaussian", sigma=sigma).loss(ensemble, x, y, generator())
    assert loss.shape == ()
    assert float(loss.detach()) == pytest.approx(literal_loss(ensemble, x, y, sigma, noise), rel=1e-12)


def test_noise_is_of_the_generator_alone_and_is_not_clipped(batch: tuple[Tensor, Tensor]) -> None:
    x, _ = batch
    objective = Gaussian(sigma=0.5)
    before = torch.get_rng_state()
    noisy = objective.noisy(x, generator())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(noisy, objective.noisy(x, generator()))
    assert torch.allclose((noisy - x) / 0.5, torch.randn(x.shape, generator=generator(), dtype=x.dtype))
    assert float(noisy.min()) < 0
    assert float(noisy.max()) > 1
    drawn = generator()
    assert not torch.equal(objective.noisy(x, drawn), objective.noisy(x, drawn))


def test_gradient_flows_to_every_member_and_not_between_them(batch: tuple[Tensor, Tensor]) -> None:
    ensemble, (x, y) = ensemble_of(2), batch
    Gaussian(sigma=0.5).loss(ensemble, x, y, generator()).backward()
    together = [member.head.weight.grad.clone() for member in ensemble.members]
    for number, member in enumerate(ensemble.members):
        member.zero_grad()
        Gaussian(sigma=0.5).loss(Ensemble([member]), x, y, generator()).backward()
        assert torch.allclose(member.head.weight.grad, together[number])
        assert float(together[number].norm()) > 0


def test_members_learn_alone_whatever_the_aggregation(batch: tuple[Tensor, Tensor]) -> None:
    ensemble, (x, y) = ensemble_of(2), batch
    other = ensemble.with_aggregation(MaxMargin())
    assert torch.equal(
        Gaussian(sigma=0.5).loss(ensemble, x, y, generator()), Gaussian(sigma=0.5).loss(other, x, y, generator())
    )
    assert not Gaussian.joint


def test_parameters() -> None:
    assert Gaussian() == ensembles.training.create("gaussian", sigma=0.0)
    assert Gaussian(sigma=0.5).describe() == {"name": "gaussian", "sigma": 0.5}
    with pytest.raises(ParameterError, match=r"Gaussian: sigma = -0\.5 is not allowed\. .*greater than or equal to 0"):
        Gaussian(sigma=-0.5)
