"""Smoothing by uniform and Laplace noise: the noise, the theorems at half-spaces, false certificates."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import certifiers
from certifiers import KeyedRandomness, Norm, ThreatModel, Verdict
from certifiers.conformance.noise_laws import Laplace, Law, Uniform
from certifiers.smoothing import CHUNK, LaplaceNoise, Noise, SmoothedBy, SmoothingL1, UniformNoise
from certifiers.smoothing.l1_smoothing import L1Noise
from certifiers.smoothing.noise import ESTIMATION
from ensembles import ParameterError

L1 = ThreatModel("l1")
SIGMA = 0.5
KINDS: tuple[L1Noise, ...] = ("uniform", "laplace")
#: From scipy, with deviation 1.
TRUTH = {"uniform": stats.uniform(-math.sqrt(3), 2 * math.sqrt(3)), "laplace": stats.laplace(scale=1 / math.sqrt(2))}
LAWS: dict[str, Law] = {"uniform": Uniform(), "laplace": Laplace()}
NOISES: dict[str, type[Noise]] = {"uniform": UniformNoise, "laplace": LaplaceNoise}


def drawn(kind: str, sigma: float = SIGMA, image: int = 7, chunks: int = 4, first: int = 0) -> Tensor:
    buffer = torch.full((chunks * CHUNK, 3, 4), torch.nan)
    NOISES[kind](sigma, KeyedRandomness(1, (99, image))).fill(buffer, 1, ESTIMATION, first)
    return buffer


@pytest.mark.parametrize("kind", KINDS)
def test_noise_has_its_law(kind: str) -> None:
    values = drawn(kind).flatten().double().numpy() / SIGMA
    assert stats.kstest(values, TRUTH[kind].cdf).pvalue > 1e-4
    assert abs(values.mean()) < 3.9 / math.sqrt(values.size)
    assert values.std() == pytest.approx(1.0, abs=0.02)
    assert not (values == 0).any()
    rows = drawn(kind).flatten(1).double() / SIGMA
    for left, right in ((rows[:, 0], rows[:, 1]), (rows[:-1, 0], rows[1:, 0])):
        assert abs(float((left * right).mean())) < 3.9 / math.sqrt(len(left))


@pytest.mark.parametrize("kind", KINDS)
def test_noise_follows_the_protocol(kind: str) -> None:
    together = drawn(kind)
    for chunk in range(4):
        assert torch.equal(together[chunk * CHUNK : (chunk + 1) * CHUNK], drawn(kind, chunks=1, first=chunk))
    assert torch.allclose(drawn(kind, sigma=2.0), 4 * together, rtol=1e-6)
    samples = torch.cat([together, drawn(kind, image=8), drawn(kind, first=4)]).flatten(1)
    assert len(torch.unique(samples, dim=0)) == len(samples)


def test_the_ends_of_the_uniform_numbers_are_finite() -> None:
    for value in (0.0, 1 - 2.0**-53):
        v = torch.tensor(value, dtype=torch.float64).mul_(2).sub_(1).add_(2.0**-53)
        assert abs(float(v)) == 1 - 2.0**-53
        assert math.isfinite(float((-v.abs()).log1p()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("p", [0.5 + 1e-12, 0.51, 0.75, 0.9, 0.999, 1 - 1e-9])
def test_radius_is_the_distance_to_a_half_space_and_rounded_down(kind: L1Noise, p: float) -> None:
    radius = SmoothingL1(sigma=SIGMA, noise_kind=kind).radius_of(p)
    exact = SIGMA * float(TRUTH[kind].ppf(p))
    assert radius == pytest.approx(exact, rel=1e-6 if p > 1 - 1e-8 else 1e-9, abs=1e-15)
    lam = math.sqrt(3) * SIGMA if kind == "uniform" else SIGMA / math.sqrt(2)
    formula = 2 * lam * (p - 0.5) if kind == "uniform" else -lam * math.log(2 * (1 - p))
    assert radius <= formula
    assert radius == pytest.approx(formula, rel=1e-13)
    assert LAWS[kind].quantile(p) * SIGMA == pytest.approx(formula, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_laws_of_the_kit_are_those_of_scipy(kind: str) -> None:
    points = np.linspace(-3, 3, 61)
    assert np.allclose(LAWS[kind].cdf(points), TRUTH[kind].cdf(points), rtol=1e-12, atol=1e-15)
    for p in (0.01, 0.3, 0.5, 0.8, 0.999):
        assert LAWS[kind].quantile(p) == pytest.approx(float(TRUTH[kind].ppf(p)), rel=1e-12, abs=1e-15)


def test_theorems_bound_what_is_lost_in_every_direction() -> None:
    """The worst set of inputs of probability p loses no more than the theorem says: by numbers, in two dimensions."""
    p, steps = 0.8, 400
    grid = (np.arange(steps) + 0.5) / steps
    for kind in KINDS:
        radius = SmoothingL1(sigma=1.0, noise_kind=kind).radius_of(p)
        points = np.stack(np.meshgrid(TRUTH[kind].ppf(grid), TRUTH[kind].ppf(grid)), axis=-1).reshape(-1, 2)
        for share in (0.0, 0.3, 0.5, 1.0):
            delta = radius * np.array([share, 1 - share])
            # Likelihood of the moved density at points of the first: Neyman-Pearson takes the least likely ones.
            ratio = (TRUTH[kind].pdf(points - delta) / TRUTH[kind].pdf(points)).prod(-1)
            kept = np.sort(ratio)[: int(p * len(ratio))].mean() * p
            assert kept > 0.5 - 0.01
            if share in (0.0, 1.0):
                assert kept < 0.5 + 0.01  # across one input it is tight


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("p", [0.5, 0.52, 0.8, 0.983])
def test_certificates_are_wrong_in_at_most_the_share_alpha_of_trials(kind: L1Noise, p: float) -> None:
    n, trials, alpha = 177, 4000, 0.05
    certifier = SmoothingL1(sigma=SIGMA, noise_kind=kind, n=n, alpha=alpha)
    counts, times = np.unique(np.random.default_rng([n, int(1000 * p)]).binomial(n, p, trials), return_counts=True)
    radii = np.array([certifier.certificate_of_counts(int(count))[1] for count in counts])
    false = int(times[radii > SIGMA * float(TRUTH[kind].ppf(p)) * (1 + 1e-12)].sum())
    assert false <= stats.binom.isf(1e-4, trials, alpha)
    if p in (0.8, 0.983):
        assert int(times[radii > 0].sum()) > trials / 2, "a test of nothing"
        assert false > 0  # and the bound is not needlessly low


@pytest.mark.parametrize("kind", KINDS)
def test_linear_networks_are_certified_below_their_distance_in_l1(kind: L1Noise) -> None:
    generator = torch.Generator().manual_seed(21)
    x = torch.rand(12, 1, 4, 4, generator=generator)
    weight = torch.randn(16, generator=generator)
    weight[3] = 5.0  # the boundary is nearest along one input
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([weight, torch.zeros(16)]))  # type: ignore[operator]
        model[1].bias.copy_(torch.tensor([-float(weight.sum()) / 2, 0.0]))  # type: ignore[operator]
    found = SmoothingL1(sigma=SIGMA, noise_kind=kind, n0=50, n=2000).certify(model, x, L1)
    margin = (x.flatten(1).double() - 0.5) @ weight.double()
    distance = margin.abs() / weight.abs().max()
    right = found.prediction == (margin < 0).long()
    assert bool((right & (found.radius <= distance))[found.certified].all())
    assert int(found.certified.sum()) >= 6
    assert found.evidence["noise"] == [kind] * 12


def test_other_norms_are_refused_and_parameters_are_checked() -> None:
    certifier = certifiers.create("smoothing-l1", sigma=0.5, noise_kind="laplace")
    assert certifier.norms == {Norm.L1}
    found = certifier.certify(nn.Flatten(), torch.zeros(1, 2), ThreatModel("l2"))
    assert int(found.verdict[0]) == Verdict.UNSUPPORTED
    assert found.reason[0] == "smoothing-l1 does not certify the norm l2; it certifies: l1."
    with pytest.raises(ParameterError, match=r"sigma = -1\.0 is not allowed"):
        certifiers.create("smoothing-l1", sigma=-1.0)
    model = nn.Identity()
    assert certifier.target(model) == SmoothedBy(model, 0.5, "laplace")
    parameters = {"sigma": 0.5, "n0": 100, "n": 100_000, "alpha": 0.001, "noise_kind": "laplace"}
    assert certifier.describe()["parameters"] == parameters
