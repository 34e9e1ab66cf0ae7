import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import certifiers
from certifiers import Norm, ThreatModel, Unsupported, Verdict
from certifiers.smoothing import AdaptiveSmoothing, PhasedSmoothing, Smoothed, Smoothing, look_times
from certifiers.smoothing.looking import LookingSmoothing
from certifiers.smoothing.stopping import Stop
from ensembles import Ensemble, ParameterError, Single

SHAPE = (1, 4, 4)
L2 = ThreatModel("l2")
GRID = (0.0, 0.25, 0.5, 0.75, 1.0)
FORMS = [
    AdaptiveSmoothing(sigma=0.5, n0=50, n=2000, alpha=0.01),
    AdaptiveSmoothing(sigma=0.5, n0=50, n=2000, alpha=0.01, bound="union"),
    PhasedSmoothing(sigma=0.5, n0=50, n=2000, alpha=0.01, shares=(0.1, 0.3, 0.6)),
]
forms = pytest.mark.parametrize("certifier", FORMS, ids=lambda own: own.form)


class Answers(nn.Module):
    """A classifier given by a function, which keeps what it was asked."""

    def __init__(self, answer: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.answer = answer
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.clone())
        return self.answer(x)


def always(label: int) -> Answers:
    return Answers(lambda x: torch.eye(3, dtype=x.dtype)[label].expand(len(x), 3))


def halfspace(p: float, sigma: float = 0.5) -> Answers:
    """Class 0 has probability p at the center of [0, 1]^d under noise of sigma."""
    cut = 0.5 + sigma * float(stats.norm.ppf(p))
    return Answers(lambda x: torch.stack([cut - x.flatten(1)[:, 0], x.flatten(1)[:, 0] - cut], 1))


def center(count: int = 1) -> Tensor:
    return torch.full((count, *SHAPE), 0.5)


def looks(found: certifiers.Certificates, row: int = 0) -> list[tuple[int, int]]:
    return [tuple(map(int, look.split(":"))) for look in found.evidence["looks"][row].split()]


# The samples.


@forms
def test_samples_are_a_prefix_of_those_of_smoothing_and_none_more_is_asked(certifier: LookingSmoothing) -> None:
    adaptive, fixed = halfspace(0.9), halfspace(0.9)
    found = certifier.certify(adaptive, center(), L2, (0.25,), seed=4)
    Smoothing(sigma=0.5, n0=50, n=2000).certify(fixed, center(), L2, seed=4)
    asked = torch.cat(adaptive.seen)
    assert 0 < int(found.evidence["samples"][0]) < 2000
    assert len(asked) == 50 + int(found.evidence["samples"][0]) == int(found.cost.forward_passes[0])
    assert torch.equal(asked, torch.cat(fixed.seen)[: len(asked)])


@forms
def test_radius_is_recomputed_from_the_evidence(certifier: LookingSmoothing) -> None:
    for p in (0.3, 0.6, 0.9, 0.99):
        model = halfspace(p)
        found = certifier.certify(model, center(), L2, GRID, seed=1)
        held = {name: values[0] for name, values in found.evidence.items()}
        answers = torch.cat(model.seen).flatten(1)[:, 0] <= 0.5 + 0.5 * float(stats.norm.ppf(p))
        top = 0 if int(answers[:50].sum()) >= 25 else 1
        cast = (answers if top == 0 else ~answers)[50:]
        assert looks(found) == [(time, int(cast[:time].sum())) for time, _ in looks(found)]
        assert [time for time, _ in looks(found)] == list(certifier.look_times()[: len(looks(found))])
        seen = looks(found)
        bounds = [certifier.lower_bound(seen[: number + 1]) for number in range(len(seen))]
        best = max(bounds, key=lambda bound: bound.p_a)
        assert float(held["p_A"]) == best.p_a
        assert (int(held["n_A"]), int(held["n"])) == (best.votes, best.samples)
        radius = 0.5 * float(stats.norm.ppf(best.p_a)) if best.p_a > 0.5 else 0.0
        assert float(found.radius[0]) == pytest.approx(radius, rel=1e-12)
        assert float(found.radius[0]) <= radius
        assert 0 < float(held["alpha_spent"]) <= float(held["alpha"]) == 0.01
        assert (held["bound"], held["side"], int(held["seed"])) == (certifier.form, "one-sided", 1)


# When it stops.


@forms
@pytest.mark.parametrize("p", [0.2, 0.55, 0.8, 0.97])
def test_an_image_stops_at_the_first_look_that_decides_the_grid(certifier: LookingSmoothing, p: float) -> None:
    found = certifier.certify(halfspace(p), center(), L2, GRID, seed=2)
    seen, stopped = looks(found), found.evidence["stopped"][0]
    again = [certifier.certify(halfspace(p), center(), L2, (radius,), seed=2).evidence["samples"][0] for radius in GRID]
    # Certified radii need the look at which the last of them was; those out of reach are given up by then.
    assert int(found.evidence["samples"][0]) <= max(map(int, again))
    assert stopped == (Stop.CEILING if seen[-1][0] == 2000 else Stop.DECIDED)


