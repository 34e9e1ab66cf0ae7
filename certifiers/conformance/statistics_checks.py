"""Level 4: what holds of certificates that are true except with a probability.

All of it is asked from outside, through `certify`, of linear classifiers whose smoothed probabilities are known.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import beta, binom

from certifiers.certificate import Norm
from certifiers.conformance.kit import Level, NotApplicable, Subject, Violation, check
from certifiers.conformance.smoothed_truth import Invalid, Slabs, tight_direction
from certifiers.conformance.statistics_trials import (
    ALPHA,
    FALSE_ALARM,
    SAMPLES,
    SHAPE,
    Sampler,
    asked_of,
    judged,
    sampler_of,
)
from certifiers.smoothing import clopper_pearson_lower

#: Probabilities are set below the bound of a count by this, so that exactly that count and larger ones mislead.
_BELOW = 1e-6

_TRIALS, _QUICK_TRIALS = 4000, 1000


def _trials(subject: Subject) -> int:
    return _QUICK_TRIALS if subject.quick else _TRIALS


def _slabs(subject: Subject, sampler: Sampler, cuts: tuple[float, ...], invalid: Invalid = "") -> Slabs:
    generator = subject.generator("direction", sampler.norm.value, len(cuts))
    return Slabs(tight_direction(sampler.norm, SHAPE, generator), cuts, sampler.sigma, invalid, sampler.law)


@check("calibration", Level.L4)
def calibration(subject: Subject) -> int:
    """Of 4000 certificates asked for at alpha = .05, no more are false than alpha allows.

    Halfspaces whose top class has probability p, where a certificate is false if it claims more than
    `sigma F^-1(p)`, F the law of the noise: p = 1/2, where none is true; and just under the Clopper-Pearson bounds of
    counts k from the least that certifies to all of n, where P(X >= k) = alpha. As many samples choose the class as
    estimate it.
    """
    n = SAMPLES
    sampler = sampler_of(subject, n=n, n0=n, alpha=ALPHA)
    least = next(k for k in range(n + 1) if clopper_pearson_lower(k, n, ALPHA) > 0.5)
    cases = {"a tie of two classes": 0.5}
    for name, k in {"just above 1/2": least, "far from 1/2": (9 * n) // 10, "all votes agree": n}.items():
        cases[name] = float(beta.ppf(ALPHA, k, n - k + 1)) - _BELOW
    return sum(
        judged(sampler, _slabs(subject, sampler, (sampler.law.quantile(p),)), _trials(subject), name, ALPHA)
        for name, p in cases.items()
    )


@check("calibration-classes", Level.L4)
def calibration_of_many_classes(subject: Subject) -> int:
    """The same where many classes share the rest: the runner-up is weak, but the others together are not.

    Class 0 lies on one side with probability .4 or .6, nine classes share the rest equally; a certificate is false if
    some class wins within it that it does not name.
    """
    sampler = sampler_of(subject, n=SAMPLES, n0=SAMPLES, alpha=ALPHA)
    certified = 0
    for top in (0.4, 0.6):
        cuts = tuple(sampler.law.quantile(top + (1 - top) * c / 9) for c in range(9))
        name = f"ten classes, the top at {top:g}"
        certified += judged(sampler, _slabs(subject, sampler, cuts), _trials(subject) // 2, name, ALPHA)
    return certified


@check("invalid-votes", Level.L4)
def invalid_votes(subject: Subject) -> int:
    """Samples on which the classifier answers NaN or infinity are votes for nobody, least of all for the top class.

    Class 1 has .4 of the votes, class 0 has .3, and for the rest scores are NaN, or NaN or infinite for class 0 alone.
    """
    sampler = sampler_of(subject, n=SAMPLES, n0=SAMPLES, alpha=ALPHA)
    count = _trials(subject) // 10
    cases: tuple[Invalid, ...] = ("nan", "nan in class 0", "infinity in class 0")
    for invalid in cases:
        slabs = _slabs(subject, sampler, (sampler.law.quantile(0.3), sampler.law.quantile(0.7)), invalid)
        judged(sampler, slabs, count, f"votes for nobody: {invalid}", ALPHA)
    return count * len(cases)


@check("calibration-counts", Level.L4)
def calibration_of_counts(subject: Subject) -> int:
    """The same of `certificate_of_counts(n_A) -> (p_A, radius)` alone, without a network, at its own n and alpha too.

    4000 counts are drawn at each probability; and exactly: at the p that a count k claims, `P(X >= k) <= alpha`, since
    this count and all larger ones are then false (Clopper & Pearson, Biometrika 1934).
    """
    own = sampler_of(subject)
    if not callable(getattr(own.certifier, "certificate_of_counts", None)):
        raise NotApplicable("it has no `certificate_of_counts`")
    measured = 0
    for sampler in (own, sampler_of(subject, n=SAMPLES, alpha=ALPHA)):
        certificate = cast("Callable[[int], tuple[float, float]]", sampler.certifier.certificate_of_counts)  # type: ignore[attr-defined]
        n, alpha = _own(sampler, "n"), _own(sampler, "alpha")
        counts = np.unique(np.linspace(n // 2, n, min(n, 200)).astype(int))
        radii = np.array([certificate(int(k))[1] for k in counts])
        claimed = sampler.law.cdf(radii / sampler.sigma)
        # Taken a little below the claim, so that the rounding of a distribution accuses nobody.
        tail: npt.NDArray[np.float64] = np.asarray(binom.sf(counts - 1, n, claimed * (1 - 1e-13)), dtype=np.float64)
        wrong = (radii > 0) & (tail > alpha * (1 + 1e-6))
        if wrong.any():
            at = int(wrong.argmax())
            raise Violation(
                f"{counts[at]} of {n} votes give the radius {radii[at]:.9g} at sigma {sampler.sigma:g}, which claims a "
                f"probability {claimed[at]:.9g}; there so many votes have probability {tail[at]:.6g} > {alpha:g}",
                f"n_A = {counts[at]}, n = {n}, alpha = {alpha:g}",
            )
        measured += len(counts) + _drawn(subject, sampler, certificate, int(n), alpha)
    return measured


def _drawn(
    subject: Subject, sampler: Sampler, certificate: Callable[[int], tuple[float, float]], n: int, alpha: float
) -> int:
    generator = np.random.default_rng(int(subject.generator("counts", n).initial_seed()))
    allowed = int(binom.isf(FALSE_ALARM, _TRIALS, alpha))
    for p in (0.5, 0.5 + 1 / n, 0.8, float(alpha ** (1 / n)) * (1 - 1e-9)):
        counts, times = np.unique(generator.binomial(n, p, _TRIALS), return_counts=True)
        radii = np.array([certificate(int(k))[1] for k in counts])
        false = int(times[radii > max(0.0, sampler.sigma * sampler.law.quantile(p))].sum())
        if false > allowed:
            raise Violation(
                f"{false} of {_TRIALS} counts drawn at p = {p:.9g}, n = {n} give false certificates, where "
                f"alpha = {alpha:g} allows {allowed}",
                f"counts {counts[radii > 0][:5].tolist()} and more, radii {radii[radii > 0][:5].tolist()}",
            )
    return 4 * _TRIALS


def _own(sampler: Sampler, name: str) -> Any:
    if not hasattr(sampler.certifier, name):
        raise NotApplicable(f"it has no parameter {name!r}")
    return getattr(sampler.certifier, name)


@check("smoothed-linear", Level.L4)
def smoothed_linear(subject: Subject) -> int:
    """Linear classifiers, smoothed, are never certified beyond their closed form, but with probability below 1e-6.

    In every norm, `|w . x + b| / ||w||_dual`, along random directions and along those where it is tight. With alpha
    set so low that one false certificate is too many.
    """
    count = 10 if subject.quick else 40
    measured = 0
    for norm in (norm for norm in Norm if norm in subject.certifier.norms):
        sampler = sampler_of(subject, norm, n=1000, n0=100, alpha=1e-6 / (4 * count))
        generator = subject.generator("smoothed-linear", norm.value)
        for number in range(count):
            shape = ((3,), (2, 4, 4))[number % 2]
            direction = (
                torch.randn(shape, generator=generator, dtype=torch.float64)
                if number % 4 < 2
                else tight_direction(norm, shape, generator)
            )
            distance = 2.5 * float(torch.rand((), generator=generator)) - 0.5
            slabs = Slabs(direction, (distance,), sampler.sigma, law=sampler.law)
            found = sampler.certify(slabs, torch.full((1, *shape), 0.5, dtype=torch.float64), norm.value, number)
            measured += int(found.certified.sum())
            if bool(slabs.false(found, norm).any()):
                raise Violation(
                    f"a certificate of class {int(found.prediction[0])} in {norm} has radius "
                    f"{float(found.radius[0]):.9g}; the smoothed linear classifier changes its answer at "
                    f"{abs(distance) / slabs.reach(1.0, norm):.9g}, and alpha is {sampler.certifier.alpha:g}",  # type: ignore[attr-defined]
                    f"{distance:.6f} sigma from the boundary, across {slabs.direction.tolist()}",
                )
    return measured


@check("largest-radius", Level.L4)
def largest_radius(subject: Subject) -> int:
    """Where all n votes agree, no radius is above `sigma F^-1(alpha^(1/n))`, and alpha is what was asked for.

    F is the law of the noise. With n samples nothing larger can be claimed: a classifier of that p gives n equal votes
    with probability alpha. At several n and alpha, and as the certifier is; in every norm. n is the evidence `n`, or
    how often it was asked.
    """
    measured = 0
    settings: list[dict[str, float | int]] = [
        {"n0": 10, "n": n, "alpha": a} for n, a in ((10, 0.05), (100, 0.001), (1000, 1e-6))
    ]
    main = Norm.L2 if Norm.L2 in subject.certifier.norms else min(subject.certifier.norms, default=None)
    for norm in (norm for norm in Norm if norm in subject.certifier.norms):
        for setting in [{}, *settings] if norm is main or not subject.quick else settings[:1]:
            try:
                sampler = sampler_of(subject, norm, **setting)
            except NotApplicable:
                if not setting:
                    raise
                continue
            sure = _slabs(subject, sampler, (1e9,))
            found, recorder = asked_of(sampler, sure, "largest-radius")
            alpha = float(found.failure_probability[0])
            wanted = getattr(sampler.certifier, "alpha", alpha)
            if bool(found.certified[0]) and not 0 < alpha <= 0.5:
                raise Violation(f"the failure probability reported is {alpha:g}")
            if bool(found.certified[0]) and alpha != wanted:
                raise Violation(f"the failure probability reported is {alpha:g}, where alpha = {wanted:g} was asked")
            n = len(recorder.votes())
            if isinstance(told := found.evidence.get("n"), torch.Tensor):
                n = min(n, int(told[0]))
            radius = sampler.law.quantile(wanted ** (1 / n)) / sure.reach(1.0, norm)
            if float(found.radius[0]) > max(radius, 0.0) * (1 + 1e-12):
                raise Violation(
                    f"{n} equal votes give the {norm} radius {float(found.radius[0]):.9g}; at alpha {wanted:g} and "
                    f"sigma {sampler.sigma:g} no more than {radius:.9g} can be claimed",
                    f"a constant classifier of {SHAPE[0]} inputs, {dataclasses.asdict(sampler.certifier)}",
                )
            measured += int(found.certified[0])
    return measured
