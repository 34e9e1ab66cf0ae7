import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import linear

from ensembles import UnknownNameError, architectures
from ensembles.architectures import Classifier, Normalize
from ensembles.checkpoint import weights_digest

MNIST, DIGITS, CIFAR = (1, 28, 28), (1, 8, 8), (3, 32, 32)


def build(name: str, input_shape: tuple[int, ...] = MNIST, classes: int = 10, seed: int = 0, **options: Any):
    return architectures.create(name, input_shape=input_shape, classes=classes, seed=seed, **options)


def images(shape: tuple[int, ...], count: int = 2) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def dense(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def convolution(inputs: int, outputs: int, side: int) -> int:
    return dense(inputs * side * side, outputs)


@pytest.mark.parametrize(
    ("name", "shape", "width"),
    [
        ("mlp", MNIST, 100),
        ("mlp", DIGITS, 100),
        ("mlp", CIFAR, 100),
        ("lenet5", MNIST, 84),
        ("lenet5", CIFAR, 84),
        ("lenet", MNIST, 500),
        ("lenet", CIFAR, 500),
        ("conv_small", MNIST, 100),
        ("conv_small", DIGITS, 100),
        ("conv_small", CIFAR, 100),
    ],
)
def test_logits_and_features_have_their_shapes(name: str, shape: tuple[int, ...], width: int) -> None:
    for classes in (2, 10):
        model = build(name, shape, classes)
        x = images(shape)
        assert model(x).shape == (2, classes)
        assert model.features(x).shape == (2, width)
        assert model.head.in_features == width


def test_parameters_are_counted_by_hand() -> None:
    lenet5 = convolution(1, 6, 5) + convolution(6, 16, 5) + dense(16 * 5 * 5, 120) + dense(120, 84) + dense(84, 10)
    assert parameters(build("lenet5")) == lenet5 == 61_706
    lenet = convolution(1, 20, 5) + convolution(20, 50, 5) + dense(50 * 4 * 4, 500) + dense(500, 10)
    assert parameters(build("lenet")) == lenet == 431_080
    small = convolution(1, 16, 4) + convolution(16, 32, 4) + dense(32 * 7 * 7, 100) + dense(100, 10)
    assert parameters(build("conv_small")) == small == 166_406
    assert parameters(build("mlp")) == dense(784, 100) + dense(100, 100) + dense(100, 10)
    assert parameters(build("mlp", hidden=(7,))) == dense(784, 7) + dense(7, 10)
    assert parameters(build("mlp", hidden=())) == dense(784, 10)


@pytest.mark.parametrize("name", ["lenet5", "lenet", "conv_small"])
@given(height=st.integers(1, 40), width=st.integers(1, 40))
@settings(max_examples=15, deadline=None)
def test_every_size_of_image_is_answered_or_refused_when_built(name: str, height: int, width: int) -> None:
    shape = (1, height, width)
    try:
        model = build(name, shape, 3)
    except ValueError:
        # The convolutions of a smaller image leave less than one pixel of it.
        assert min(height, width) < {"lenet5": 12, "lenet": 16, "conv_small": 4}[name]
    else:
        assert min(height, width) >= {"lenet5": 12, "lenet": 16, "conv_small": 4}[name]
        assert model(images(shape)).shape == (2, 3)


@pytest.mark.parametrize("name", ["mlp", "lenet5", "lenet", "conv_small"])
def test_same_seed_same_weights_and_the_global_generator_is_left_alone(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("seeds the accelerators"))
    before = torch.get_rng_state()
    first, again, other = build(name, seed=5), build(name, seed=5), build(name, seed=6)
    assert torch.equal(torch.get_rng_state(), before)
    for (key, tensor), twin in zip(first.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(tensor, twin), key
    assert not torch.equal(first.head.weight, other.head.weight)
    assert not torch.equal(next(first.body.parameters()), next(other.body.parameters()))


def test_normalisation_is_inside_a_channel_at_a_time() -> None:
    mean, std = [0.1, 0.2, 0.3], [0.5, 1.0, 2.0]
    model = build("conv_small", CIFAR, mean=mean, std=std)
    x = images(CIFAR)
    by_hand = x.clone()
    for channel in range(3):
        by_hand[:, channel] = (x[:, channel] - mean[channel]) / std[channel]
    assert torch.allclose(model.normalize(x), by_hand)
    assert torch.equal(model(x), model.head(model.body(model.normalize(x))))
    assert torch.equal(model.features(x), model.body(model.normalize(x)))
    plain = build("conv_small", CIFAR)
    assert torch.equal(plain.normalize(x), x)
    assert torch.allclose(model(x), plain(by_hand), atol=1e-6)


def test_statistics_are_buffers_not_parameters() -> None:
    model = build("mlp", mean=[0.1307], std=[0.3081])
    assert {name for name, _ in model.named_buffers()} == {"normalize.mean", "normalize.std"}
    assert "normalize.mean" in model.state_dict()


@pytest.mark.parametrize("std", [[0.0], [-1.0], [float("nan")]])
def test_standard_deviations_must_be_positive(std: list[float]) -> None:
    with pytest.raises(ValueError, match=rf"Normalize: every std must be positive, got {re.escape(str(std))}\."):
        Normalize([0.0], std, 3)


@pytest.mark.parametrize("mean", [[0.1, 0.2], [0.1, 0.2, 0.3, 0.4]])
def test_statistics_must_fit_the_channels(mean: list[float]) -> None:
    with pytest.raises(ValueError, match=rf"mean and std need one value or 3, one a channel, got {len(mean)} and 3"):
        build("mlp", CIFAR, mean=mean, std=[1.0, 1.0, 1.0])


def test_mlp_equals_its_formula() -> None:
    model = build("mlp", (2, 3), classes=4, hidden=(5,))
    x = images((2, 3))
    first = model.body[1]
    assert isinstance(first, nn.Linear)
    hidden = linear(x.reshape(2, 6), first.weight, first.bias).clamp(min=0)
    assert torch.allclose(model(x), linear(hidden, model.head.weight, model.head.bias))


@pytest.mark.parametrize(
    ("name", "shape", "options", "why"),
    [
        ("lenet5", DIGITS, {}, "nothing is left of the image after the convolutions. Choose larger inputs"),
        ("lenet", (1, 28, 15), {}, "nothing is left of the image after the convolutions"),
        ("conv_small", (784,), {}, r"convolutions need inputs of shape (channels, height, width), got (784,)"),
        ("mlp", MNIST, {"hiden": (3,)}, "unexpected keyword argument 'hiden'"),
        ("lenet5", MNIST, {"hidden": (3,)}, "unexpected keyword argument 'hidden'"),
    ],
)
def test_what_cannot_be_built_says_why_and_what_else(
    name: str, shape: tuple[int, ...], options: dict[str, Any], why: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(why)) as caught:
        build(name, shape, **options)
    assert str(caught.value).startswith(
        f"Architecture {name!r} cannot be built for inputs of shape {shape} with options {options}: "
    )
    assert "another architecture (conv_small, lenet, lenet5, mlp" in str(caught.value)


def test_names_and_their_spelling() -> None:
    assert {"conv_small", "lenet", "lenet5", "mlp"} <= set(architectures.names())
    assert architectures.resolve("Conv-Small") == "conv_small"
    assert architectures.get("LENET5") is architectures.lenet5
    assert architectures.origin("mlp") == "certbench"
    with pytest.raises(UnknownNameError, match=r"Unknown architecture 'lennet5'\. Did you mean 'lenet5'\? Available: "):
        build("lennet5")


def test_classifier_knows_the_listed_name_however_it_was_asked_for() -> None:
    model = build("Conv-Small")
    assert isinstance(model, Classifier)
    assert model.architecture == "conv_small"
    assert "architecture='conv_small'" in str(model)


def test_a_version_beyond_the_first_is_in_the_digest_of_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same weights in another function: a stored row of the one is none of the other."""
    made = [architectures.create("mlp", input_shape=(1, 2, 2), classes=3, seed=0)]
    first = weights_digest(made)
    assert (architectures.version_of("mlp"), "version" in repr(made[0])) == (1, False)
    monkeypatch.setattr(architectures.get("mlp"), "version", 2, raising=False)
    again = [architectures.create("mlp", input_shape=(1, 2, 2), classes=3, seed=0)]
    assert weights_digest(again) != first
    assert torch.equal(again[0].head.weight, made[0].head.weight)
