"""Keep probabilities of priority dropout against the papers, at random and where units tie, idle or diverge."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ensembles.training.priority_dropout import LPD, PDD, PDDWithDEG, PriorityDropout
from tests.ensembles.training.priority_dropout_papers import close, keep_of, literal_keep


@pytest.mark.parametrize(
    "objective",
    [
        PDD(),
        PDD(bins=4, high=0.7, low=0.2, active_only=True),
        PDD(statistics="batch"),
        PDD(statistics="batch", active_only=True, bins=3),
        PDDWithDEG(bins=5),
        LPD(),
        LPD(statistics="batch"),
        LPD(interval=0.25, gamma=3.0, scale=0.8, a=0.7, b=0.2),
    ],
    ids=lambda objective: repr(sorted(objective.describe().items()))[:80],
)
@pytest.mark.parametrize("members", [2, 3])
def test_keep_probabilities_equal_the_papers(literal: Any, objective: PriorityDropout, members: int) -> None:
    for seed in range(5):
        features = (literal.normal(seed, members, 4, 12) * 0.6).relu()
        torch.testing.assert_close(
            objective.keep_probabilities(features).double(),
            literal_keep(features, objective).double(),
            rtol=0,
            atol=1e-6,
        )


shapes = st.tuples(st.integers(2, 5), st.integers(1, 3), st.integers(1, 8))
grids = shapes.flatmap(
    lambda shape: st.lists(st.integers(-1, 9), min_size=math.prod(shape), max_size=math.prod(shape)).map(
        lambda values: torch.tensor(values, dtype=torch.float64).reshape(shape).clamp(min=0) / 10 - 0.04
    )
)


@settings(max_examples=40, deadline=None)
@given(grids)
def test_keep_probabilities_lie_in_the_papers_range(features: Tensor) -> None:
    # Coarse features make ties, empty bins and idle members common.
    active = features.clamp(min=0)
    for statistics in ("sample", "batch"):
        lpd = LPD(statistics=statistics)
        keep = lpd.keep_probabilities(active)
        assert bool((keep[active > 0] > 0.127).all())
        assert bool((keep[active > 0] <= 0.977 + 1e-7).all())
        assert bool((keep[active == 0] == 1).all())
        torch.testing.assert_close(keep.double(), literal_keep(active, lpd).double(), rtol=0, atol=1e-6)
        for active_only in (False, True):
            pdd = PDD(statistics=statistics, active_only=active_only)
            keep = pdd.keep_probabilities(active)
            assert bool(((keep >= 0) & (keep <= 0.9 + 1e-7)).all())
            assert bool(((keep <= 0.1 + 1e-7) | (keep >= 0.9 - 1e-7)).all())


def test_the_nearest_units_reach_the_top_and_the_farthest_the_bottom() -> None:
    # A unit far from the priority is kept with b, up to rounding; one in its interval with a / (2 l) + b.
    keep = keep_of(LPD(), [0.05, 0.05, 0.05, 30.0], [0.05, 0.05, 0.05, 0.05])
    assert keep == close([0.977, 0.977, 0.977, 0.127], [0.127] * 4)  # the second priority is 29.95
    # Nearer means more: for one count each, keep falls with the distance.
    keep = keep_of(LPD(), [0.05, 0.45, 0.85, 1.25], [0.05, 0.05, 0.05, 0.05])
    assert keep[0] == sorted(keep[0], reverse=True)
    assert len(set(keep[0])) == 4


def test_denser_intervals_are_kept_less_as_equation_4_says() -> None:
    # Priority .05 for the first member; at the same distance 1.0, two of five units keep less than one of five would.
    sparse = keep_of(LPD(), [0.05, 0.05, 0.05, 0.05, 1.05], [0.05] * 5)[0][4]
    dense = keep_of(LPD(), [0.05, 0.05, 0.05, 1.05, 1.05], [0.05] * 5)[0][4]
    assert sparse == pytest.approx(0.85 * math.exp(-2 / 5) + 0.127, abs=1e-6)
    assert dense == pytest.approx(0.85 * math.exp(-4 / 5) + 0.127, abs=1e-6)


def test_ties_go_to_the_weakest() -> None:
    # .05 and .95 twice each: the first member gets .05, the second .95, however the units are arranged.
    near, far = 0.977, 0.85 * math.exp(-2 * 1 / 2 * 0.81) + 0.127
    assert keep_of(LPD(), [0.95, 0.05], [0.05, 0.95]) == close([far, near], [far, near])
    assert keep_of(LPD(), [0.05, 0.95], [0.95, 0.05]) == close([near, far], [near, far])
    assert keep_of(PDD(), [1.0, 0.0], [0.0, 1.0]) == close([0.05, 0.9], [0.05, 0.9])


def test_fewer_bins_than_members_reuse_the_last() -> None:
    near = 0.977
    apart = 0.85 * math.exp(-2 * 1 / 2 * 0.81) + 0.127
    # .05 three times, .95 three times: priorities .05, .95 and, for want of a third, .95.
    assert keep_of(LPD(), *[[0.05, 0.95]] * 3) == close([near, apart], [apart, near], [apart, near])
    # One bin for all.
    assert keep_of(LPD(), *[[0.05, 0.05]] * 4) == close(*[[near, near]] * 4)
    assert keep_of(PDD(), *[[2.0, 2.0]] * 3) == close(*[[0.9, 0.9]] * 3)
    # Bin 0 four times, bin 9 twice: priorities 0, 9 and again 9; all of the second member's units are in bin 0.
    assert keep_of(PDD(), [0.0, 1.0], [0.0, 0.0], [0.0, 1.0]) == close([0.9, 0.05], [0.0, 0.0], [0.05, 0.9])


@pytest.mark.parametrize("statistics", ["sample", "batch"])
def test_all_units_idle(statistics: Any) -> None:
    idle = torch.zeros(3, 2, 4)
    assert bool((LPD(statistics=statistics).keep_probabilities(idle) == 1).all())
    for active_only in (False, True):
        keep = PDD(statistics=statistics, active_only=active_only).keep_probabilities(idle)
        torch.testing.assert_close(keep, torch.full_like(keep, 0.9))
    # One member idle, the other not: no division by its count of 0.
    mixed = torch.tensor([[[0.0, 0.0]], [[0.05, 0.95]]])
    assert bool(torch.isfinite(PDD(active_only=True).keep_probabilities(mixed)).all())
    assert LPD().keep_probabilities(mixed)[0].tolist() == [[1.0, 1.0]]


def test_intervals_are_open_below_and_closed_above() -> None:
    # Eq. 3: ceil(v / s) s - s / 2 with s = 1/4, exact in binary: 1/4 belongs to (0, 1/4], whose middle is 1/8.
    lpd = LPD(interval=0.25)
    keep = keep_of(lpd, [0.25, 0.2500001], [0.25, 0.25])[0]
    assert keep == pytest.approx([0.977, 0.85 * math.exp(-2 * 1 / 2 * 0.0625) + 0.127], abs=1e-6)


@pytest.mark.parametrize("value", [3e5, 1e30, math.inf])
def test_diverging_features_share_the_last_interval(value: float) -> None:
    # Nobody can afford an interval of .1 each up to here; they are farther from .05 than anything that is told apart.
    keep = keep_of(LPD(), [0.05, 0.05, value], [0.05, 0.05, 2e5])
    assert keep == close([0.977, 0.977, 0.127], [0.127, 0.127, 0.977])
