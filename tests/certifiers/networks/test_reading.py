"""A network that was read computes what the module computes, to the last digits of float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from certifiers import Unsupported
from certifiers.networks import Network, Shift, read
from ensembles import architectures
from ensembles.architectures import Normalize
from ensembles.resnets import PaddedShortcut

SHAPE = (2, 8, 8)


def shaken(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in float64 and eval mode, with statistics, scales and biases that are not the usual zeros and ones."""
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, (nn.BatchNorm2d, nn.BatchNorm1d)):
            for tensor, least in [(layer.running_mean, -1.0), (layer.running_var, 0.3), (layer.bias, -1.0)]:
                tensor.data.copy_(least + torch.rand(len(tensor), generator=generator))
            layer.weight.data.copy_(torch.randn(len(layer.weight), generator=generator))
    return module.double().eval()


def images(count: int = 5, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def agrees(module: nn.Module, shape: tuple[int, ...] = SHAPE) -> Network:
    """The network of a module, after it was compared."""
    network, x = read(module, images(1, shape)), images(5, shape)
    with torch.no_grad():
        wanted = module(x)
    torch.testing.assert_close(network(x), wanted, rtol=1e-9, atol=1e-9 * max(1.0, float(wanted.abs().max())))
    known = (nn.Linear, nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.Flatten)
    assert all(isinstance(layer, known) or type(layer).__name__ in ("Shift", "Add") for layer in network.layers)
    values = network.values(x)
    assert [tuple(value.shape[1:]) for value in values] == [tuple(shape) for shape in network.shapes]
    assert not any(parameter.requires_grad for parameter in network.parameters())
    return network


def kinds(network: Network) -> list[str]:
    return [type(layer).__name__ for layer in network.layers]


ARCHITECTURES: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("mlp", (2, 3, 3), {"hidden": (7, 5)}),
    ("lenet5", (1, 16, 16), {}),
    ("lenet", (3, 16, 16), {}),
    ("conv_small", (3, 9, 9), {}),
    ("resnet18", (3, 8, 8), {"width": 2}),
    ("resnet20", (3, 8, 8), {}),
    ("resnet20", (3, 9, 9), {"shortcut": "padding"}),
    pytest.param("resnet50", (3, 32, 32), {}, marks=pytest.mark.slow),
    pytest.param("resnet110", (3, 8, 8), {}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "shape", "options"), ARCHITECTURES)
def test_every_architecture(name: str, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    mean, std = [0.4, 0.3, 0.2][: shape[0]], [0.2, 0.3, 0.5][: shape[0]]
    module = architectures.create(name, input_shape=shape, classes=4, seed=1, mean=mean, std=std, **options)
    agrees(shaken(module), shape)


def test_this_table_has_every_architecture() -> None:
    rows = [row if isinstance(row, tuple) and not hasattr(row, "values") else row.values for row in ARCHITECTURES]
    ours = {name for name in architectures.names() if architectures.origin(name) == "certbench"}
    assert ours == {row[0] for row in rows}


NORMALIZE = Normalize([0.4, 0.1], [0.3, 2.0], 3)


def head(features: int) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(features, 3))


