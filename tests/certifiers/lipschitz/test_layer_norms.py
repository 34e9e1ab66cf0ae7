import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from certifiers import Norm, Unsupported
from certifiers.lipschitz import operator_norm, operator_norms, value_constants
from certifiers.lipschitz.layer_norms import matrix_of
from certifiers.networks import Add, Network, Shift

NORMS = list(Norm)
ORDER = {Norm.L1: 1.0, Norm.L2: 2.0, Norm.LINF: math.inf}


def dense(layer: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """The matrix of a linear layer: what it makes of the unit inputs, less what it makes of zero."""
    inputs = torch.eye(math.prod(shape), dtype=torch.float64).reshape(-1, *shape)
    with torch.no_grad():
        return (layer(inputs) - layer(torch.zeros(1, *shape, dtype=torch.float64))).flatten(1).T


def out_shape(layer: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(layer(torch.zeros(1, *shape, dtype=torch.float64)).shape[1:])


def bound(layer: nn.Module, shape: tuple[int, ...], norm: Norm) -> float:
    return operator_norm(layer, shape, out_shape(layer, shape), norm)


def truth(layer: nn.Module, shape: tuple[int, ...], norm: Norm) -> float:
    return float(torch.linalg.matrix_norm(dense(layer, shape), ord=ORDER[norm]))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (5, 3), (3, 7), (100, 40)])
def test_linear_is_exact(norm: Norm, inputs: int, outputs: int) -> None:
    torch.manual_seed(inputs)
    layer = nn.Linear(inputs, outputs, dtype=torch.float64)
    found, true = bound(layer, (inputs,), norm), truth(layer, (inputs,), norm)
    assert true <= found <= true * (1 + 1e-9)


def test_linear_of_a_known_norm() -> None:
    layer = nn.Linear(2, 2, dtype=torch.float64)
    layer.weight.data = torch.tensor([[3.0, 0.0], [4.0, 5.0]], dtype=torch.float64)
    assert bound(layer, (2,), Norm.L2) == pytest.approx(math.sqrt(45), rel=1e-12)  # singular values of 3, 4, 5
    assert bound(layer, (2,), Norm.L1) == pytest.approx(7)
    assert bound(layer, (2,), Norm.LINF) == pytest.approx(9)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Conv2d, tuple[int, ...]]:
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    dilation = (draw(st.integers(1, 2)), draw(st.integers(1, 3)))
    padding = (draw(st.integers(0, 3)), draw(st.integers(0, 2)))
    size = [
        draw(st.integers(max(1, dilation[axis] * (kernel[axis] - 1) + 1 - 2 * padding[axis]), 12)) for axis in (0, 1)
    ]
    torch.manual_seed(draw(st.integers(0, 10**6)))
    layer = nn.Conv2d(
        groups * draw(st.integers(1, 2)),
        groups * draw(st.integers(1, 3)),
        kernel,
        stride=(draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        padding=padding,
        dilation=dilation,
        groups=groups,
        dtype=torch.float64,
    )
    return layer, (layer.in_channels, *size)


@settings(max_examples=50, deadline=None)
@given(convolutions(), st.sampled_from(NORMS))
def test_convolution_in_any_norm(case: tuple[nn.Conv2d, tuple[int, ...]], norm: Norm) -> None:
    layer, shape = case
    found, true = bound(layer, shape, norm), truth(layer, shape, norm)
    assert true * (1 - 1e-14) <= found <= true * (1 + 1e-9) + 1e-300


@settings(max_examples=30, deadline=None)
@given(convolutions())
def test_matrix_of_a_convolution(case: tuple[nn.Conv2d, tuple[int, ...]]) -> None:
    layer, shape = case
    found = matrix_of(layer, shape, out_shape(layer, shape))
    assert torch.allclose(found, dense(layer, shape), rtol=0, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(convolutions())
def test_convolution_too_large_to_be_decomposed(case: tuple[nn.Conv2d, tuple[int, ...]]) -> None:
    layer, shape = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("certifiers.lipschitz.layer_norms.LARGEST_SIDE", 0)
        found = bound(layer, shape, Norm.L2)
        patch.setattr("certifiers.lipschitz.layer_norms.LARGEST_TRANSFORM", 0)
        interpolated = bound(layer, shape, Norm.L2)
    true = truth(layer, shape, Norm.L2)
    assert true * (1 - 1e-12) <= found <= interpolated * (1 + 1e-12)
    ones, infinities = (truth(layer, shape, norm) for norm in (Norm.L1, Norm.LINF))
    assert interpolated == pytest.approx(math.sqrt(ones * infinities), rel=1e-12)


@pytest.mark.parametrize(("stride", "padding", "groups"), [(1, 1, 1), (2, 1, 1), (1, 0, 2), (2, 0, 1)])
def test_the_torus_is_a_close_bound_of_images(
    stride: int, padding: int, groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(stride)
    layer = nn.Conv2d(4, 8, 3, stride=stride, padding=padding, groups=groups, dtype=torch.float64)
    true = truth(layer, (4, 14, 14), Norm.L2)
    monkeypatch.setattr("certifiers.lipschitz.layer_norms.LARGEST_SIDE", 0)
    assert true <= bound(layer, (4, 14, 14), Norm.L2) <= 1.05 * true


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(2, 2, 0), (3, 1, 1), (3, 2, 0), ((2, 3), (1, 2), (1, 0)), (5, 5, 2), (1, 3, 0)]
)
def test_average_pooling_is_exact(kernel: object, stride: object, padding: object, norm: Norm) -> None:
    layer = nn.AvgPool2d(kernel, stride, padding)  # type: ignore[arg-type]
    found, true = bound(layer, (2, 7, 8), norm), truth(layer, (2, 7, 8), norm)
    assert true * (1 - 1e-14) <= found <= true * (1 + 1e-9)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "overlap"),
    [(2, 2, 0, 1), (3, 2, 0, 4), (3, 1, 1, 9), (3, 2, 1, 4), ((1, 3), (1, 1), (0, 0), 3), (2, 3, 0, 1)],
)
def test_max_pooling_counts_overlaps(kernel: object, stride: object, padding: object, overlap: int) -> None:
    layer = nn.MaxPool2d(kernel, stride, padding)  # type: ignore[arg-type]
    shape = (2, 8, 8)
    assert bound(layer, shape, Norm.L1) == overlap
    assert bound(layer, shape, Norm.L2) == pytest.approx(math.sqrt(overlap), rel=1e-15)
    assert bound(layer, shape, Norm.LINF) == 1
    # One pixel that towers above all others moves all windows it is in: the constants are attained.
    image = torch.zeros(1, *shape, dtype=torch.float64)
    image[0, 0, 4, 4] = image[0, 0, 3, 3] = 1.0
    moved = (layer(2 * image) - layer(image)).flatten()
    for norm in NORMS:
        size = torch.linalg.vector_norm(image.flatten(), ord=ORDER[norm])
        assert float(torch.linalg.vector_norm(moved, ord=ORDER[norm]) / size) <= bound(layer, shape, norm) + 1e-12


