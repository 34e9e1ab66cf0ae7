"""Programs in units of their own: the units of hidden values change no answer, and nothing is certified in doubt."""

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import Tensor, nn

from certifiers import ThreatModel, create
from certifiers.exact import MILP, Encoder, highs, linear_escape, minimal_margin
from certifiers.exact.scaling import Scaled
from certifiers.networks import prepare
from certifiers.relaxation import Ball

LINF = ThreatModel("linf")

GRID = [0.02 * step for step in range(1, 30)]


def ball(x: Tensor, radius: float) -> Ball:
    return Ball.around(x[None].double(), torch.tensor([radius], dtype=torch.float64), LINF)


def image(seed: int, inputs: int) -> Tensor:
    return torch.rand(inputs, generator=torch.Generator().manual_seed(seed))


def rescaled(model: nn.Module, power: int) -> nn.Module:
    """The same function, to the bit: hidden values times `2^power`, outgoing weights by it."""
    same = copy.deepcopy(model)
    same[0].weight.data *= 2.0**power
    same[0].bias.data *= 2.0**power
    same[2].weight.data *= 2.0**-power
    return same


@pytest.mark.parametrize("power", [-40, 30, 40])
def test_the_units_of_hidden_values_change_no_answer(power: int, mlp: Any) -> None:
    """Tolerances of a solver are absolute: in units of 2^36 it found everything impossible, and certified the box."""
    model = mlp(4, 6, 3, seed=0)
    x = torch.rand(3, 4, generator=torch.Generator().manual_seed(3))
    same = rescaled(model, power)
    assert torch.equal(same(x), model(x))
    found = [MILP().certify(each, x, LINF, radii=GRID) for each in (model, same)]
    assert bool((found[0].radius > 0).any())
    assert found[1].radius.tolist() == found[0].radius.tolist()


def test_scaling_is_exact_and_small_coefficients_only_widen(mlp: Any) -> None:
    networks = prepare(mlp(3, 5, 3, seed=1), image(0, 3)[None]).networks
    escape = linear_escape(Encoder(ball(image(0, 3), 0.3)), networks, [torch.tensor([1.0, -1.0, 0.0]).double()])
    tiny = escape.matrix.copy()
    tiny.data[0] *= 1e-14
    escape = replace(escape, matrix=tiny)
    scaled = Scaled.of(escape)
    assert np.abs(scaled.matrix.data).min() >= 1e-11
    assert len(scaled.matrix.data) == len(tiny.data) - 1
    assert np.array_equal(scaled.lower * scaled.units, escape.lower)
    assert np.array_equal(scaled.upper * scaled.units, escape.upper)
    generator = np.random.default_rng(0)
    ends = np.clip(escape.lower, -1, None), np.clip(escape.upper, None, 1)
    factors = (
        abs(scaled.matrix @ sparse.diags_array(1 / scaled.units)).max(axis=1).toarray()
        / abs(tiny).max(axis=1).toarray()
    )
    for _ in range(50):
        v = generator.uniform(*ends)
        room, wanted = scaled.limit - scaled.matrix @ (v / scaled.units), factors * (escape.limit - tiny @ v)
        # Whatever met the constraints meets them now.
        assert (room >= wanted - 1e-15 * np.abs(wanted) - 1e-15).all()
        assert room == pytest.approx(wanted, abs=1e-9)


def test_what_the_solver_doubts_is_not_certified(mlp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(6, 4, generator=torch.Generator().manual_seed(3))
    honest = MILP().certify(mlp(4, 6, 3, seed=0), x, LINF, radii=GRID)
    doubt = highs.Outcome("doubtful", math.inf, math.inf, None)
    for name in ("reachable", "least"):
        monkeypatch.setattr(highs, name, lambda *_, **__: doubt)
    found = MILP().certify(mlp(4, 6, 3, seed=0), x, LINF, radii=GRID)
    # What is left is what needs no solver.
    bounded = create("native-crown").certify(mlp(4, 6, 3, seed=0), x, LINF, radii=GRID)
    assert found.radius.tolist() == bounded.radius.tolist()
    assert bool((found.radius < honest.radius).any())
    assert (
        minimal_margin(
            prepare(mlp(4, 6, 3, seed=0), x).networks, [torch.tensor([1.0, -1.0, 0.0]).double()], ball(x[0], 0.3)
        ).bound
        == -math.inf
    )