class Calls(nn.Module):
    """A forward of functions, with layers to call."""

    def __init__(self, forward: Callable[..., Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.calls = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.calls(self, x)


def convolution(channels: int = 4, padding: int = 1, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(2, channels, 3, padding=padding, **options)


def residual(layer: nn.Module) -> Callable[..., Tensor]:
    def forward(self: Any, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.head(torch.relu(self.inner(y) + y))

    return forward


# What is scaled, and what is left of it in the network.
FOLDED: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "normalised before a convolution": (
        lambda: nn.Sequential(NORMALIZE, convolution(padding=0), nn.ReLU(), head(4 * 36)),
        ["Conv2d", "ReLU", "Flatten", "Linear"],
    ),
    "normalised before a padded convolution": (
        lambda: nn.Sequential(NORMALIZE, convolution(stride=2), nn.ReLU(), head(4 * 16)),
        ["Conv2d", "Shift", "ReLU", "Flatten", "Linear"],
    ),
    "normalised before a padded convolution and a batch norm": (
        lambda: nn.Sequential(NORMALIZE, convolution(), nn.BatchNorm2d(4), nn.ReLU(), head(4 * 64)),
        ["Conv2d", "Shift", "ReLU", "Flatten", "Linear"],
    ),
    "scaled before a padded convolution": (
        lambda: nn.Sequential(Normalize([0.0], [0.5], 3), convolution(), nn.ReLU(), head(4 * 64)),
        ["Conv2d", "ReLU", "Flatten", "Linear"],
    ),
    "normalised before groups and dilation": (
        lambda: nn.Sequential(NORMALIZE, convolution(groups=2, dilation=2), nn.ReLU(), head(4 * 36)),
        ["Conv2d", "Shift", "ReLU", "Flatten", "Linear"],
    ),
    "normalised before flattening": (
        lambda: nn.Sequential(NORMALIZE, head(128)),
        ["Flatten", "Linear"],
    ),
    "normalised twice": (
        lambda: nn.Sequential(NORMALIZE, Normalize([0.2], [0.7], 3), nn.BatchNorm2d(2), convolution(), head(256)),
        ["Conv2d", "Shift", "Flatten", "Linear"],
    ),
    "batch norm after a convolution": (
        lambda: nn.Sequential(convolution(), nn.BatchNorm2d(4), nn.ReLU(), head(256)),
        ["Conv2d", "ReLU", "Flatten", "Linear"],
    ),
    "batch norm after a ReLU and before a convolution": (
        lambda: nn.Sequential(convolution(2), nn.ReLU(), nn.BatchNorm2d(2), convolution(), nn.ReLU(), head(256)),
        ["Conv2d", "ReLU", "Conv2d", "Shift", "ReLU", "Flatten", "Linear"],
    ),
    "batch norm before the ReLU on the input": (
        lambda: nn.Sequential(nn.BatchNorm2d(2), nn.ReLU(), convolution(), nn.ReLU(), head(256)),
        ["Conv2d", "ReLU", "Conv2d", "ReLU", "Flatten", "Linear"],
    ),
    "batch norm between ReLU and pooling": (
        lambda: nn.Sequential(convolution(), nn.ReLU(), nn.BatchNorm2d(4), nn.MaxPool2d(2), head(64)),
        ["Conv2d", "ReLU", "Conv2d", "MaxPool2d", "Flatten", "Linear"],
    ),
    "batch norm of features": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(128, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.BatchNorm1d(6)),
        ["Flatten", "Linear", "ReLU", "Linear"],
    ),
    "scaled between two readers": (
        lambda: Calls(
            lambda self, x: self.head(torch.relu(self.one(y := self.norm(x))) + self.two(y)),
            norm=nn.BatchNorm2d(2),
            one=convolution(),
            two=convolution(),
            head=head(256),
        ),
        ["Conv2d", "Conv2d", "ReLU", "Conv2d", "Add", "Flatten", "Linear"],
    ),
}


@pytest.mark.parametrize("name", FOLDED)
def test_scales_are_folded(name: str) -> None:
    torch.manual_seed(1)
    build, truth = FOLDED[name]
    network = agrees(shaken(build()))
    assert kinds(network) == truth
    shifts = [layer for layer in network.layers if isinstance(layer, Shift)]
    assert all(bool((layer.offset[0, :, 0, 0] != layer.offset[0, :, 3, 3]).any()) for layer in shifts)


READ: dict[str, Callable[[], nn.Module]] = {
    "residual": lambda: Calls(
        residual(nn.Identity()), first=convolution(3), inner=nn.Conv2d(3, 3, 3, padding=1), head=head(192)
    ),
    "padded shortcut": lambda: Calls(
        lambda self, x: self.head(torch.relu(self.inner(x) + self.shortcut(x))),
        inner=convolution(5, stride=2),
        shortcut=PaddedShortcut(2, 5, 2),
        head=head(80),
    ),
    "ReLU in place before it is added": lambda: Calls(
        lambda self, x: self.head(self.inner(self.relu(y := self.first(x))) + y),
        first=convolution(3),
        relu=nn.ReLU(inplace=True),
        inner=nn.Conv2d(3, 3, 1),
        head=head(192),
    ),
    "added in place": lambda: Calls(
        lambda self, x: self.head(self.first(x).add_(self.inner(x)).relu_()),
        first=convolution(3),
        inner=convolution(3),
        head=head(192),
    ),
    "a value added to itself": lambda: Calls(
        lambda self, x: self.head((y := torch.relu(self.first(x))) + y), first=convolution(3), head=head(192)
    ),
    "a difference": lambda: Calls(
        lambda self, x: self.head(torch.relu(self.first(x)) - self.inner(x)),
        first=convolution(3),
        inner=convolution(3),
        head=head(192),
    ),
    "arithmetic with constants": lambda: Calls(
        lambda self, x: 3 - 2 * self.head((self.first(2 * x - 0.5) / 4 + 1).relu()) / 5,
        first=convolution(3),
        head=head(192),
    ),
    "functions": lambda: Calls(
        lambda self, x: functional.linear(
            functional.avg_pool2d(
                functional.relu(
                    functional.conv2d(functional.max_pool2d(x, 2), self.first.weight, padding=1, stride=(1, 2))
                ),
                2,
            ).view(x.shape[0], -1),
            self.last.weight,
        ),
        first=convolution(3),
        last=nn.Linear(6, 3),
    ),
    "pools": lambda: nn.Sequential(
        *(convolution(), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1), nn.AvgPool2d(2, padding=1)),
        *(nn.AdaptiveAvgPool2d(1), head(4)),
    ),
    "a mean over the pixels": lambda: Calls(
        lambda self, x: self.head(self.first(x).relu().mean((2, 3))), first=convolution(3), head=nn.Linear(3, 2)
    ),
    "weight norm": lambda: nn.Sequential(weight_norm(convolution()), nn.ReLU(), head(256)),
    "spectral norm": lambda: nn.Sequential(nn.Flatten(), spectral_norm(nn.Linear(128, 6)), nn.ReLU(), nn.Linear(6, 2)),
    "dropout": lambda: nn.Sequential(convolution(), nn.Dropout2d(0.5), nn.ReLU(), nn.Dropout(0.5), head(256)),
    "constant": lambda: Calls(lambda self, x: self.head(x) * 0 + 1, head=head(128)),
}


@pytest.mark.parametrize("name", READ)
def test_forwards_of_many_kinds(name: str) -> None:
    torch.manual_seed(2)
    agrees(shaken(READ[name]()))


UNREAD: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "sigmoid": (
        lambda: nn.Sequential(convolution(), nn.Sigmoid(), head(256)),
        r"layer 1 \(Sigmoid\): the operation aten\.sigmoid\.default has no bounds here\. Known are linear and",
    ),
    "a branch on values": (
        lambda: Calls(lambda self, x: self.head(x) if x.sum() > 0 else -self.head(x), head=head(128)),
        r"the layers of Calls cannot be recorded .*does not branch on values; smoothing certifies any classifier",
    ),
    "a mean over the batch": (
        lambda: Calls(lambda self, x: self.head(x - x.mean(0, keepdim=True)), head=head(128)),
        r"layer \(the model\) \(Calls\): a mean over other dimensions than height and width has no bounds",
    ),
    "samples that trade places": (
        lambda: Calls(lambda self, x: self.head(x.flip(0)), head=head(128)),
        r"layer \(the model\) \(Calls\): the operation aten\.flip\.default has no bounds here",
    ),
    "batch norm without statistics": (
        lambda: nn.Sequential(convolution(), nn.BatchNorm2d(4, track_running_stats=False), head(256)),
        r"layer 1 \(BatchNorm2d\): a batch norm without running statistics couples the samples of a batch",
    ),
    "more than logits": (
        lambda: Calls(lambda self, x: (self.head(x), x), head=head(128)),
        r"returns more than its logits; return one tensor",
    ),
    "not logits": (lambda: convolution(), r"output is not one row of logits a sample"),
    "dropout that stays on": (
        lambda: Calls(lambda self, x: self.head(functional.dropout(x, 0.5, training=True)), head=head(128)),
        r"layer \(the model\) \(Calls\): dropout stays on in eval mode; a random classifier has no bounds",
    ),
    "a product": (
        lambda: Calls(lambda self, x: self.head(x * x), head=head(128)),
        r"layer \(the model\) \(Calls\): the mul of two values of the network has no bounds here",
    ),
    "a weight of pixels alone": (
        lambda: Calls(
            lambda self, x: self.head(torch.relu(x * torch.linspace(1, 2, 8, dtype=x.dtype))), head=head(128)
        ),
        r"it scales values of shape \[2, 8, 8\] differently within a channel",
    ),
    "an attention": (
        lambda: Calls(lambda self, x: self.head(functional.linear(x.flatten(1), x.flatten(1)[:2])), head=head(2)),
        r"layer \(the model\) \(Calls\): ",
    ),
    "pooling with an uneven rest": (
        lambda: nn.Sequential(nn.AdaptiveAvgPool2d(3), head(18)),
        r"layer 0 \(AdaptiveAvgPool2d\): adaptive pooling from \(8, 8\) to \(3, 3\) has windows of different sizes",
    ),
    "pooling of a larger rest": (
        lambda: nn.Sequential(nn.MaxPool2d(3, ceil_mode=True), head(18)),
        r"layer 0 \(MaxPool2d\): max pooling with dilation or ceil_mode has no bounds",
    ),
}


