import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from certifiers.undisturbed import undisturbed


def generators() -> list[Any]:
    return [
        torch.get_rng_state().tolist(),
        [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],  # noqa: NPY002
        random.getstate(),
    ]


def settings() -> list[Any]:
    return [torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads()]


def model() -> nn.Sequential:
    net = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5), nn.Sequential(nn.BatchNorm1d(3), nn.ReLU()))
    net.train()
    net[1].eval()  # a mix of modes, as fine-tuning leaves
    net[0].bias.requires_grad_(requires_grad=False)
    net[0].weight.grad = torch.ones_like(net[0].weight)
    return net


def state_of(net: nn.Module) -> list[Any]:
    modes = [module.training for module in net.modules()]
    weights = {name: tensor.tolist() for name, tensor in net.state_dict().items()}
    gradients = [(p.requires_grad, None if p.grad is None else p.grad.tolist()) for p in net.parameters()]
    return [modes, weights, gradients]


MESS: dict[str, Callable[[nn.Module], object]] = {
    "torch generator": lambda net: torch.rand(3),
    "torch seed": lambda net: torch.manual_seed(1),
    "numpy generator": lambda net: np.random.rand(3),  # noqa: NPY002
    "python generator": lambda net: random.random(),  # noqa: S311
    "grad mode": lambda net: torch.set_grad_enabled(True),
    "grad mode off": lambda net: torch.set_grad_enabled(False),
    "default dtype": lambda net: torch.set_default_dtype(torch.float64),
    "train mode": lambda net: net.train(),
    "mode of a part": lambda net: net[2].train(),  # type: ignore[index]
    "frozen": lambda net: net.requires_grad_(requires_grad=False),
    "thawed": lambda net: net.requires_grad_(requires_grad=True),
    "gradients gone": lambda net: net.zero_grad(),
    "forward": lambda net: net(torch.rand(4, 2)),
}


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("mess", MESS)
def test_whatever_the_body_does_is_undone(mess: str, enabled: bool, raises: bool) -> None:
    net, other = model(), model().eval()
    with torch.set_grad_enabled(enabled):
        before = [settings(), state_of(net), state_of(other)]
        try:
            with undisturbed([net, other]):
                drawn = generators()  # read here: the type checks of tests draw from `random`
                MESS[mess](net)
                if raises:
                    raise KeyError("author's mistake")
        except KeyError:
            assert raises
        else:
            assert not raises
        assert [settings(), state_of(net), state_of(other)] == before
        assert generators() == drawn


def test_gradients_of_a_backward_pass_do_not_stay() -> None:
    net = model()
    before = state_of(net)
    with undisturbed([net]), torch.enable_grad():
        net.requires_grad_(requires_grad=True)
        net.zero_grad()
        net(torch.rand(4, 2)).sum().backward()
    assert state_of(net) == before


def test_body_runs_in_eval_mode_with_gradients_off() -> None:
    net = model()
    with undisturbed([net]):
        assert not any(module.training for module in net.modules())
        assert not torch.is_grad_enabled()
        assert not net(torch.rand(4, 2)).requires_grad
    assert net.training


def test_thread_count_is_restored() -> None:
    threads = torch.get_num_threads()
    try:
        with undisturbed([]):
            torch.set_num_threads(threads + 1)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(threads)


def test_thread_count_that_was_not_changed_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: pytest.fail("toggling the pool slows later work"))
    with undisturbed([model()]):
        torch.rand(3)


def test_members_shared_by_several_classifiers_get_their_mode_back() -> None:
    member = nn.Linear(2, 2).train()
    with undisturbed([nn.Sequential(member), nn.Sequential(member)]):
        assert not member.training
    assert member.training
