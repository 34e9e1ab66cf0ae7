import math
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import ensembles
from bench.torchvision_import import import_torchvision
from ensembles import architectures, resnets

NAMES = ["resnet18", "resnet20", "resnet110", "resnet50"]
CIFAR, MNIST = (3, 32, 32), (1, 28, 28)


@pytest.fixture(scope="module")
def vision() -> ModuleType:
    try:
        return import_torchvision()
    except ImportError:
        pytest.skip("torchvision is not installed")


def build(name: str, input_shape: tuple[int, ...] = CIFAR, classes: int = 10, seed: int = 0, **options: Any):
    return architectures.create(name, input_shape=input_shape, classes=classes, seed=seed, **options)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def unsettle(module: nn.Module) -> None:
    """Batch norms as after training: no statistic, weight or bias at its first value."""
    generator = torch.Generator().manual_seed(7)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.running_mean, layer.running_var, layer.weight.data, layer.bias.data):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.2)


def copy_in_order(source: nn.Module, target: nn.Module) -> None:
    """Fills a network with the state of another that has the same layers in the same order."""
    state = list(source.state_dict().values())
    names = list(target.state_dict())
    target.load_state_dict(dict(zip(names, state, strict=True)))


def test_architectures_know_the_resnets() -> None:
    assert set(NAMES) <= set(architectures.names())
    assert {architectures.origin(name) for name in NAMES} == {"certbench"}
    assert architectures.get("ResNet20") is resnets.resnet20


def test_parameters_of_cifar_resnets_are_those_of_the_papers_table() -> None:
    # He et al., CVPR 2016, Table 6: 0.27M and 1.7M. By hand, for n blocks a stage, with option A:
    for name, n in (("resnet20", 3), ("resnet110", 18)):
        convolutions = 9 * (3 * 16 + 2 * n * 16**2 + 16 * 32 + (2 * n - 1) * 32**2 + 32 * 64 + (2 * n - 1) * 64**2)
        norms = 2 * (16 + 2 * n * (16 + 32 + 64))
        padded = convolutions + norms + 65 * 10
        projections = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
        assert parameters(build(name, shortcut="padding")) == padded
        assert parameters(build(name)) == parameters(build(name, shortcut="projection")) == padded + projections
    assert parameters(build("resnet20", shortcut="padding")) == 269_722
    assert parameters(build("resnet20")) == 272_474
    assert parameters(build("resnet110", shortcut="padding")) == 1_727_962
    assert parameters(build("resnet110")) == 1_730_714


def test_parameters_of_resnet18_and_resnet50() -> None:
    with torch.device("meta"):
        small, large = resnets.resnet18(CIFAR), resnets.resnet50((3, 224, 224))
    assert parameters(small) + 513 * 10 == 11_173_962  # torchvision's 11,181,642 less 64 * 3 * (7 * 7 - 3 * 3)
    assert parameters(large) + 2049 * 1000 == 25_557_032


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_equals_torchvision_with_the_same_weights(vision: ModuleType, name: str) -> None:
    reference = getattr(vision.models, name)()
    if name == "resnet18":
        reference.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        reference.maxpool = nn.Identity()
    unsettle(reference)
    ours = build(name, (3, 40, 40), classes=1000)
    assert parameters(ours) == parameters(reference) == {"resnet18": 11_681_832, "resnet50": 25_557_032}[name]
    body_and_head = nn.Sequential(ours.body, ours.head).double().eval()
    copy_in_order(reference, body_and_head)
    x = torch.rand(2, 3, 40, 40, dtype=torch.float64)
    expected = reference.double().eval()(x)
    torch.testing.assert_close(body_and_head(x), expected, rtol=1e-10, atol=1e-10)


