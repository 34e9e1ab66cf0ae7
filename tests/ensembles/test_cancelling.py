"""Cancelling pairs: their average is the network they are made of."""

import pytest
import torch
from torch import Tensor, nn

import certifiers
from certifiers import ThreatModel
from ensembles import Ensemble, WeightedAverage, architectures
from ensembles.architectures import Classifier
from ensembles.cancelling import CARRIERS, cancelling_pair, hidden_widths

SHAPE = (3, 4, 4)


@pytest.fixture
def alone() -> Classifier:
    return architectures.create(
        "mlp", input_shape=SHAPE, classes=4, seed=3, mean=[0.1, 0.4, 0.6], std=[0.2, 0.3, 0.5], hidden=[8, 6]
    ).eval()


@pytest.fixture
def x() -> Tensor:
    images = torch.rand(50, *SHAPE, generator=torch.Generator().manual_seed(0))
    images[0], images[1] = 0.0, 1.0
    return images


def test_the_average_is_the_network_alone(alone: Classifier, x: Tensor) -> None:
    first, second = cancelling_pair(alone, SHAPE, seed=5)
    torch.testing.assert_close((first(x) + second(x)) / 2, alone(x), atol=1e-4, rtol=0)
    apart = (first(x) - second(x)).detach().abs().amax(1)
    assert float(apart.median()) > 2 * float(alone(x).detach().abs().amax())
    assert hidden_widths(first) == [8 + CARRIERS, 6 + CARRIERS]


def test_what_is_added_is_affine_on_all_images(alone: Classifier, x: Tensor) -> None:
    first, _ = cancelling_pair(alone, SHAPE, seed=5)
    values = first.normalize(x)
    for layer in first.body:
        values = layer(values)
        if isinstance(layer, nn.Linear):
            assert float(values.detach()[:, -CARRIERS:].min()) >= 0.99


def test_it_is_the_same_for_the_same_seed(alone: Classifier) -> None:
    first, again = (cancelling_pair(alone, SHAPE, seed=5)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = cancelling_pair(alone, SHAPE, seed=6)[0].state_dict()
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_joint_bounds_reach_those_of_the_network_alone(alone: Classifier, x: Tensor) -> None:
    pair = Ensemble(cancelling_pair(alone, SHAPE, seed=5), WeightedAverage(of="logit"))
    crown, threat = certifiers.create("native-crown"), ThreatModel("linf")
    single = crown.certify(alone, x[2:8], threat).radius
    joint = crown.certify(pair, x[2:8], threat).radius
    apart = certifiers.create("native-crown", joint=False).certify(pair, x[2:8], threat).radius
    torch.testing.assert_close(joint, single, atol=1e-4, rtol=1e-2)
    assert bool((apart < 0.5 * single).all())


def test_only_an_mlp_can_be_made_into_a_pair() -> None:
    network = architectures.create("conv_small", input_shape=(1, 8, 8), classes=4, seed=3)
    with pytest.raises(ValueError, match="is made of an mlp with hidden layers, got 'conv_small'"):
        cancelling_pair(network, (1, 8, 8), seed=5)
