from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from certifiers.smoothing.finiteness import surely_finite
from ensembles import architectures
from ensembles.architectures import Classifier, Normalize


def network(name: str, **options: object) -> Classifier:
    shape = (3, 32, 32) if name.startswith("resnet") else (1, 28, 28)
    return architectures.create(name, input_shape=shape, classes=10, seed=0, mean=(0.5,), std=(0.25,), **options).eval()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mlp", {}),
        ("lenet5", {}),
        ("lenet", {}),
        ("conv_small", {}),
        ("resnet18", {"width": 4}),
        ("resnet20", {}),
        ("resnet20", {"shortcut": "padding"}),
    ],
)
def test_networks_of_moderate_depth_are_proved(name: str, options: dict[str, object]) -> None:
    assert surely_finite(network(name, **options), 2.0**10)
    assert surely_finite(network(name, **options).double(), 2.0**10)


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf, 1e38])
@pytest.mark.parametrize("name", ["lenet5", "resnet20"])
def test_no_parameter_or_buffer_may_be_large_or_not_a_number(name: str, wrong: float) -> None:
    found = network(name)
    for tensor in [*found.parameters(), *found.buffers()]:
        if tensor.is_floating_point():
            before = tensor.data.clone()
            tensor.data.view(-1)[-1] = wrong
            # Dividing by a large number is no danger.
            harmless = tensor is found.normalize.std or any(tensor is each for each in _variances(found))
            if not (harmless and wrong == 1e38):
                assert not surely_finite(found, 2.0**10) or harmless
            tensor.data.copy_(before)
    assert surely_finite(found, 2.0**10)


def _variances(found: Classifier) -> list[Tensor]:
    return [
        each.running_var
        for each in found.modules()
        if isinstance(each, nn.BatchNorm2d) and each.running_var is not None
    ]


@torch.no_grad()
def test_bound_holds_where_it_is_reached() -> None:
    # 1e30 at each of the inputs of a row of ones: their sum has to fit, and then does.
    found = Classifier("custom", Normalize([0.0], [1.0], 1), nn.Sequential(), nn.Linear(1000, 2)).eval()
    found.head.weight.fill_(1.0)
    assert surely_finite(found, 1e30)
    assert torch.isfinite(found(torch.full((1, 1000), 1e30))).all()
    assert not surely_finite(found, 1e36)
    assert not torch.isfinite(found(torch.full((1, 1000), 1e36))).all()


def _broken(kind: str) -> Classifier:
    found = network("conv_small")
    body = found.body
    assert isinstance(body, nn.Sequential)
    if kind == "train mode":
        body[1].train()
    elif kind == "a hook":
        body[1].register_forward_hook(lambda module, given, result: result / 0)
    elif kind == "a forward of its own":
        body[1].forward = lambda x: x / 0  # type: ignore[method-assign]
    elif kind == "an unknown layer":
        body[1] = nn.Softplus()
    elif kind == "a subclass":
        body[1] = type("Inverse", (nn.ReLU,), {"forward": lambda self, x: 1 / x})()
    elif kind == "a pool with windows in the padding":
        body[1] = nn.MaxPool2d(2, ceil_mode=True)
    elif kind == "a divisor":
        body[1] = nn.AvgPool2d(2, divisor_override=1)
    elif kind == "two types":
        found.head.double()
    elif kind == "a negative variance":
        body[1] = nn.BatchNorm2d(16)
        body[1].running_var.fill_(-1.0)
    else:
        body[1] = nn.BatchNorm2d(16, track_running_stats=False)
    return found if kind == "train mode" else found.eval()


@pytest.mark.parametrize(
    "kind",
    [
        *("train mode", "a hook", "a forward of its own", "an unknown layer", "a subclass", "a divisor", "two types"),
        *("a pool with windows in the padding", "a negative variance", "no running statistics"),
    ],
)
def test_what_is_not_known_is_not_proved(kind: str) -> None:
    assert not surely_finite(_broken(kind), 2.0**10)


def test_depth_that_makes_the_bound_astronomic_is_not_proved() -> None:
    assert not surely_finite(network("resnet110"), 2.0**10)
    assert surely_finite(deepcopy(network("lenet5")), 2.0**10)
