import itertools

import pytest
import torch
from torch import Tensor, nn

from ensembles import architectures
from ensembles.architectures import Classifier, Normalize
from ensembles.fused import WIDEST, Fused, fused, fused_network

SHAPE = (1, 28, 28)


def members(
    name: str = "lenet5", count: int = 3, shape: tuple[int, ...] = SHAPE, **options: object
) -> list[Classifier]:
    return [
        architectures.create(name, input_shape=shape, classes=10, seed=seed, **options).eval() for seed in range(count)
    ]


def custom(seed: int, *layers: nn.Module, head: int, mean: float = 0.25) -> Classifier:
    """A member of these layers; its weights are drawn anew from the seed."""
    generator = torch.Generator().manual_seed(seed)
    own = Classifier("custom", Normalize([mean], [0.5], 3), nn.Sequential(*layers), nn.Linear(head, 4))
    for parameter in own.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return own.eval()


def made(found: list[Classifier]) -> Fused:
    network = fused(found)
    assert network is not None
    return network


def inputs(shape: tuple[int, ...] = SHAPE, count: int = 50) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def assert_equal_logits(found: list[Classifier], x: Tensor) -> None:
    own = torch.stack([member(x) for member in found])
    logits = made(found)(x)
    assert logits.shape == own.shape
    assert torch.allclose(logits, own, rtol=1e-5, atol=1e-5)
    assert float((own[0] - own[1]).abs().max()) > 0.01, "members differ, so that mixing them up is seen"


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 29, 31)], ids=str)
@pytest.mark.parametrize("count", [2, 3, 5])
def test_logits_are_the_members_own(shape: tuple[int, ...], count: int) -> None:
    assert_equal_logits(members(count=count, shape=shape), inputs(shape))


def test_float64_and_channels_last() -> None:
    found = [member.double().to(memory_format=torch.channels_last) for member in members()]
    x = inputs().double()
    with torch.no_grad():
        own = torch.stack([member(x) for member in found])
        assert torch.allclose(made(found)(x), own, rtol=1e-13, atol=1e-13)


def test_groups_strides_padding_no_bias_and_other_pooling() -> None:
    def member(seed: int) -> Classifier:
        layers = [
            *(nn.Conv2d(1, 4, 3, stride=2, padding=1, bias=False), nn.ReLU(), nn.AvgPool2d(2)),
            *(nn.Conv2d(4, 8, 3, padding=2, groups=2, dilation=2), nn.MaxPool2d(3, stride=2), nn.ReLU()),
            *(nn.Dropout(0.5), nn.Flatten(), nn.Linear(72, 6, bias=False), nn.Identity(), nn.ReLU()),
        ]
        return custom(seed, *layers, head=6)

    assert_equal_logits([member(1), member(2), member(3)], inputs())


def test_pooling_of_odd_sides_leaves_the_last_row_out_as_pytorch_does() -> None:
    found = [custom(s, nn.Conv2d(1, 2, 2), nn.MaxPool2d(2), nn.Flatten(), head=2 * 3 * 4) for s in range(2)]
    assert_equal_logits(found, inputs((1, 8, 10)))


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
def test_numbers_that_are_not_finite_come_out_as_of_the_members(wrong: float) -> None:
    found, x = members(), inputs()
    x[3, 0, 4, 4] = wrong
    with torch.no_grad():
        own, logits = torch.stack([member(x) for member in found]), made(found)(x)
    assert torch.equal(torch.isfinite(own), torch.isfinite(logits))
    assert not bool(torch.isfinite(logits[:, 3]).all())


def test_a_weight_that_is_not_a_number_spoils_its_member_alone() -> None:
    found = members()
    found[1].body[3].weight.data[2, 1, 0, 0] = torch.nan  # type: ignore[index, union-attr]
    with torch.no_grad():
        logits = made(found)(inputs())
    assert torch.isfinite(logits[[0, 2]]).all()
    assert not torch.isfinite(logits[1]).any()


