"""Bounds by auto_LiRPA have nothing of another call, and leave nothing behind."""

import gc
import weakref
from typing import Any

import torch

from certifiers import Norm
from certifiers.relaxation import LirpaBounds, lirpa
from certifiers.relaxation.ensemble_margins import pairs
from tests.certifiers.relaxation.lirpa_under_test import around, every_method, every_norm, margins


@every_norm
@every_method
def test_every_call_has_its_own_ball(models: Any, method: str, norm: Norm) -> None:
    for kind in ("mlp", "residual"):
        x, others = models.images(2, 1), models.images(2, 2)
        kept = models.network(kind, 8)
        for images, radius in [(x, 0.3), (x, 0.01), (others, 0.1), (x, 0.3), (x[:1], 0.2), (x, 0.01)]:
            ball = around(images, radius, norm)
            found = margins(kept, LirpaBounds(ball, method), images)
            # Another network has a graph of its own, in which nothing was computed before.
            fresh = margins(models.network(kind, 8), LirpaBounds(ball, method), images)
            torch.testing.assert_close(found, fresh, atol=0, rtol=0)


@every_norm
@every_method
def test_bounds_do_not_depend_on_other_samples(models: Any, method: str, norm: Norm) -> None:
    network, ball = models.network("conv", 6), models.ball(norm, 6, count=4)
    together = margins(network, LirpaBounds(ball, method), ball.center)
    alone = [margins(network, LirpaBounds(part, method), part.center) for part in map(ball.part, slices(4))]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)
    if method in ("crown", "alpha-crown"):
        assert bool((together == torch.cat(alone)).all())


def slices(count: int) -> list[slice]:
    return [slice(number, number + 1) for number in range(count)]


def test_graphs_live_as_long_as_their_networks(models: Any) -> None:
    network, other, x = models.network("mlp", 30), models.network("mlp", 31), models.images(1, 0)
    ask = [pairs(network(x).argmax(1), 3)] * 2
    LirpaBounds(around(x, 0.1), "crown").lower([network, other], ask)
    first = lirpa._recordings[network]
    LirpaBounds(around(x, 0.2), "crown").lower([network, other], ask)
    LirpaBounds(around(x, 0.2), "alpha-crown").lower([network, other], ask)
    assert len(first) == 1
    reference, count = weakref.ref(network), len(lirpa._recordings)
    del network, first
    gc.collect()
    assert reference() is None
    assert len(lirpa._recordings) == count - 1
