"""Level 4: what holds of certificates about the surest of several smoothed members."""

import math

import numpy as np
import torch
from scipy.stats import binom
from torch import nn

from certifiers.certificate import Guarantee
from certifiers.conformance.kit import Level, NotApplicable, Subject, Violation, check
from certifiers.conformance.noise_laws import Gaussian
from certifiers.conformance.smoothed_truth import Slabs
from certifiers.conformance.statistics_trials import FALSE_ALARM, Sampler, centers, sampler_of
from certifiers.smoothing import SmoothedMembers
from ensembles.aggregation import MaxMargin
from ensembles.ensemble import Ensemble

#: Failure probability and samples that are asked for. A large alpha: each of many members misleads with it at once.
_ALPHA, _SELECTION, _SAMPLES = 0.3, 20, 500

#: Members that answer class 0, each across a direction of its own beside one that they share, and how much they share.
_MEMBERS, _SHARED = 20, 0.9

_TRIALS, _QUICK_TRIALS = 400, 200


def _members(direction: float, cut: float, own: int, sigma: float) -> Slabs:
    """Class 0 below the cut, along the first input and the input `own`."""
    weight = torch.zeros(_MEMBERS + 1, dtype=torch.float64)
    weight[own] = math.sqrt(1 - direction**2)
    weight[0] = direction
    return Slabs(weight, (cut,), sigma)


@check("calibration-members", Level.L4)
def calibration_of_members(subject: Subject) -> int:
    """Of ensembles after smoothing no more certificates are false than alpha allows, which all members share.

    Half-spaces with cuts c (class 0 below it) across directions of which the share rho lies along the first input, and
    one with a smaller cut b across that input. There class 0 is surest up to `t = (c + b) / (1 + rho)` deviations and
    class 1 beyond, so that a certificate of class 0 beyond sigma t is false. c is such that all votes of a member agree
    with probability alpha / 3 or alpha / 2: members see nearly other votes, and that any of them all agree is likelier
    than alpha.
    """
    sampler = _sampler(subject)
    count = _QUICK_TRIALS if subject.quick else _TRIALS
    certified = 0
    for share, low in ((1 / 3, -1.0), (1 / 2, 0.3))[: 1 if subject.quick else 2]:
        cut = Gaussian().quantile((_ALPHA * share) ** (1 / _SAMPLES))
        certified += _judged(sampler, cut, low, count)
    return certified


def _sampler(subject: Subject) -> Sampler:
    if subject.certifier.guarantee is not Guarantee.PROBABILISTIC:
        raise NotApplicable("its certificates are proofs: there is no failure probability to measure")
    pair = Ensemble([nn.Identity(), nn.Identity()], MaxMargin())
    target = subject.certifier.target(pair)
    if not isinstance(target, SmoothedMembers):
        raise NotApplicable(
            f"of an ensemble it certifies a {type(target).__name__}; members have probabilities of their own in "
            "`SmoothedMembers` of `certifiers.smoothing`"
        )
    return sampler_of(subject, n=_SAMPLES, n0=_SELECTION, alpha=_ALPHA)


def _judged(sampler: Sampler, cut: float, low: float, count: int) -> int:
    """How many of the trials were certified.

    Raises:
        Violation: more of them are false than alpha allows.
    """
    members: list[nn.Module] = [_members(_SHARED, cut, own + 1, sampler.sigma) for own in range(_MEMBERS)]
    members.append(_members(1.0, low, 0, sampler.sigma))
    ensemble = Ensemble(members, MaxMargin()).eval()
    away = sampler.sigma * max(0.0, (cut + low) / (1 + _SHARED))
    # The image moves along one axis, where balls of all norms have the same radius.
    found = sampler.certify(ensemble, centers(count, (_MEMBERS + 1,)), "members", repr(low))
    wrong = found.certified & ((found.prediction != 0) | (found.radius > away * (1 + 1e-9)))
    allowed = int(binom.isf(FALSE_ALARM, count, _ALPHA))
    if int(wrong.sum()) > allowed:
        worst = float(np.max(found.radius[wrong].numpy()))
        raise Violation(
            f"{int(wrong.sum())} of {count} certificates of an ensemble of {_MEMBERS + 1} smoothed members are false, "
            f"where alpha = {_ALPHA:g} allows {allowed} (but for {FALSE_ALARM:g})",
            f"{_MEMBERS} half-spaces at {cut:.6f} sigma and one at {low:g} sigma, at sigma {sampler.sigma:g}; another "
            f"member is surest beyond {away:.6g}, and certified is {worst:.6g}",
        )
    return int(found.certified.sum())