@forms
def test_easy_radii_take_few_samples_and_hopeless_ones_too(certifier: LookingSmoothing) -> None:
    first = certifier.look_times()[0]
    for p, radius in ((0.999, 0.25), (0.75, 1.5)):
        found = certifier.certify(halfspace(p), center(), L2, (radius,))
        assert int(found.evidence["samples"][0]) == first
        assert float(found.radius[0]) > 0


@forms
def test_without_radii_it_stops_by_the_tolerance(certifier: LookingSmoothing) -> None:
    coarse = dataclasses.replace(certifier, tolerance=0.6)
    found = coarse.certify(halfspace(0.8), center(), L2)
    asked = dataclasses.replace(coarse, stop="tolerance").certify(halfspace(0.8), center(), L2, GRID)
    assert found.evidence["stopped"][0] == asked.evidence["stopped"][0] == Stop.TOLERANCE
    assert looks(found) == looks(asked)
    exact = dataclasses.replace(certifier, tolerance=0.0).certify(halfspace(0.8), center(), L2)
    assert exact.evidence["stopped"][0] == Stop.CEILING
    assert int(exact.evidence["samples"][0]) == 2000
    assert 0 < float(exact.radius[0]) - float(found.radius[0]) <= 0.6 * 0.5


def test_tolerance_is_of_sigma_in_l2_whatever_the_norm() -> None:
    certifier = dataclasses.replace(FORMS[0], tolerance=0.5)
    l2, linf = (certifier.certify(halfspace(0.8), center(), ThreatModel(norm)) for norm in (Norm.L2, Norm.LINF))
    assert looks(l2) == looks(linf)
    assert float(linf.radius[0]) == pytest.approx(float(l2.radius[0]) / 4, rel=1e-14)
    grid = tuple(radius / 4 for radius in GRID)
    scaled = certifier.certify(halfspace(0.8), center(), ThreatModel(Norm.LINF), grid)
    assert looks(scaled) == looks(certifier.certify(halfspace(0.8), center(), L2, GRID))


@forms
def test_hardly_any_decision_differs_from_that_of_all_samples(certifier: LookingSmoothing) -> None:
    fixed = Smoothing(sigma=0.5, n0=50, n=2000, alpha=0.01)
    fewer = dict.fromkeys(GRID, 0)
    for number, p in enumerate(torch.linspace(0.3, 0.999, 30).tolist()):
        found = certifier.certify(halfspace(p), center(), L2, GRID, seed=number)
        whole = fixed.certify(halfspace(p), center(), L2, seed=number)
        for radius in GRID:
            reached = [bool(own.certified[0]) and float(own.radius[0]) >= radius for own in (found, whole)]
            fewer[radius] += reached[1] - reached[0]
    allowed = 4 if certifier.form == "phases" else 2
    assert all(abs(lost) <= allowed for lost in fewer.values()), fewer


# Fail closed.


@forms
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_invalid_votes_end_the_run_as_an_error(certifier: LookingSmoothing, bad: float) -> None:
    def answer(x: Tensor) -> Tensor:
        scores = torch.eye(3)[1].repeat(len(x), 1)
        scores[x.flatten(1)[:, 0] > 1.7, 0] = bad
        return scores

    model = Answers(answer)
    found = certifier.certify(model, center(), L2, GRID)
    seen = torch.cat(model.seen)
    broken = int((seen.flatten(1)[:, 0] > 1.7).sum())
    assert broken > 0, "a test of nothing"
    assert int(found.verdict[0]) == Verdict.ERROR
    assert (int(found.prediction[0]), float(found.radius[0])) == (-1, 0.0)
    assert found.evidence["stopped"][0] == Stop.INVALID
    assert found.reason[0] == f"the classifier returned NaN or infinity on {broken} of {len(seen)} noisy inputs"


@forms
def test_even_votes_abstain(certifier: LookingSmoothing) -> None:
    found = certifier.certify(halfspace(0.5), center(), L2, GRID)
    assert int(found.verdict[0]) == Verdict.ABSTAINED
    assert found.reason[0] == f"no class is proved to win: p_A = {float(found.evidence['p_A'][0]):.4f}"


@forms
def test_class_is_chosen_by_selection_even_where_estimation_prefers_another(certifier: LookingSmoothing) -> None:
    asked: list[int] = []

    def answer(x: Tensor) -> Tensor:
        asked.append(len(x))
        return torch.eye(3)[1 if sum(asked) <= 50 else 2].expand(len(x), 3)

    found = certifier.certify(Answers(answer), center(), L2, GRID)
    assert int(found.verdict[0]) == Verdict.ABSTAINED
    assert [votes for _, votes in looks(found)] == [0]


# Company, order, batches.


