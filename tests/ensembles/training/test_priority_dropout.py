import itertools
import math
import re
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from torch import Tensor, nn

from ensembles import Ensemble, ParameterError
from ensembles.training.priority_dropout import LPD, PDD, PDDWithDEG, PriorityDropout

# The papers, a unit at a time


def lpd_keep(features: list[list[list[float]]], objective: LPD) -> list[list[list[float]]]:
    """Alg. 1 and Eq. 3 to 6 of Wu et al. for features[member][sample][unit]."""
    members, batch = len(features), len(features[0])
    s = objective.interval
    mu = [[[math.ceil(v / s) * s - s / 2 if v > 0 else None for v in row] for row in own] for own in features]
    keep: list[list[list[float]]] = [[[] for _ in range(batch)] for _ in range(members)]
    for b in range(batch):
        seen = [b] if objective.statistics == "sample" else range(batch)
        n = [Counter(round(m, 9) for b_ in seen for m in mu[k][b_] if m is not None) for k in range(members)]
        together = sum(n, Counter())
        ranked = sorted(together, key=lambda m: (-together[m], m))
        for k in range(members):
            active = sum(n[k].values())
            for m in mu[k][b]:
                if m is None:
                    keep[k][b].append(1.0)
                    continue
                priority = ranked[min(k, len(ranked) - 1)]
                z = objective.gamma * (n[k][round(m, 9)] / active) * (priority - m) ** 2
                laplace = math.exp(-z / objective.scale) / (2 * objective.scale)
                keep[k][b].append(objective.a * laplace + objective.b)
    return keep


def pdd_keep(features: list[list[list[float]]], objective: PDD) -> list[list[list[float]]]:
    """Eq. 2 of Wu et al. with METHODS section 3, for features[member][sample][unit]."""
    members, batch = len(features), len(features[0])
    keep: list[list[list[float]]] = [[[] for _ in range(batch)] for _ in range(members)]
    for b in range(batch):
        seen = [b] if objective.statistics == "sample" else range(batch)
        values = [v for own in features for b_ in seen for v in own[b_]]
        low, high = min(values), max(values)

        def bin_of(v: float, low: float = low, high: float = high) -> int:
            return min(int((v - low) / (high - low) * objective.bins), objective.bins - 1) if high > low else 0

        n = [
            Counter(bin_of(v) for b_ in seen for v in features[k][b_] if v > 0 or not objective.active_only)
            for k in range(members)
        ]
        together = sum(n, Counter())
        ranked = sorted(together, key=lambda m: (-together[m], m)) or [0]
        for k in range(members):
            for v in features[k][b]:
                if bin_of(v) == ranked[min(k, len(ranked) - 1)]:
                    keep[k][b].append(objective.high)
                else:
                    density = n[k][bin_of(v)] / max(sum(n[k].values()), 1)
                    keep[k][b].append(objective.low * (1 - density))
    return keep


def literal_keep(features: Tensor, objective: PriorityDropout) -> Tensor:
    nested = features.tolist()
    return torch.tensor(lpd_keep(nested, objective) if isinstance(objective, LPD) else pdd_keep(nested, objective))


def keep_of(objective: PriorityDropout, *rows: list[float]) -> list[list[float]]:
    """Keep probabilities of one sample, a row a member."""
    return objective.keep_probabilities(torch.tensor(rows)[:, None])[:, 0].tolist()


def close(*rows: list[float]) -> Any:
    return [pytest.approx(row, abs=1e-6) for row in rows]


# By hand: two members, six units


