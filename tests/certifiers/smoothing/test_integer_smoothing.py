"""Smoothing in whole numbers: the table against mpmath, exact draws, images on the grid, and half-spaces on it."""

import itertools
import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import certifiers
from certifiers import KeyedRandomness, ThreatModel, Verdict
from certifiers.conformance.smoothed_truth import Recorder
from certifiers.smoothing import CHUNK, IntegerSmoothing, RoundedGaussianNoise, SmoothedOnGrid, Smoothing
from certifiers.smoothing.noise import ESTIMATION
from certifiers.smoothing.rounded_gaussian import BITS, table
from ensembles import Ensemble, WeightedAverage

L2 = ThreatModel("l2")
SIGMA = 0.25


def exact(steps: Fraction, j: int) -> mpmath.mpf:
    with mpmath.workdps(50):
        return mpmath.ncdf((j + mpmath.mpf(1) / 2) * steps.denominator / steps.numerator)


@pytest.mark.parametrize("steps", [Fraction(1, 10), Fraction(3, 2), Fraction(0.12) * 255])
def test_table_is_within_its_variation_of_rounded_normals(steps: Fraction) -> None:
    known = table(steps)
    cumulated = [0, *known.edges, 2**BITS]
    assert cumulated == sorted(cumulated)
    assert [2**BITS - edge for edge in reversed(known.edges)] == list(known.edges)
    with mpmath.workdps(50):
        reach = range(-known.largest - 5, known.largest + 6)
        chances = dict(zip(range(-known.largest, known.largest + 1), np.diff(np.array(cumulated, object)), strict=True))
        total = mpmath.mpf(0)
        for k in reach:
            total += abs(mpmath.mpf(int(chances.get(k, 0))) / 2**BITS - (exact(steps, k) - exact(steps, k - 1)))
        assert total / 2 <= known.variation
        assert known.variation < 1e-13


@pytest.mark.parametrize("steps", [Fraction(1, 10), Fraction(3, 2), Fraction(0.12) * 255])
def test_columns_hold_exactly_the_integers_of_each_value(steps: Fraction) -> None:
    known = table(steps)
    room = 2**BITS // len(known.cuts)
    held = dict.fromkeys(range(2 * known.largest + 1), 0)
    for column, (cut, other) in enumerate(zip(known.cuts.tolist(), known.others.tolist(), strict=True)):
        assert 0 <= cut <= room
        if cut:
            held[column] += cut
        if cut < room:
            held[other] += room - cut
    assert list(held.values()) == [high - low for low, high in itertools.pairwise((0, *known.edges, 2**BITS))]
    # And what a word is read as, at both ends of each part of a column.
    for column in (0, len(known.cuts) // 2, len(known.cuts) - 1):
        cut, other = int(known.cuts[column]), int(known.others[column])
        words = [column * room + low for low in {0, max(cut - 1, 0), min(cut, room - 1), room - 1}]
        wanted = [(column if word - column * room < cut else other) - known.largest for word in words]
        assert known.values(torch.tensor(words)).tolist() == wanted


def test_noise_is_whole_has_its_distribution_and_follows_the_protocol() -> None:
    def drawn(chunks: int, first: int = 0, image: int = 7) -> Tensor:
        buffer = torch.full((chunks * CHUNK, 3, 4), torch.nan)
        RoundedGaussianNoise(SIGMA, KeyedRandomness(1, (image,)), 255).fill(buffer, 0, ESTIMATION, first)
        return buffer

    noise = drawn(4)
    assert torch.equal(noise, noise.round())
    assert torch.equal(noise[CHUNK : 2 * CHUNK], drawn(1, first=1))
    assert not torch.equal(drawn(1), drawn(1, image=8))
    steps = Fraction(SIGMA) * 255
    edges = np.array([-math.inf, -100.5, -50.5, -20.5, -0.5, 0.5, 20.5, 50.5, 100.5, math.inf])
    seen = np.histogram(noise.numpy(), np.clip(edges, -1e9, 1e9))[0]
    expected = np.diff(stats.norm.cdf(edges / float(steps))) * noise.numel()
    assert stats.chisquare(seen, expected).pvalue > 1e-4


def test_classifier_sees_one_number_a_level_and_nothing_between() -> None:
    x = torch.randint(0, 256, (2, 1, 3, 3), generator=torch.Generator().manual_seed(3)) / 255
    levels = torch.arange(-2000, 2001) / 255
    for dtype in (torch.float32, torch.float64):
        recorder = Recorder(nn.Sequential(nn.Flatten(), nn.Linear(9, 3, dtype=dtype)))
        IntegerSmoothing(sigma=SIGMA, n0=10, n=600).certify(recorder, x.to(dtype), L2)
        seen = torch.cat(recorder.inputs).unique().to(dtype)
        allowed = levels if dtype is torch.float32 else torch.arange(-2000, 2001).double() / 255
        assert bool(torch.isin(seen, allowed).all())


def test_images_between_levels_are_unsupported_one_by_one() -> None:
    x = torch.full((3, 1, 2, 2), 128 / 255)
    x[1, 0, 0, 0] += 0.3 / 255
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        model[1].bias.copy_(torch.tensor([9.0, -9.0]))  # type: ignore[operator]
    certifier = IntegerSmoothing(sigma=SIGMA, n0=10, n=500)
    found = certifier.certify(model, x, L2)
    assert found.verdict.tolist() == [Verdict.CERTIFIED, Verdict.UNSUPPORTED, Verdict.CERTIFIED]
    assert (int(found.prediction[1]), float(found.radius[1])) == (-1, 0.0)
    assert found.cost.forward_passes.tolist() == [510, 0, 510]
    assert found.reason[1] == (
        "1 of 4 inputs lie between the multiples of 1/255; round the image to them, (x * 255).round() / 255, or use "
        "smoothing"
    )
    half = certifier.certify(model.half(), x.half(), L2)
    assert (
        half.reason[0] == "smoothing-integer counts steps in float32 or float64, got torch.float16; convert the images."
    )
    wide = IntegerSmoothing(sigma=SIGMA, levels=2**23).certify(model.float(), x, L2)
    assert wide.reason[0].startswith(
        "noisy inputs of sigma 0.25 on 8388608 levels are beyond the whole numbers that float3"
    )


def test_what_is_lost_to_the_table_and_to_rounded_images_is_taken_off() -> None:
    certifier = IntegerSmoothing(sigma=SIGMA, n0=10, n=1000)
    x = torch.full((1, 1, 8, 8), 100 / 255)
    constant = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    with torch.no_grad():
        constant[1].weight.zero_()  # type: ignore[operator]
        constant[1].bias.copy_(torch.tensor([1.0, 0.0]))  # type: ignore[operator]
    found = certifier.certify(constant, x, L2)
    bound = float(stats.beta.ppf(0.001, 1000, 1))
    assert float(found.evidence["p_A"][0]) < bound
    assert float(found.evidence["p_A"][0]) == pytest.approx(
        bound - 64 * table(Fraction(SIGMA) * 255).variation, rel=1e-14
    )
    away = torch.linalg.vector_norm(x.double() - torch.full_like(x, 100, dtype=torch.float64) / 255)
    assert 0 < float(away) < 1e-6
    assert float(found.radius[0]) < SIGMA * float(stats.norm.ppf(bound)) - float(away)
    assert float(found.radius[0]) == pytest.approx(SIGMA * float(stats.norm.ppf(bound)), rel=1e-5)
    assert found.evidence["levels"].tolist() == [255]  # type: ignore[union-attr]


def test_half_spaces_between_two_levels_are_certified_to_the_plane_and_no_further() -> None:
    """Across one input, midway between two levels, rounding moves no boundary, and the theorem is tight."""
    x = torch.full((1, 3), 100 / 255, dtype=torch.float64)
    for cut in (120.5, 160.5):
        model = nn.Linear(3, 2, dtype=torch.float64)
        with torch.no_grad():
            model.weight.copy_(torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]))
            model.bias.copy_(torch.tensor([0.0, -cut / 255]))
        found = IntegerSmoothing(sigma=SIGMA, n0=50, n=20_000).certify(model, x, L2)
        distance = (cut - 100) / 255
        p_value = stats.binomtest(int(found.evidence["n_A"][0]), 20_000, stats.norm.cdf(distance / SIGMA)).pvalue
        assert p_value > 1e-4
        assert 0.8 * distance < float(found.radius[0]) < distance


