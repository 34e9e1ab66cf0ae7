import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from certifiers.networks.snapshot import Snapshot


def module() -> Any:
    own = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3)).eval()
    own.offset = torch.ones(3)  # neither a parameter nor a buffer
    own.slope = 0.5
    own.gains, own.table, own.array, own.function = [0.0, 1.0], {"a": [1, 2]}, np.zeros(2), torch.relu
    return own


@torch.no_grad()
def test_it_holds_while_all_numbers_are_the_same() -> None:
    own = module()
    snapshot = Snapshot.of(own)
    assert snapshot.holds(own)
    own.load_state_dict(copy.deepcopy(own.state_dict()))
    own[3].weight = nn.Parameter(own[3].weight.clone())
    assert snapshot.holds(own), "written to and replaced, but the same"
    assert snapshot.holds(copy.deepcopy(own))


CHANGES: dict[str, Callable[[Any], object]] = {
    "in place": lambda own: own[3].weight.mul_(-1),
    "one bit": lambda own: own[3].bias.copy_(torch.nextafter(own[3].bias, torch.tensor(9.0))),
    "data": lambda own: own[3].weight.data.mul_(-1),
    "a buffer": lambda own: own[1].running_mean.add_(1),
    "a plain tensor": lambda own: own.offset.add_(1),
    "a number": lambda own: setattr(own, "slope", 0.25),
    "a stride": lambda own: setattr(own[0], "stride", (2, 2)),
    "the mode": lambda own: own.train(),
    "the type": lambda own: own.double(),
    "another layer": lambda own: own.__setitem__(2, nn.Identity()),
    "one more layer": lambda own: own.append(nn.ReLU()),
    "one layer less": lambda own: own.__delitem__(3),
    "no bias": lambda own: setattr(own[3], "bias", None),
    "tied": lambda own: setattr(own, "other", own[3]),
    "a hook": lambda own: own[3].register_forward_hook(lambda *_: None),
    "a hook before": lambda own: own.register_forward_pre_hook(lambda *_: None),
    "a forward of its own": lambda own: setattr(own[3], "forward", lambda x: x),
    "in a list": lambda own: own.gains.__setitem__(0, 2.0),
    "in a dictionary": lambda own: own.table["a"].append(3),
    "in an array": lambda own: own.array.__setitem__(0, 5),
    "another function": lambda own: setattr(own, "function", lambda x: x),
    "not a number": lambda own: own[3].weight.fill_(torch.nan),
}


@pytest.mark.parametrize("change", CHANGES)
@torch.no_grad()
def test_any_change_is_noticed(change: str) -> None:
    own = module()
    snapshot = Snapshot.of(own)
    CHANGES[change](own)
    assert not snapshot.holds(own)


@torch.no_grad()
def test_what_is_not_a_number_is_like_nothing() -> None:
    own = module()
    own[3].bias[0] = torch.nan
    assert not Snapshot.of(own).holds(own)


@torch.no_grad()
def test_it_does_not_follow_the_module() -> None:
    own = module()
    snapshot = Snapshot.of(own)
    own[3].weight.zero_()
    assert bool(snapshot.tensors["3.weight"].any())
    assert not snapshot.tensors["3.weight"].requires_grad