@pytest.mark.parametrize("name", UNREAD)
def test_what_has_no_bounds_is_named(name: str) -> None:
    build, message = UNREAD[name]
    module = build().double().eval()
    with pytest.raises(Unsupported, match=message):
        read(module, images(1))


def test_the_module_is_left_exactly_as_it_was() -> None:
    torch.manual_seed(3)
    module = nn.Sequential(
        NORMALIZE,
        convolution(),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        weight_norm(nn.Linear(8, 2)),
    )
    module = nn.Sequential(*module[:5], nn.Flatten(), nn.Linear(256, 2)).train()
    module[0].eval()
    calls = []
    module[1].register_forward_hook(lambda *_: calls.append(1))
    module[6].weight.grad = torch.ones_like(module[6].weight)
    module[6].bias.requires_grad_(False)
    tensors = [*module.parameters(), *module.buffers()]
    before = [(tensor.data_ptr(), tensor._version, tensor.dtype, tensor.clone()) for tensor in tensors]
    modes, hooks = [part.training for part in module.modules()], dict(module[1]._forward_hooks)
    state = torch.get_rng_state()
    read(module, images(1).float())
    assert [part.training for part in module.modules()] == modes
    for tensor, (pointer, version, dtype, copy) in zip(tensors, before, strict=True):
        assert (tensor.data_ptr(), tensor._version, tensor.dtype) == (pointer, version, dtype)
        assert torch.equal(tensor, copy)
    assert torch.equal(module[6].weight.grad, torch.ones_like(module[6].weight))
    assert not module[6].bias.requires_grad
    assert module[6].weight.requires_grad
    assert dict(module[1]._forward_hooks) == hooks
    assert torch.equal(torch.get_rng_state(), state)