@pytest.mark.parametrize("cut", [0, 3, 60, 130])
def test_certificates_are_wrong_in_at_most_the_share_alpha_of_trials(cut: int) -> None:
    n, trials, alpha = 177, 4000, 0.05
    certifier = IntegerSmoothing(sigma=SIGMA, n=n, alpha=alpha)
    # The boundary lies cut - 1/2 steps away: exactly the votes of whole noise below it.
    p = 0.5 if cut == 0 else float(exact(Fraction(SIGMA) * 255, cut - 1))
    away = 0.0 if cut == 0 else (cut - 0.5) / 255
    counts, times = np.unique(np.random.default_rng([n, cut]).binomial(n, p, trials), return_counts=True)
    radii = np.array([certifier.certificate_of_counts(int(count))[1] for count in counts])
    assert int(times[radii > away].sum()) <= stats.binom.isf(1e-4, trials, alpha)
    if cut >= 60:
        assert int(times[radii > 0].sum()) > trials / 2, "a test of nothing"


def test_last_bits_cannot_betray_the_image() -> None:
    """A classifier that knows from last bits whether an image was moved fools noise that is added in floating point."""
    levels = torch.arange(-3000, 3001) / 255

    class LastBits(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            honest = torch.isin(x.flatten(1), levels).all(1)
            return torch.stack([honest.float(), 1 - honest.float()], dim=1)

    x = torch.full((1, 4), 77 / 255)
    for image in (x, x + 3 / 255):
        moved = (image * 255).round() / 255
        answers = [
            int(certifier.certify(LastBits(), moved, L2).prediction[0])
            for certifier in (IntegerSmoothing(sigma=SIGMA, n=500), Smoothing(sigma=SIGMA, n=500))
        ]
        assert answers == [0, 1]


def test_ensembles_share_passes_and_equal_each_alone() -> None:
    members = [nn.Sequential(nn.Flatten(), nn.Linear(4, 3)) for _ in range(2)]
    ensemble = Ensemble(members, WeightedAverage())
    x = torch.randint(0, 256, (2, 1, 2, 2), generator=torch.Generator().manual_seed(5)) / 255
    certifier = IntegerSmoothing(sigma=SIGMA, n0=20, n=700, alpha=0.01)
    for found, one in zip(
        certifier.certify_together([ensemble, members[0]], x, L2), (ensemble, members[0]), strict=True
    ):
        assert torch.equal(found.radius, certifier.certify(one, x, L2).radius)


def test_description_and_target() -> None:
    certifier = certifiers.create("smoothing-integer", sigma=0.5)
    parameters = {"sigma": 0.5, "n0": 100, "n": 100_000, "alpha": 0.001, "levels": 255}
    assert certifier.describe()["parameters"] == parameters
    model = nn.Identity()
    assert certifier.target(model) == SmoothedOnGrid(model, 0.5, 255)
