"""The bound against the likelihood that defines it, its coverage, and the gate's own error rates by simulation."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, norm

from leaderboards.gate import Kind, Measured, Outcome, Rules, compare
from leaderboards.paired import largest_loss
from leaderboards.records import Entry

MakeEntry = Callable[..., Entry]
MakeRun = Callable[..., Measured]
RADII = ("0", "0.25", "0.5", "0.75", "1", "1.25", "1.5")


def likeliest_gained(lost: int, gained: int, images: int, loss: float) -> float:
    """The share of gained images of largest likelihood, given the loss, by search."""

    def minus_likelihood(q: float) -> float:
        shares = np.array([q + loss, q, 1 - 2 * q - loss])
        counts = np.array([lost, gained, images - lost - gained])
        return -float((counts * np.log(np.maximum(shares, 1e-300)))[counts > 0].sum())

    least = max(0.0, -loss)
    return float(
        minimize_scalar(
            minus_likelihood,
            (least, (1 - loss) / 2),
            bounds=(least, (1 - loss) / 2),
            method="bounded",
            options={"xatol": 1e-12},
        ).x
    )


@pytest.mark.parametrize("lost", [0, 1, 7, 30])
@pytest.mark.parametrize("gained", [0, 2, 9])
@pytest.mark.parametrize("uncertainty", [0.05, 0.01])
def test_the_bound_solves_the_score_equation_of_its_definition(lost: int, gained: int, uncertainty: float) -> None:
    images = 100
    upper = largest_loss(lost, gained, images, uncertainty)
    q = likeliest_gained(lost, gained, images, upper)
    statistic = (lost - gained - images * upper) / np.sqrt(images * (2 * q + upper * (1 - upper)))
    assert statistic == pytest.approx(norm.ppf(uncertainty), abs=2e-4)
    assert upper > (lost - gained) / images


def test_bounds_at_the_ends() -> None:
    z = norm.isf(0.05)
    assert largest_loss(0, 0, 100, 0.05) == pytest.approx(z * z / (100 + z * z))
    assert largest_loss(100, 0, 100, 0.05) == pytest.approx(1.0)
    assert largest_loss(0, 100, 100, 0.05) > -1


@pytest.mark.parametrize(("p_lost", "p_gained"), [(0.02, 0.0), (0.03, 0.01), (0.1, 0.08)])
def test_the_bound_covers_about_as_often_as_it_says(p_lost: float, p_gained: float) -> None:
    generator = np.random.default_rng(0)
    draws = generator.multinomial(500, [p_lost, p_gained, 1 - p_lost - p_gained], size=2000)
    bounds = {pair: largest_loss(*pair, 500, 0.05) for pair in {(int(b), int(c)) for b, c, _ in draws}}
    held = np.mean([bounds[int(b), int(c)] >= p_lost - p_gained for b, c, _ in draws])
    assert 0.935 <= held <= 0.985


# ---- the gate itself. An image has a probability of its class under noise; a run draws its votes.


def probabilities(images: int, generator: np.random.Generator) -> np.ndarray:
    """As on boards: most images are sure, some are lost, and the rest lies between."""
    return np.where(generator.random(images) < 0.1, generator.random(images) * 0.5, 1 - generator.beta(0.4, 3, images))


def runs(
    measured: MakeRun, smoothed: MakeEntry, p: np.ndarray, generator: np.random.Generator, n: int, loss: float = 0.0
) -> tuple[Measured, Measured]:
    """Two runs of one classifier with fresh noise; of the second a share of all images is lost at every radius."""
    first, second = generator.binomial(n, p), generator.binomial(n, p)
    if loss:
        sure = np.flatnonzero(second > 0.999 * n)
        second[generator.choice(sure, round(loss * len(p)), replace=False)] = 0
    base, head = smoothed(first, n), smoothed(second, n, key="other")
    return measured(base, radii=RADII), measured(head, name="head", radii=RADII)


@pytest.mark.slow
def test_a_thousand_changes_that_change_nothing_keep_the_budget(measured: MakeRun, smoothed: MakeEntry) -> None:
    """Fresh noise on one classifier: alarms with the margin, and of the tests alone (margin 0), at a budget of 5 %."""
    generator = np.random.default_rng(1)
    alarms = {0.0: 0, 0.01: 0}
    sound = True
    for _ in range(1000):
        p = probabilities(200, generator)
        pair = runs(measured, smoothed, p, generator, n=1000)
        for margin in alarms:
            report = compare(*pair, Rules(margin=margin, false_alarms=0.05))
            alarms[margin] += report.outcome is Outcome.REGRESSION
            sound &= not report.alarms
            if report.outcome is not Outcome.REGRESSION:
                break  # and so not with a margin, which only takes alarms away
    print(f"false alarms in 1000: {alarms}")  # noqa: T201
    assert sound
    for count in alarms.values():
        assert binomtest(count, 1000, 0.05, alternative="greater").pvalue > 1e-3
    # The tests alone are not idle: a budget that nothing could spend would prove nothing.
    assert alarms[0.0] > 0
    assert alarms[0.01] <= alarms[0.0]


def test_what_is_unchanged_never_alarms(measured: MakeRun, smoothed: MakeEntry) -> None:
    generator = np.random.default_rng(2)
    for key, _ in itertools.product(("k" * 64, "other"), range(20)):
        drawn = generator.binomial(1000, probabilities(300, generator))
        report = compare(
            measured(smoothed(drawn, 1000)), measured(smoothed(drawn, 1000, key=key)), Rules(false_alarms=0.4)
        )
        assert report.outcome is Outcome.PASS


@pytest.mark.slow
@pytest.mark.parametrize(("n", "entries"), [(10_000, 1), (1_000, 1), (10_000, 3)])
def test_a_loss_of_two_points_on_two_thousand_images_is_found(
    measured: MakeRun, smoothed: MakeEntry, n: int, entries: int
) -> None:
    """At the default rules: budget 1 % over all radii and entries, margin 1 point."""
    generator = np.random.default_rng(3)
    found, discordance = 0, []
    trials = 100
    for _ in range(trials):
        pairs = []
        for number in range(entries):
            p = probabilities(2000, generator)
            # One of the entries is worse; the others only have fresh noise.
            base, head = runs(measured, smoothed, p, generator, n, loss=0.02 if number == 0 else 0.0)
            pairs.append((base.run.entries[0], head.run.entries[0]))
        named = [
            [Entry(**{**vars(pair[which]), "name": str(number)}) for number, pair in enumerate(pairs)]
            for which in (0, 1)
        ]
        report = compare(measured(*named[0], radii=RADII), measured(*named[1], name="head", radii=RADII))
        losses = [item for item in report.findings if item.kind is Kind.LOSS]
        discordance += [(item.numbers["lost"] + item.numbers["gained"]) / 2000 for item in losses if item.entry == "0"]
        found += any(item.outcome is Outcome.REGRESSION and item.entry == "0" for item in losses)
    print(f"n = {n}, {entries} entries: found {found} of {trials}, discordance up to {max(discordance):.1%}")  # noqa: T201
    assert found >= 0.9 * trials


@pytest.mark.slow
@pytest.mark.parametrize("churn", [0.0, 0.005, 0.01])
def test_power_at_a_given_discordance_is_that_of_the_exact_law(churn: float) -> None:
    """A loss of two points beside images that change both ways: the counts' own law, without any rows."""
    from leaderboards.paired import mcnemar_loss

    generator = np.random.default_rng(4)
    lost, gained, _ = generator.multinomial(2000, [0.02 + churn, churn, 0.98 - 2 * churn], size=20_000).T
    # One entry and seven radii, whose smallest p-value Holm multiplies by seven.
    power = np.mean((7 * mcnemar_loss(lost, gained) <= 0.01) & ((lost - gained) / 2000 > 0.01))
    # Against the null hypothesis that the loss is at most the margin, by its score test at the same budget.
    pairs = {(int(b), int(c)) for b, c in zip(lost, gained, strict=True)}
    smallest = {(b, c): -largest_loss(c, b, 2000, 0.01 / 7) for b, c in pairs}
    other = np.mean([smallest[int(b), int(c)] > 0.01 for b, c in zip(lost, gained, strict=True)])
    print(f"discordance {0.02 + 2 * churn:.1%}: power {power:.3f}; of the other test {other:.3f}")  # noqa: T201
    assert power >= 0.9
    assert other < power
    if churn == 0.01:
        assert other < 1 / 3