def test_lpd_keeps_by_hand() -> None:
    # Intervals of .1 and their middles: .03 -> .05; .32, .38, .37, .33 -> .35; 1.21, 1.22, 1.28 -> 1.25; 0 is idle.
    first = [0.0, 0.03, 0.32, 0.38, 0.37, 1.21]  # C = 5: n(.05) = 1, n(.35) = 3, n(1.25) = 1
    second = [0.33, 1.22, 1.28, 0.0, 0.0, 0.03]  # C = 4: n(.05) = 1, n(.35) = 1, n(1.25) = 2
    # Together N(.35) = 4, N(1.25) = 3, N(.05) = 2: the first member has priority r = .35, the second r = 1.25.
    # z = n / C (r - mu)^2 and keep = .85 exp(-2 z) + .127, as 2 l = 1:
    #   first, .05: z = 1/5 (.3)^2 = .018    exp(-.036) = .9646403    keep .9469442
    #   first, .35: z = 0                                             keep .977
    #   first, 1.25: z = 1/5 (.9)^2 = .162   exp(-.324) = .7232502    keep .7417627
    #   second, .35: z = 1/4 (.9)^2 = .2025  exp(-.405) = .6669768    keep .6939303
    #   second, 1.25: z = 0                                           keep .977
    #   second, .05: z = 1/4 (1.2)^2 = .36   exp(-.72) = .4867523     keep .5407394
    assert keep_of(LPD(), first, second) == close(
        [1.0, 0.9469442, 0.977, 0.977, 0.977, 0.7417627],
        [0.6939303, 0.977, 0.977, 1.0, 1.0, 0.5407394],
    )
    # gamma = 2 doubles z, and so squares the exponentials.
    assert keep_of(LPD(gamma=2.0), first, second)[1][5] == pytest.approx(0.85 * 0.4867523**2 + 0.127, abs=1e-6)
    # scale = 1 halves the exponent and the height: .85 / 2 exp(-.36) + .127.
    assert keep_of(LPD(scale=1.0), first, second)[1][5] == pytest.approx(0.425 * math.exp(-0.36) + 0.127, abs=1e-6)
    # The second member has the second priority because it is the second.
    assert keep_of(LPD(), second, first)[0][:2] == close([0.977, 0.85 * math.exp(-2 * 2 / 4 * 0.9**2) + 0.127])[0]


def test_pdd_keeps_by_hand() -> None:
    # The least feature of all is 0, the greatest 1: bin = floor(10 v), the last one closed.
    first = [0.0, 0.0, 0.0, 0.0, 1.0, 0.55]  # n: bin 0 four, bin 9 one, bin 5 one
    second = [0.02, 0.12, 0.93, 0.97, 0.92, 0.53]  # n: bin 0 one, bin 1 one, bin 9 three, bin 5 one
    # Together bin 0 has five, bin 9 four, bin 5 two, bin 1 one: priorities 0 for the first member, 9 for the second.
    # Elsewhere keep = .1 (1 - 1/6) = .0833333.
    rest = 0.1 * 5 / 6
    assert keep_of(PDD(), first, second) == close(
        [0.9, 0.9, 0.9, 0.9, rest, rest],
        [rest, rest, 0.9, 0.9, 0.9, rest],
    )
    # Without the idle units bin 9 has four, bin 5 two, bins 0 and 1 one: priorities 9 and 5. The first member has two
    # active units, one in bin 9 and one in bin 5.
    assert keep_of(PDD(active_only=True), first, second) == close(
        [0.1, 0.1, 0.1, 0.1, 0.9, 0.1 * 1 / 2],
        [rest, rest, 0.1 * 3 / 6, 0.1 * 3 / 6, 0.1 * 3 / 6, 0.9],
    )
    assert keep_of(PDD(high=0.6, low=0.3), first, second)[0] == close([0.6] * 4 + [0.25, 0.25])[0]
    # Two bins: 0 up to .5. The first member has four and two, the second two and four; a tie of six.
    assert keep_of(PDD(bins=2), first, second) == close(
        [0.9, 0.9, 0.9, 0.9, 0.1 * 4 / 6, 0.1 * 4 / 6],
        [0.1 * 4 / 6, 0.1 * 4 / 6, 0.9, 0.9, 0.9, 0.9],
    )


def test_statistics_of_a_sample_or_of_the_batch_by_hand() -> None:
    # Two samples of two units. A sample at a time: in the first .05 is everybody's, in the second .15 is.
    features = torch.tensor([[[0.05, 0.05], [0.15, 0.15]], [[0.05, 0.15], [0.15, 0.15]]])
    keep = LPD().keep_probabilities(features)
    # First sample: N(.05) = 3, N(.15) = 1, priorities .05 and .15; second: .15 for both, the only one there is.
    far = 0.85 * math.exp(-2 * 1 / 2 * 0.01) + 0.127
    assert keep[0].tolist() == close([0.977, 0.977], [0.977, 0.977])
    assert keep[1].tolist() == close([far, 0.977], [0.977, 0.977])
    # Over the batch: N(.15) = 5, N(.05) = 3, so priorities .15 and .05; the first member has two of each of four, the
    # second one at .05 and three at .15.
    keep = LPD(statistics="batch").keep_probabilities(features)
    half, three = 0.85 * math.exp(-2 * 2 / 4 * 0.01) + 0.127, 0.85 * math.exp(-2 * 3 / 4 * 0.01) + 0.127
    assert keep[0].tolist() == close([half, half], [0.977, 0.977])
    assert keep[1].tolist() == close([0.977, three], [three, three])


