"""Coefficients of windows equal those of all entries, and the derivatives of what they are of."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from certifiers import ThreatModel
from certifiers.networks import Add, Network, Shift
from certifiers.relaxation import Ball, relaxed
from certifiers.relaxation import rows as rows_module
from certifiers.relaxation.backward import backward
from certifiers.relaxation.rows import Rows


def conv(channels: int, wider: int, size: int, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(channels, wider, size, dtype=torch.float64, **options)


def chain(layers: list[nn.Module], shape: tuple[int, ...]) -> Network:
    """Layers one after the other."""
    return graph([(layer, (number,)) for number, layer in enumerate(layers)], shape)


def graph(steps: list[tuple[nn.Module, tuple[int, ...]]], shape: tuple[int, ...]) -> Network:
    values = [torch.zeros(1, *shape, dtype=torch.float64)]
    for layer, sources in steps:
        values.append(layer(*(values[source] for source in sources)))
    return Network(
        [layer for layer, _ in steps],
        [sources for _, sources in steps],
        [f"layer {number}" for number in range(len(steps))],
        [tuple(value.shape[1:]) for value in values],
    )


def networks() -> dict[str, Network]:
    torch.manual_seed(0)
    shape = (2, 21, 18)
    border = torch.randn(3, 21, 18, dtype=torch.float64)
    pooled = [conv(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), conv(3, 4, 3), nn.ReLU(), conv(4, 2, 2)]
    return {
        "strides": chain([conv(2, 3, 3, stride=2), nn.ReLU(), conv(3, 4, 2, stride=(1, 2)), nn.ReLU()], shape),
        "paddings": chain([conv(2, 3, 3, padding=(2, 1)), nn.ReLU(), conv(3, 2, 4, stride=3, padding=2)], shape),
        "dilation": chain([conv(2, 3, 2, dilation=(3, 2), padding=1), nn.ReLU(), conv(3, 2, 3, dilation=2)], shape),
        "groups": chain([conv(2, 4, 3, groups=2), nn.ReLU(), conv(4, 4, 2, groups=4, stride=2)], shape),
        "shift": chain([conv(2, 3, 3, padding=1), Shift(border), nn.ReLU(), conv(3, 2, 3, stride=2)], shape),
        "avg pooling": chain([conv(2, 3, 2), nn.AvgPool2d(3, stride=2, padding=1), nn.ReLU(), conv(3, 2, 2)], shape),
        "max pooling": chain(pooled, shape),
        "residual": graph(
            [
                *((conv(2, 3, 3, stride=2, padding=1), (0,)), (nn.ReLU(), (1,)), (conv(3, 4, 3, padding=1), (2,))),
                *((conv(2, 4, 1, stride=2), (0,)), (Add(), (3, 4)), (nn.ReLU(), (5,)), (conv(4, 2, 2), (6,))),
            ],
            shape,
        ),
        "residual of the input": graph(
            [(conv(2, 2, 5, padding=2), (0,)), (nn.ReLU(), (1,)), (Add(), (2, 0)), (conv(2, 3, 3, stride=2), (3,))],
            shape,
        ),
        "residual of wide and narrow windows": graph(
            [
                *((conv(2, 3, 1), (0,)), (conv(3, 3, 13, padding=6), (1,)), (nn.ReLU(), (2,)), (Add(), (3, 1))),
                (conv(3, 2, 2), (4,)),
            ],
            shape,
        ),
        "twice the same": graph(
            [(conv(2, 3, 3), (0,)), (nn.ReLU(), (1,)), (Add(), (2, 2)), (conv(3, 2, 2), (3,))], shape
        ),
    }


def entries(network: Network, batch: int) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """Entries of the output, corners and borders among them."""
    shape = network.shapes[-1]
    size = int(torch.Size(shape).numel())
    at = torch.cat([torch.tensor([0, size - 1, shape[2] - 1]), torch.arange(0, size, max(1, size // 40))])
    return at, torch.arange(len(at)) % batch, shape


@pytest.mark.parametrize("largest", [0, 512])  # windows by convolution, and by a matrix
@pytest.mark.parametrize("name", list(networks()))
def test_windows_equal_the_dense_computation(name: str, largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "LARGEST_WINDOW", largest)
    network = networks()[name]
    x = torch.rand(2, *network.shapes[0], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ball = Ball.around(x, torch.tensor([0.02, 0.2], dtype=torch.float64), ThreatModel("linf"))
    bounds = relaxed(network, ball, "ibp")
    at, owner, shape = entries(network, 2)
    sparse = Rows.entries(at, owner, shape, x)
    assert sparse.top is not None
    output = len(network.layers)
    windows, dense = backward(bounds, output, sparse), backward(bounds, output, sparse.whole())
    if name != "residual of wide and narrow windows":
        assert windows.rows.top is not None  # it was worth it
    torch.testing.assert_close(windows.rows.whole().values, dense.rows.values, atol=1e-12, rtol=0)
    torch.testing.assert_close(windows.offset, dense.offset, atol=1e-12, rtol=0)
    torch.testing.assert_close(windows.rows.dot(x), dense.rows.dot(x), atol=1e-12, rtol=0)
    torch.testing.assert_close(ball.least(*windows), ball.least(*dense), atol=1e-11, rtol=0)


@pytest.mark.parametrize("name", list(networks()))
def test_coefficients_are_derivatives_where_everything_is_sure(name: str) -> None:
    network = networks()[name]
    x = torch.rand(2, *network.shapes[0], generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ball = Ball.around(x, torch.zeros(2, dtype=torch.float64), ThreatModel("linf"))
    at, owner, shape = entries(network, 2)
    found = backward(relaxed(network, ball, "ibp"), len(network.layers), Rows.entries(at, owner, shape, x))
    leaf = x.clone().requires_grad_()
    values = network.values(leaf)[-1].flatten(1)
    sign = torch.cat([torch.ones(len(at)), -torch.ones(len(at))]).double()
    for row in range(0, 2 * len(at), 7):
        own, entry = int(owner.repeat(2)[row]), int(at.repeat(2)[row])
        (slope,) = torch.autograd.grad(sign[row] * values[own, entry], leaf, retain_graph=True)
        torch.testing.assert_close(found.rows.whole().values[row], slope[own], atol=1e-7, rtol=0)
    # And with their offsets they are the values.
    truth = sign * values[owner.repeat(2), at.repeat(2)]
    torch.testing.assert_close(found.rows.dot(x) + found.offset, truth.detach(), atol=1e-7, rtol=0)


def test_windows_off_the_value_are_zero_there() -> None:
    shape, like = (1, 5, 5), torch.zeros(0, dtype=torch.float64)
    corner = Rows.entries(torch.tensor([0, 24]), torch.tensor([0, 0]), shape, like)
    layer = conv(1, 1, 3, padding=1)
    grown = corner.through(layer, (1, 9, 9))
    assert grown.top is None or bool((grown.top < 0).any())
    quantities = torch.rand(1, 1, 9, 9, dtype=torch.float64)
    torch.testing.assert_close(grown.dot(quantities), grown.whole().dot(quantities))
