"""Ensemble-after-smoothing: the theorem at linear members, alpha shared, and what it is asked of."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

import certifiers
from certifiers import Certificates, ThreatModel, Verdict
from certifiers.conformance.smoothed_truth import Recorder, Slabs
from certifiers.smoothing import EnsembleAfterSmoothing, Smoothed, SmoothedMembers, Smoothing
from ensembles import Ensemble, MaxMargin, Single, WeightedAverage

L2 = ThreatModel("l2")
SHAPE, SIGMA = (3,), 0.5
X = torch.full((1, *SHAPE), 0.5, dtype=torch.float64)


def half_space(cut: float, axis: int = 0) -> Slabs:
    """Class 0 below the cut, in standard deviations of the noise from the image."""
    return Slabs(torch.eye(3, dtype=torch.float64)[axis], (cut,), SIGMA)


def ensemble(*members: nn.Module) -> Ensemble:
    return Ensemble(list(members), MaxMargin()).eval()


def eas(**parameters: float | int) -> EnsembleAfterSmoothing:
    return EnsembleAfterSmoothing(**{"sigma": SIGMA, "n0": 100, "n": 2000} | parameters)  # type: ignore[arg-type]


def certify(classifier: nn.Module, **parameters: float | int) -> Certificates:
    return eas(**parameters).certify(classifier, X, L2)


@pytest.mark.parametrize("cuts", [(1.5, 0.5), (2.0, -1.0), (0.4, 0.4, 2.5), (1.0, -0.8)])
def test_radius_comes_near_to_theorem_5_and_stays_below_it(cuts: tuple[float, ...]) -> None:
    # Halfspaces across one axis: at the shift t the members' Phi^-1 are cut - t, and theorem 5 is exact.
    found = certify(ensemble(*map(half_space, cuts)), n=20_000)
    exact = SIGMA * (max(cuts) + min(cuts)) / 2
    assert int(found.prediction[0]) == 0
    assert 0.6 * exact < float(found.radius[0]) < exact


def test_at_the_radius_of_theorem_5_the_answer_changes() -> None:
    cuts = np.array([2.0, -1.0, 0.3])
    shift = (cuts.max() + cuts.min()) / 2

    def answer(t: float) -> int:
        chances = np.stack([stats.norm.cdf(cuts - t), stats.norm.sf(cuts - t)])
        return int(chances.max(1).argmax())

    assert (answer(shift - 1e-6), answer(shift + 1e-6)) == (0, 1)


def test_members_that_disagree_are_bounded_by_their_own_rival_and_not_by_all_other_votes() -> None:
    # The second member never answers 0; its votes are spread over 3 classes of .4 and less, none of which can win.
    spread = Slabs(torch.eye(3, dtype=torch.float64)[0], (-9.0, -0.3, 0.3), SIGMA)
    sure = Slabs(torch.eye(3, dtype=torch.float64)[1], (1.5, 8.0, 9.0), SIGMA)
    found = certify(ensemble(sure, spread), n=20_000)
    chance = max(spread.probabilities(0.0)[1:])
    exact = SIGMA * (1.5 - stats.norm.ppf(chance)) / 2
    assert found.evidence["agrees"] == ["10"]
    assert 0.9 * exact < float(found.radius[0]) < exact


def test_members_at_odds_abstain() -> None:
    found = certify(ensemble(half_space(1.0), half_space(-1.0)))
    assert int(found.verdict[0]) == Verdict.ABSTAINED
    assert (int(found.prediction[0]), float(found.radius[0])) == (-1, 0.0)
    assert found.reason[0].startswith("no class is proved to win: the members' radii go from -0.5")


def test_alpha_is_shared_and_the_cap_shows_it() -> None:
    for members in (2, 5):
        found = certify(ensemble(*[half_space(50.0)] * members), alpha=0.001)
        cap = SIGMA * float(stats.norm.ppf((0.001 / members) ** (1 / 2000)))
        assert float(found.radius[0]) == pytest.approx(cap, rel=1e-9)
        assert float(found.radius[0]) <= cap
        assert float(found.failure_probability[0]) == 0.001


@pytest.mark.parametrize(
    "classifier", [half_space(0.7), Ensemble([half_space(-3.0), half_space(0.7)], Single(member=1))]
)
def test_one_member_is_smoothed_as_by_smoothing(classifier: nn.Module) -> None:
    found, plain = certify(classifier), Smoothing(sigma=SIGMA, n0=100, n=2000).certify(classifier, X, L2)
    assert float(found.radius[0]) == pytest.approx(float(plain.radius[0]), rel=1e-12)
    assert float(found.radius[0]) <= float(plain.radius[0])
    assert int(found.evidence["n_A"][0]) == int(plain.evidence["n_A"][0])
    assert eas().target(classifier) == Smoothed(classifier, SIGMA)


def test_radius_is_recomputed_from_the_evidence() -> None:
    found = certify(ensemble(half_space(1.2), half_space(0.9, 1), half_space(-0.4, 2)))
    votes, rivals = (list(map(int, str(found.evidence[name][0]).split())) for name in ("votes", "rivals"))
    share, n = 0.001 / 3, 2000
    radii = [
        stats.norm.ppf(stats.beta.ppf(share, own, n - own + 1))
        if same == "1"
        else -stats.norm.ppf(stats.beta.ppf(1 - share, rival + 1, n - rival))
        for own, rival, same in zip(votes, rivals, found.evidence["agrees"][0], strict=True)
    ]
    assert found.evidence["agrees"] == ["110"]
    assert float(found.radius[0]) == pytest.approx(SIGMA * (max(radii) + min(radii)) / 2, rel=1e-9)
    assert int(found.evidence["n_A"][0]) == max(votes)
    assert found.cost.forward_passes.tolist() == [3 * 2100]


@pytest.mark.parametrize(
    ("cuts", "correlation"),
    [
        ((0.0, 0.0), 0.0),
        ((0.0, 0.0), 1.0),
        ((1.9, 0.1), 1.0),
        ((2.3, 1.6), 1.0),
        ((1.0, -0.9), 1.0),
        ((2.0, -1.9), 0.0),
    ],
)
def test_false_certificates_are_no_more_than_alpha(cuts: tuple[float, float], correlation: float) -> None:
    """Counts of two halfspace members, with votes that are the same noise or independent, at alpha = .05."""
    n, trials, alpha = 177, 4000, 0.05
    certifier = eas(n0=n, n=n, alpha=alpha)
    rng = np.random.default_rng([int(100 * (3 + cut)) for cut in (*cuts, correlation)])
    # Both cross their boundary along the one axis; independent votes are of orthogonal axes, whose radius is larger.
    exact = SIGMA * max(0.0, sum(cuts) / (2 if correlation else math.sqrt(2)))
    false = certified = 0
    known: dict[bytes, tuple[int, float]] = {}
    for _ in range(trials):
        noise = rng.standard_normal((2, 2, n))
        noise[:, 1] = noise[:, 0] if correlation else noise[:, 1]
        hits = (noise < np.array(cuts)[None, :, None]).sum(-1)
        if hits.tobytes() not in known:
            counts = torch.from_numpy(np.stack([hits, n - hits, np.zeros_like(hits)], axis=-1))
            bounds = certifier.bounds(counts[0], counts[1])
            known[hits.tobytes()] = bounds.prediction, certifier.certificate_of_bounds(bounds)[0]
        prediction, radius = known[hits.tobytes()]
        certified += radius > 0
        false += radius > (exact if prediction == 0 else 0.0)
    assert false <= stats.binom.isf(1e-4, trials, alpha)
    if sum(cuts) > 1:
        assert certified > trials / 10, "a test of nothing"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 60), min_size=3, max_size=3), min_size=1, max_size=4),
    st.integers(0, 2**31),
)
def test_radius_is_below_what_the_bounds_prove_of_every_class(counts: list[list[int]], seed: int) -> None:
    estimation = torch.tensor([[*row, 180 - sum(row)] for row in counts])
    selection = torch.randint(0, 50, estimation.shape, generator=torch.Generator().manual_seed(seed))
    certifier = eas(n=180, n0=150, alpha=0.05)
    bounds = certifier.bounds(selection, estimation)
    radius = certifier.certificate_of_bounds(bounds)[0]
    y, share = bounds.prediction, 0.05 / len(counts)
    assert max(int(row[:-1].max()) for row in selection) == int(selection[:, y].max())
    # Every bound is one that its own alpha allows.
    lows = [float(stats.beta.ppf(share, row[y], 180 - row[y] + 1)) if row[y] else 0.0 for row in counts]
    largest = max((low for low, same in zip(lows, bounds.agrees, strict=True) if same), default=0.0)
    for row, low, same in zip(counts, lows, bounds.agrees, strict=True):
        for other in {0, 1, 2} - {y}:
            high = 1 - low if same else float(stats.beta.ppf(1 - share / 2, row[other] + 1, 180 - row[other]))
            gap = stats.norm.ppf(largest) - stats.norm.ppf(min(high, 1.0))
            assert radius <= max(0.0, SIGMA / 2 * gap) + 1e-12


def test_of_equal_counts_the_order_of_the_members_decides_nothing() -> None:
    estimation = torch.tensor([[40, 50, 10, 0], [50, 40, 10, 0], [30, 30, 40, 0]])
    # Two members have 9 votes each, for other classes; all three have more for class 1, which then is chosen.
    selection = torch.tensor([[9, 1, 0, 0], [0, 9, 1, 0], [1, 8, 1, 0]])
    for order in itertools.permutations(range(3)):
        rows = list(order)
        assert eas(n=100).bounds(selection[rows], estimation[rows]).prediction == 1
    # Nor all votes tell: the lowest class.
    selection = torch.tensor([[0, 1, 9, 0], [0, 9, 1, 0]])
    for rows in ([0, 1], [1, 0]):
        assert eas(n=100).bounds(selection[rows], estimation[rows]).prediction == 1


def test_invalid_votes_of_any_member_are_an_error() -> None:
    broken = Slabs(torch.eye(3, dtype=torch.float64)[2], (2.0,), SIGMA, "nan")
    found = certify(ensemble(half_space(1.0), broken))
    assert int(found.verdict[0]) == Verdict.ERROR
    assert (int(found.prediction[0]), float(found.radius[0])) == (-1, 0.0)
    assert found.reason[0].startswith("members returned NaN or infinity on ")


def test_one_pass_serves_all_classifiers_and_equals_each_alone() -> None:
    members = [Recorder(half_space(cut)) for cut in (1.0, 0.5, -0.2)]
    classifiers = [
        Ensemble(members, MaxMargin()),
        Ensemble(members[:2], MaxMargin(of="logit")),
        Ensemble(members, Single(member=2)),
        Ensemble(members, WeightedAverage()),
    ]
    together = eas().certify_together(classifiers, X, L2, seed=3)
    assert [sum(map(len, member.inputs)) for member in members] == [2100] * 3
    assert torch.equal(members[0].noise(), members[2].noise())
    for found, classifier in zip(together, classifiers, strict=True):
        alone = eas().certify(classifier, X, L2, seed=3)
        assert torch.equal(found.radius, alone.radius)
        assert found.reason == alone.reason
    assert [int(found.verdict[0]) for found in together[:2]] == [Verdict.CERTIFIED] * 2


def test_an_aggregation_that_would_say_nothing_is_refused() -> None:
    found = certify(Ensemble([half_space(1.0), half_space(0.5)], WeightedAverage(weights=(0.9, 0.1))))
    assert int(found.verdict[0]) == Verdict.UNSUPPORTED
    assert found.reason[0] == (
        "smoothing-eas answers with its surest smoothed member, whatever the aggregation, so that 'weighted-average' "
        "would say nothing; use the aggregation max-margin with it, or smoothing, which smooths an ensemble of any "
        "aggregation."
    )


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_norms_follow_from_l2(norm: str) -> None:
    classifier = ensemble(half_space(1.0), half_space(0.5))
    found, l2 = eas().certify(classifier, X, ThreatModel(norm)), certify(classifier)
    assert float(found.radius[0]) == pytest.approx(float(l2.radius[0]) / (math.sqrt(3) if norm == "linf" else 1))


def test_description_and_target() -> None:
    certifier = certifiers.create("smoothing-eas", sigma=0.5)
    assert certifier.describe()["parameters"] == {"sigma": 0.5, "n0": 100, "n": 100_000, "alpha": 0.001}
    members = [half_space(1.0), half_space(0.5)]
    target = certifier.target(ensemble(*members))
    assert target == SmoothedMembers(tuple(members), 0.5)


def test_wide_types_of_votes() -> None:
    votes: Tensor = torch.tensor([[60, 40, 0], [0, 100, 0]])
    bounds = eas(n=100).bounds(votes, votes)
    assert (bounds.prediction, bounds.agrees, bounds.votes, bounds.rivals) == (1, (False, True), (40, 100), (60, 0))