# Against the papers, at random


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


# The loss


def literal_masks(
    objective: PriorityDropout, ensemble: Ensemble, noisy: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Keep probabilities of the papers, and the factor of each unit, drawn after the noise."""
    with torch.no_grad():
        features = torch.stack([member.features(noisy) for member in ensemble.members])
    keep = literal_keep(features, objective)
    dtype = objective.keep_probabilities(features).dtype
    drawn = torch.rand(features.shape, generator=generator, dtype=dtype)
    factor = torch.zeros_like(features)
    for index in itertools.product(*map(range, features.shape)):
        if drawn[index] < keep[index]:
            factor[index] = 1 / float(keep[index]) if objective.inverted_scaling else 1.0
    return keep, factor


class Dropped(nn.Module):
    """A member with the factor of each unit fixed, for one sample."""

    def __init__(self, member: Any, factor: Tensor) -> None:
        super().__init__()
        self.member = member
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.member.head(self.member.features(x) * self.factor)


@pytest.mark.parametrize("inverted_scaling", [False, True])
@pytest.mark.parametrize("statistics", ["sample", "batch"])
@pytest.mark.parametrize("kind", [PDD, PDDWithDEG, LPD])
def test_terms_equal_the_formulas(literal: Any, kind: Any, statistics: str, inverted_scaling: bool) -> None:
    problem = literal.build_problem(members=3, hidden=12, seed=5)
    objective = kind(sigma=0.5, statistics=statistics, inverted_scaling=inverted_scaling)
    generator = literal.generator(6)
    noisy = problem.x + 0.5 * torch.randn(problem.x.shape, generator=generator, dtype=torch.float64)
    _, factor = literal_masks(objective, problem.ensemble, noisy, generator)
    assert bool((factor > 0).any())
    assert bool((factor == 0).any())
    batch, pairs = len(noisy), list(itertools.combinations(range(3), 2))
    loss = dispersion = 0.0
    for b, label in enumerate(problem.y.tolist()):
        members = [Dropped(member, factor[k, b]) for k, member in enumerate(problem.ensemble.members)]
        loss += (
            sum(literal.cross_entropy(literal.logits_of(one, noisy[b : b + 1])[0], label) for one in members) / batch
        )
        gradients = [literal.input_gradient(one, noisy[b], literal.negative_log_confidence(label)) for one in members]
        for i, j in pairs:
            alive = any(gradients[i]) and any(gradients[j])
            dispersion += literal.cosine(gradients[i], gradients[j]) / batch if alive else 0.0
    truth = {"cross_entropy": loss}
    if kind is PDDWithDEG:
        truth["gradient_dispersion"] = 0.01 * dispersion
        assert abs(dispersion) > 0.1
    terms = objective.terms(problem.ensemble, problem.x, problem.y, literal.generator(6))
    # Keep rates are of single precision, and inverted scaling divides by them.
    assert literal.values(terms) == pytest.approx(truth, rel=1e-6, abs=1e-8)


class Recorder(nn.Module):
    """A member of given features, whose head records what it is given."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.given = nn.Parameter(features)
        self.head = nn.Linear(features.shape[-1], 3).to(features.dtype)
        self.seen: list[Tensor] = []
        self.head.register_forward_pre_hook(lambda _, arguments: self.seen.append(arguments[0].detach()))

    def features(self, x: Tensor) -> Tensor:
        return self.given.expand(len(x), -1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


FIRST, SECOND = [0.0, 0.03, 0.32, 0.38, 0.37, 1.21], [0.33, 1.22, 1.28, 0.0, 0.0, 0.03]


def recorders() -> Ensemble:
    return Ensemble([Recorder(torch.tensor(row)) for row in (FIRST, SECOND)])


@pytest.mark.parametrize("objective", [LPD(), PDD(), PDD(active_only=True)], ids=["lpd", "pdd", "pdd-active"])
def test_masks_are_drawn_with_the_stated_frequencies(literal: Any, objective: PriorityDropout) -> None:
    ensemble, copies = recorders(), 4000
    keep = keep_of(objective, FIRST, SECOND)
    x = torch.zeros(copies, 1)
    objective.dropped_logits(ensemble, [x, x], literal.generator(17))
    masks = []
    for member, row, rates in zip(ensemble.members, (FIRST, SECOND), keep, strict=True):
        kept = member.seen[0] != 0
        for unit, (value, rate) in enumerate(zip(row, rates, strict=True)):
            if value > 0:
                assert torch.equal(member.seen[0][:, unit], torch.where(kept[:, unit], value, 0.0))
                # Ten units an objective: a fair one fails once in a hundred million such tests.
                assert binomtest(int(kept[:, unit].sum()), copies, rate).pvalue > 1e-9
                masks.append(kept[:, unit].double())
    # Units, samples and members are independent: no correlation beyond 5 standard errors.
    drawn = torch.stack(masks)
    assert float((torch.corrcoef(drawn) - torch.eye(len(drawn))).abs().max()) < 5 / math.sqrt(copies)
    after = torch.corrcoef(torch.cat([drawn[:, :-1], drawn[:, 1:]]))
    assert float(after[: len(drawn), len(drawn) :].abs().max()) < 5 / math.sqrt(copies)


def test_features_are_larger_in_evaluation_than_in_training_unless_scaled(literal: Any) -> None:
    # What the papers' code does not divide by: expected feature = keep * feature in training, feature in evaluation.
    x = torch.zeros(4000, 1)
    for objective, smallest, largest in ((PDD(), 0.0, 0.9), (LPD(), 0.127, 0.977)):
        plain, scaled = recorders(), recorders()
        objective.dropped_logits(plain, [x, x], literal.generator(1))
        type(objective)(inverted_scaling=True).dropped_logits(scaled, [x, x], literal.generator(1))
        plain.eval()(x)
        for member, twin in zip(plain.members, scaled.members, strict=True):
            training, evaluation = (seen.mean(0) for seen in member.seen)
            active = evaluation > 0
            ratio = training[active] / evaluation[active]
            assert float(ratio.max()) <= largest + 0.03
            assert float(ratio.min()) >= smallest
            assert float(evaluation.sum()) > float(training.sum()) * 1.03
            # Scaled, the expectations agree (to five standard errors of the mean of 4000 draws).
            error = 5 * ((1 / ratio[ratio > 0.02] - 1).clamp(min=0) / 4000).sqrt()
            found = (twin.seen[0].mean(0)[active] / evaluation[active])[ratio > 0.02]
            assert bool(((found - 1).abs() <= error + 1e-6).all())


def test_under_pdd_evaluation_sees_several_times_the_features_of_training(literal: Any) -> None:
    # On a real network: METHODS section 3, "several times larger", which saturates confidences.
    problem = literal.build_problem(members=3, hidden=64, batch=64)
    sums = []
    for member in problem.ensemble.members:
        member.head.register_forward_pre_hook(lambda _, arguments: sums.append(float(arguments[0].detach().sum())))
    objective = PDD()
    objective.terms(problem.ensemble.train(), problem.x, problem.y, literal.generator(0))
    training, _ = sum(sums), sums.clear()
    problem.ensemble.eval()(problem.x)
    assert sum(sums) > 2 * training
    sums.clear()
    PDD(inverted_scaling=True).terms(problem.ensemble.train(), problem.x, problem.y, literal.generator(0))
    scaled, _ = sum(sums), sums.clear()
    problem.ensemble.eval()(problem.x)
    assert sum(sums) == pytest.approx(scaled, rel=0.25)


@pytest.mark.parametrize("objective", [PDD(), PDDWithDEG(), LPD()], ids=lambda objective: objective.name)
def test_evaluation_is_deterministic_and_uses_all_units(literal: Any, objective: PriorityDropout) -> None:
    problem = literal.build_problem(members=2)
    before = problem.ensemble.eval()(problem.x)
    objective.loss(problem.ensemble.train(), problem.x, problem.y, literal.generator(0)).backward()
    problem.ensemble.eval()
    torch.manual_seed(1)
    once = problem.ensemble(problem.x)
    torch.manual_seed(2)
    assert torch.equal(problem.ensemble(problem.x), once)
    assert torch.equal(once, before), "training leaves nothing behind but gradients"
    plain = torch.stack([member.head(member.features(problem.x)).softmax(-1) for member in problem.ensemble.members])
    assert torch.equal(once, plain.mean(0))


def test_training_draws_anew_and_from_the_generator_alone(literal: Any) -> None:
    problem = literal.build_problem(members=2, hidden=20)
    generator = literal.generator(3)

    def loss(generator: torch.Generator) -> float:
        return LPD().loss(problem.ensemble, problem.x, problem.y, generator).item()

    first, second = loss(generator), loss(generator)
    assert first != second
    again = literal.generator(3)
    torch.manual_seed(5)
    assert [loss(again), loss(again)] == [first, second]


def test_no_gradient_flows_through_the_keep_probabilities(literal: Any) -> None:
    # With inverted scaling the factor is 1 / keep: as a constant it makes the gradient that of a fixed mask.
    problem = literal.build_problem(members=2, hidden=10)
    objective = LPD(inverted_scaling=True)
    generator = literal.generator(6)
    torch.randn(problem.x.shape, generator=generator, dtype=torch.float64)
    _, factor = literal_masks(objective, problem.ensemble, problem.x, generator)
    fixed = sum(
        nn.functional.cross_entropy(member.head(member.features(problem.x) * own), problem.y)
        for member, own in zip(problem.ensemble.members, factor, strict=True)
    )
    parameters = list(problem.ensemble.parameters())
    truth = torch.autograd.grad(fixed, parameters)
    found = torch.autograd.grad(
        objective.loss(problem.ensemble, problem.x, problem.y, literal.generator(6)), parameters
    )
    for one, other in zip(found, truth, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8)


# What is refused


@pytest.mark.parametrize("objective", [PDD(), PDDWithDEG(), LPD()], ids=lambda objective: objective.name)
def test_a_member_without_features_is_named(literal: Any, objective: PriorityDropout) -> None:
    good = literal.build_ensemble(members=1, shape=(1, 1, 2)).members[0]
    ensemble = Ensemble([good, literal.LinearClassifier([[0.0, 0.0]] * 4)])
    x, y = torch.zeros((2, 1, 1, 2), dtype=torch.float64), torch.tensor([0, 1])
    message = (
        f"Objective {objective.name!r} drops penultimate features, but member 1 (LinearClassifier) has no features(x) "
        "and head. Use an architecture of ensembles.architectures, or add them."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        objective.loss(ensemble, x, y, literal.generator(0))


def test_keep_rates_above_one_are_refused() -> None:
    with pytest.raises(
        ParameterError,
        match=r"^LPD: a / \(2 scale\) \+ b = 1\.827 is a probability above 1\. Lower a or b, or raise scale\.$",
    ):
        LPD(a=1.7)
    with pytest.raises(ParameterError, match=r"LPD: a / \(2 scale\) \+ b = 1\.190 "):
        LPD(scale=0.4)
    assert LPD(a=0.75, b=0.25).a == 0.75, "exactly 1 is a probability"
    with pytest.raises(ParameterError, match=r"LPD: b = 1\.0 is not allowed\. Input should be less than 1\."):
        LPD(b=1.0)
    with pytest.raises(ParameterError, match=r"PDD: high = 1\.5 is not allowed\. Input should be less than 1\."):
        PDD(high=1.5)
    with pytest.raises(ParameterError, match=r"PDD: bins = 0 is not allowed\. Input should be greater than 0\."):
        PDD(bins=0)
    with pytest.raises(ParameterError, match=r"PDDWithDEG: deg = -0\.01 is not allowed"):
        PDDWithDEG(deg=-0.01)


def test_the_defaults_are_the_papers() -> None:
    lpd, pdd, deg = LPD(), PDD(), PDDWithDEG()
    assert (lpd.interval, lpd.gamma, lpd.scale, lpd.a, lpd.b) == (0.1, 1.0, 0.5, 0.85, 0.127)
    assert (lpd.statistics, lpd.inverted_scaling) == ("sample", False)
    assert (pdd.bins, pdd.high, pdd.low, pdd.active_only) == (10, 0.9, 0.1, False)
    assert deg.deg == 0.01
    assert all(kind.pairwise and kind.joint for kind in (PDD, PDDWithDEG, LPD))