class Written(nn.Module):
    """`relu_` on another name of `g`, which is read again: it returns `head(relu(g) - h)`, and not `head(g - h)`."""

    def __init__(self, name: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.head, self.dropout, self.name = nn.Linear(3, 4), nn.Linear(4, 2), nn.Dropout(), name

    def forward(self, x: Tensor) -> Tensor:
        h = -functional.relu(self.first(x))
        g = h.clone()
        functional.relu_(self.name(self, g))
        return self.head(g - h)


@pytest.mark.parametrize(
    "name",
    [
        lambda own, g: g.flatten(1),
        lambda own, g: g.view(g.shape[0], -1),
        lambda own, g: own.dropout(g),
        lambda own, g: g.detach(),
    ],
    ids=["flatten", "view", "dropout", "detach"],
)
def test_what_is_written_by_another_name_is_never_read_as_it_was(name: Any) -> None:
    """It is read rightly, or refused."""
    module = Written(name).double().eval()
    try:
        agrees(module, (3,))
    except Unsupported as reason:
        assert "writes to memory that is read later by another name" in str(reason)  # noqa: PT017


def test_operations_in_place_by_one_name_are_read() -> None:
    agrees(Written(lambda own, g: g).double().eval(), (3,))


class DependentBias(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.first.weight, self.second(x).relu())


def test_a_bias_that_depends_on_the_input_is_refused() -> None:
    with pytest.raises(Unsupported, match="the weights of a linear layer depend on the input"):
        read(DependentBias().eval(), images(1, (3,)))