@forms
def test_together_equals_alone_and_shares_the_passes_that_both_need(certifier: LookingSmoothing) -> None:
    easy, hard = halfspace(0.999), halfspace(0.7)
    ensembles = [Ensemble([easy, hard], aggregation=Single(member=number)) for number in (0, 1)]
    together = certifier.certify_together(ensembles, center(3), L2, (0.25,), seed=3)
    assert set(together[0].evidence["samples"].tolist()) != set(together[1].evidence["samples"].tolist())
    for ensemble, found in zip(ensembles, together, strict=True):
        alone = certifier.certify(ensemble, center(3), L2, (0.25,), seed=3)
        assert torch.equal(found.radius, alone.radius)
        assert torch.equal(found.cost.forward_passes, alone.cost.forward_passes)
        assert found.evidence["looks"] == alone.evidence["looks"]
        parts = [certifier.certify(ensemble, center(), L2, (0.25,), seed=3, image_ids=[row]) for row in range(3)]
        assert [looks(part) for part in parts] == [looks(alone, row) for row in range(3)]
        for size in (7, 1000):
            resized = dataclasses.replace(certifier, batch_size=size)
            assert (
                resized.certify(ensemble, center(3), L2, (0.25,), seed=3).evidence["looks"] == alone.evidence["looks"]
            )


# To extend a run.


@pytest.mark.parametrize("bound", ["betting", "union"])
def test_an_extended_run_goes_on_from_the_same_looks_and_never_loses(bound: str) -> None:
    short = AdaptiveSmoothing(sigma=0.5, n0=50, n=1000, alpha=0.01, bound=bound, tolerance=0.0)
    longer = short.extended(8000)
    for p in (0.52, 0.9, 0.9999):
        first = short.certify(halfspace(p), center(), L2, seed=6)
        second = longer.certify(halfspace(p), center(), L2, seed=6)
        assert looks(second)[: len(looks(first))] == looks(first)
        assert looks(second)[-1][0] > 1000
        assert float(second.evidence["p_A"][0]) >= float(first.evidence["p_A"][0])
        assert float(first.evidence["alpha_spent"][0]) <= float(second.evidence["alpha_spent"][0]) <= 0.01
    assert looks(second)[-1][0] == 8000
    assert float(second.radius[0]) > float(first.radius[0]) + 0.05, "more samples are of use"


def test_a_run_with_fixed_n_or_phases_says_that_it_cannot_be_extended() -> None:
    with pytest.raises(
        Unsupported, match=r"n = 1000 cannot be extended to 2000: its bound holds at one number of samp"
    ):
        Smoothing(sigma=0.5, n=1000).extended(2000)
    with pytest.raises(
        Unsupported, match=r"smoothing-phases with n = 2000 cannot be extended to 9000: all of its alpha"
    ):
        FORMS[2].extended(9000)
    with pytest.raises(ParameterError, match=r"a run of up to 2000 samples cannot be extended to 1000. Give a larger"):
        FORMS[0].extended(1000)


# The parameters.


def test_descriptions() -> None:
    adaptive = certifiers.create("smoothing-adaptive", sigma=0.5, batch_size=7)
    assert adaptive.identity() == {
        "sigma": 0.5,
        "n0": 100,
        "n": 100_000,
        "alpha": 0.001,
        "stop": "grid",
        "tolerance": 0.05,
        "futility": 0.01,
        "bound": "betting",
        "ceiling": None,
    }
    assert adaptive.uses_radii
    assert adaptive.look_times() == look_times(100_000, 100_000)
    model = always(0)
    assert adaptive.target(model) == Smoothed(model, 0.5)
    phases = certifiers.create("smoothing-phases", sigma=0.5)
    assert phases.look_times() == (1000, 11_000, 100_000)
    assert PhasedSmoothing(sigma=0.5, n=10).look_times() == (1, 10), "a phase without a sample is left out"
    assert phases.spent(11_000) == pytest.approx(0.001 * 2 / 3)


@pytest.mark.parametrize(
    ("name", "wrong", "told"),
    [
        ("smoothing-adaptive", {"ceiling": 10, "n": 11}, r"ceiling = 10 is not allowed with n = 11. It is at least n"),
        ("smoothing-adaptive", {"futility": 0.0}, "futility = 0.0 is not allowed"),
        ("smoothing-phases", {"shares": [0.5, 0.4]}, r"shares = \(0.5, 0.4\) is not allowed. They are parts of n and "),
        ("smoothing-phases", {"shares": []}, r"shares = \(\) is not allowed"),
    ],
)
def test_parameters_out_of_range_are_refused(name: str, wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ParameterError, match=told):
        certifiers.from_mapping(name, {"sigma": 0.5, **wrong})


def test_all_votes_reach_what_alpha_allows_at_n() -> None:
    found = AdaptiveSmoothing(sigma=0.5, n0=10, n=1000, tolerance=0.0).certify(always(2), center(), L2)
    assert float(found.radius[0]) == pytest.approx(0.5 * stats.norm.ppf(0.0009 ** (1 / 1000)), rel=1e-9)
    assert int(found.prediction[0]) == 2