def test_inputs_are_left_alone() -> None:
    x = inputs()
    before = x.clone()
    layers = [custom(s, nn.ReLU(), nn.Conv2d(1, 2, 3), nn.Flatten(), head=2 * 26 * 26, mean=0.0) for s in range(2)]
    with torch.no_grad():
        made(members())(x)
        made(layers)(x)
    assert torch.equal(x, before)


class Doubled(Classifier):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def _hooked() -> list[Classifier]:
    found = members()
    found[1].body[1].register_forward_hook(lambda module, given, result: 2 * result)
    return found


def _subclass() -> list[Classifier]:
    found = members()
    return [Doubled(own.architecture, own.normalize, own.body, own.head).eval() for own in found]


def _replaced() -> list[Classifier]:
    found = members()
    found[2].forward = lambda x: x.flatten(1)[:, :10]  # type: ignore[method-assign]
    return found


def _training() -> list[Classifier]:
    found = members()
    found[0].body[1].train()
    return found


def _other_means() -> list[Classifier]:
    return [custom(s, nn.Conv2d(1, 2, 3), nn.Flatten(), head=1352, mean=0.1 * s) for s in range(2)]


def _other_layer(layer: nn.Module) -> list[Classifier]:
    return [custom(s, nn.Conv2d(1, 2, 3), layer, nn.Flatten(), head=1352) for s in range(2)]


REFUSED = {
    "one member": members(count=1),
    "a hook": _hooked(),
    "a subclass with a forward of its own": _subclass(),
    "a forward of an instance": _replaced(),
    "train mode": _training(),
    "different normalisation": _other_means(),
    "different architectures": [*members(count=1), *members("lenet", count=1)],
    "a layer that is not known": _other_layer(nn.Softplus()),
    "a convolution that pads by reflection": _other_layer(nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect")),
    "no convolution": members("mlp"),
    "wide convolutions": members("conv_small"),
    "residual blocks": members("resnet20", shape=(3, 32, 32)),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_surely_alike_is_not_fused(case: str) -> None:
    assert fused(REFUSED[case]) is None


def test_kinds_that_differ_in_one_setting_are_not_fused() -> None:
    pools = [nn.MaxPool2d(2), nn.MaxPool2d(2, ceil_mode=True), nn.MaxPool2d(2, dilation=1, padding=1)]
    for first, second in itertools.permutations(pools, 2):
        pair = [custom(s, nn.Conv2d(1, 2, 3), pool, nn.Flatten(), head=338) for s, pool in enumerate((first, second))]
        assert fused(pair) is None


def test_width_is_that_of_the_widest_convolution() -> None:
    def pair(width: int) -> list[Classifier]:
        return [custom(s, nn.Conv2d(1, width, 3), nn.Flatten(), head=width * 676) for s in range(2)]

    assert fused(pair(WIDEST)) is not None
    assert fused(pair(WIDEST + 1)) is None


@pytest.mark.parametrize("name", ["conv_small", "lenet"])
@torch.no_grad()
def test_wide_members_could_be_fused_and_are_not(name: str) -> None:
    found, x = members(name), inputs()
    assert fused(found) is None
    network = fused_network(found)
    assert network is not None
    assert torch.allclose(network(x), torch.stack([member(x) for member in found]), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_logits_do_not_hang_on_who_else_is_fused() -> None:
    # A run that is resumed may lack some of the entries that were certified together before.
    found, x = members(count=4), inputs(count=200)
    whole = made(found)(x)
    for some in ([0, 1], [3, 1], [2, 3, 0]):
        logits = made([found[number] for number in some])(x)
        flipped = int((logits.argmax(-1) != whole[some].argmax(-1)).sum())
        assert torch.allclose(logits, whole[some], rtol=1e-5, atol=1e-6)
        assert flipped <= 1  # the same bits where the kernels are the same, as on the processors that we have seen