def literal_cifar_features(body: nn.Sequential, x: Tensor, blocks: int, shortcut: str) -> Tensor:
    """He et al., section 4.2, with functions only: weights are taken in the order of the paper's layers."""
    tensors: Iterator[Tensor] = iter(body.state_dict().values())

    def convolve(h: Tensor, size: int, stride: int) -> Tensor:
        h = functional.conv2d(h, next(tensors), stride=stride, padding=size // 2)
        weight, bias, mean, variance, _ = (next(tensors) for _ in range(5))
        return functional.batch_norm(h, mean, variance, weight, bias, training=False)

    h = convolve(x, 3, 1).relu()
    for stage in range(3):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            inside = convolve(convolve(h, 3, stride).relu(), 3, 1)
            if stride == 2:
                h = convolve(h, 1, 2) if shortcut == "projection" else h[:, :, ::2, ::2]
                h = functional.pad(h, (0, 0, 0, 0, 0, inside.shape[1] - h.shape[1]))
            h = (inside + h).relu()
    assert next(tensors, None) is None
    return h.mean((2, 3))


@pytest.mark.parametrize("shortcut", ["projection", "padding"])
@pytest.mark.parametrize("input_shape", [(3, 16, 16), (1, 14, 13)])
def test_resnet20_equals_a_literal_one(input_shape: tuple[int, ...], shortcut: str) -> None:
    body = resnets.resnet20(input_shape, shortcut=shortcut)
    unsettle(body)
    body.double().eval()
    x = torch.rand(2, *input_shape, dtype=torch.float64)
    torch.testing.assert_close(body(x), literal_cifar_features(body, x, 3, shortcut), rtol=1e-11, atol=1e-11)


def test_padding_carries_the_input_exactly_and_costs_no_state() -> None:
    shortcut = resnets.PaddedShortcut(3, 5, stride=2)
    x = torch.randn(2, 3, 7, 6)
    carried = shortcut(x)
    assert torch.equal(carried[:, :3], x[:, :, ::2, ::2])
    assert carried.shape == (2, 5, 4, 3)
    assert not carried[:, 3:].any()
    assert not shortcut.state_dict()
    assert "3, 5, stride=2" in repr(shortcut)


@pytest.mark.parametrize(
    ("name", "input_shape", "options", "width"),
    [
        ("resnet18", MNIST, {"width": 4}, 32),
        ("resnet18", CIFAR, {"width": 4}, 32),
        ("resnet20", MNIST, {}, 64),
        ("resnet20", CIFAR, {"shortcut": "padding"}, 64),
        ("resnet110", MNIST, {}, 64),
        ("resnet110", CIFAR, {"shortcut": "padding"}, 64),
        ("resnet50", MNIST, {}, 2048),
    ],
)
def test_shapes(name: str, input_shape: tuple[int, ...], options: dict[str, Any], width: int) -> None:
    model = build(name, input_shape, **options).eval()
    x = torch.rand(2, *input_shape)
    with torch.no_grad():
        features = model.features(x)
        torch.testing.assert_close(model(x), model.head(features))
    assert features.shape == (2, width)
    assert model.head.in_features == width


def test_convolutions_start_as_he_et_al_say() -> None:
    wide = [layer for layer in resnets.resnet18(CIFAR, width=32).modules() if isinstance(layer, nn.Conv2d)]
    for layer in wide:
        assert layer.bias is None
        expected = math.sqrt(2 / (layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels))
        error = 5 / math.sqrt(2 * layer.weight.numel())  # five standard errors of a standard deviation
        assert float(layer.weight.detach().std()) == pytest.approx(expected, rel=error)


def test_same_seed_same_weights_and_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    first, same, other = (build("resnet18", width=2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert ensembles.weights_digest([first]) == ensembles.weights_digest([same])
    assert ensembles.weights_digest([first]) != ensembles.weights_digest([other])


def test_create_leaves_batch_norms_at_their_start_and_in_train_mode() -> None:
    model = build("resnet18", MNIST, width=2)
    assert all(module.training for module in model.modules())
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(norms) == 20
    for layer in norms:
        assert int(layer.num_batches_tracked) == 0
        assert not layer.running_mean.any()
        assert bool((layer.running_var == 1).all())


def test_batch_norms_learn_statistics_in_train_mode_only() -> None:
    model = build("resnet18", MNIST, width=2)
    model.eval()(torch.rand(3, *MNIST))
    assert int(model.body[1].num_batches_tracked) == 0
    model.train()(torch.rand(3, *MNIST))
    assert int(model.body[1].num_batches_tracked) == 1


def test_every_parameter_learns() -> None:
    for name, options in (("resnet18", {"width": 2}), ("resnet20", {}), ("resnet20", {"shortcut": "padding"})):
        model = build(name, (1, 16, 16), **options)
        model(torch.rand(4, 1, 16, 16)).square().sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())


def test_checkpoints_keep_resnets(tmp_path: Any) -> None:
    options = {"shortcut": "padding"}
    members = [build("resnet20", MNIST, seed=seed, **options) for seed in range(2)]
    for member in members:
        unsettle(member)
    header = {"architecture": "resnet20", "input_shape": list(MNIST), "classes": 10, "options": options}
    path = tmp_path / "members.safetensors"
    path.write_bytes(ensembles.checkpoint.serialize(members, header))
    loaded = ensembles.checkpoint.load(path)
    x = torch.rand(2, *MNIST)
    for member, again in zip(members, loaded.members, strict=True):
        assert torch.equal(member.eval()(x), again(x))


@pytest.mark.parametrize(
    ("name", "input_shape", "options", "message"),
    [
        ("resnet18", CIFAR, {"width": 0}, "width must be a positive integer, got 0. Choose"),
        ("resnet18", CIFAR, {"width": True}, "width must be a positive integer, got True"),
        ("resnet18", CIFAR, {"widht": 4}, "unexpected keyword argument 'widht'"),
        (
            "resnet20",
            CIFAR,
            {"shortcut": "pading"},
            "shortcut = 'pading' is not known. Did you mean 'padding'? Available: projection, padding. Choose",
        ),
        ("resnet50", (64,), {}, "convolutions need inputs of shape (channels, height, width), got (64,)"),
    ],
)
def test_errors_say_what_is_allowed(
    name: str, input_shape: tuple[int, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^Architecture '{name}' cannot be built .*{re.escape(message)}"):
        build(name, input_shape, **options)