def test_max_pooling_attains_its_constant() -> None:
    layer, shape = nn.MaxPool2d(3, 2), (1, 7, 7)
    image = torch.zeros(1, *shape, dtype=torch.float64)
    image[0, 0, 2, 2] = 1.0  # in four windows
    moved = layer(image).flatten()
    assert float(moved.norm()) == bound(layer, shape, Norm.L2) == 2.0
    assert float(moved.norm(p=1)) == bound(layer, shape, Norm.L1) == 4.0


@pytest.mark.parametrize("norm", NORMS)
def test_layers_that_do_not_stretch(norm: Norm) -> None:
    for layer in (nn.ReLU(), nn.Flatten(), Shift(torch.ones(3)), Add()):
        assert operator_norm(layer, (3,), (3,), norm) == 1


def test_constants_of_a_residual_network_add() -> None:
    left, right = nn.Linear(2, 2, dtype=torch.float64), nn.Linear(2, 2, dtype=torch.float64)
    left.weight.data, right.weight.data = 2 * torch.eye(2).double(), 3 * torch.eye(2).double()
    network = Network([left, nn.ReLU(), right, Add()], [(0,), (1,), (2,), (1, 3)], list("abcd"), [(2,)] * 5)
    assert value_constants(network, Norm.L2) == pytest.approx([1, 2, 2, 6, 8], rel=1e-12)
    assert operator_norms(network, Norm.L2) is operator_norms(network, Norm.L2)


def test_unknown_layer() -> None:
    with pytest.raises(Unsupported, match=r"the third: no Lipschitz constant is known for Sigmoid. Known are linear"):
        operator_norm(nn.Sigmoid(), (3,), (3,), Norm.L2, "the third")


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_not_numbers_have_an_infinite_norm(norm: Norm, bad: float) -> None:
    linear, convolution = nn.Linear(3, 2, dtype=torch.float64), nn.Conv2d(1, 1, 2, dtype=torch.float64)
    linear.weight.data[0, 0] = convolution.weight.data[0, 0, 0, 0] = bad
    assert operator_norm(linear, (3,), (2,), norm) == math.inf
    assert operator_norm(convolution, (1, 4, 4), (1, 3, 3), norm) == math.inf
