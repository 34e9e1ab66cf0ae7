"""Mistakes with bounds: what is concluded from counts, and the radius from that."""

import math
from dataclasses import dataclass

from scipy.special import ndtri
from scipy.stats import beta
from torch import Tensor

from certifiers import Norm
from tests.certifiers.conformance.smoothing_mutants.honest import Mutant, Plain


@dataclass(frozen=True, kw_only=True)
class TwoSidedAlpha(Plain):
    """The lower end of a two-sided interval at alpha would have been right; this takes 2 alpha on one side."""

    def lower(self, hits: int, samples: int) -> float:
        return float(beta.ppf(2 * self.alpha, hits, samples - hits + 1)) if hits else 0.0


@dataclass(frozen=True, kw_only=True)
class PlugIn(Plain):
    """The share of votes in place of a lower bound on their probability."""

    def lower(self, hits: int, samples: int) -> float:
        return (hits - 0.5) / samples if hits else 0.0


@dataclass(frozen=True, kw_only=True)
class NormalApproximation(Plain):
    """Wald's interval, which is empty where all votes agree and too short near it."""

    def lower(self, hits: int, samples: int) -> float:
        share = min(hits, samples - 0.1) / samples
        return share + float(ndtri(self.alpha)) * math.sqrt(share * (1 - share) / samples)


@dataclass(frozen=True, kw_only=True)
class RunnerUpOnly(Plain):
    """Takes `1 - p_B` for p_A, with an upper bound on the runner-up's p_B, as if there were two classes."""

    def radius(self, votes: Tensor, top: int) -> float:
        others = votes.clone()
        others[top] = 0
        rivals = int(others.max())
        upper = float(beta.ppf(1 - self.alpha, rivals + 1, self.n - rivals)) if rivals < self.n else 1.0
        return self.sigma * max(0.0, float(ndtri(1 - upper)))


@dataclass(frozen=True, kw_only=True)
class PlugInGap(Plain):
    """`sigma / 2 (Phi^-1(p_A) - Phi^-1(p_B))` of shares instead of bounds."""

    def radius(self, votes: Tensor, top: int) -> float:
        shares = votes.double().clamp(min=0.5, max=self.n - 0.5) / self.n
        others = shares.clone()
        others[top] = 0
        gap = float(ndtri(float(shares[top]))) - float(ndtri(float(others.max())))
        return max(0.0, self.sigma / 2 * gap)


@dataclass(frozen=True, kw_only=True)
class RadiusInOtherUnits(Plain):
    """The radius of normalised inputs is reported as one of pixels."""

    def radius(self, votes: Tensor, top: int) -> float:
        return super().radius(votes, top) / 0.5


@dataclass(frozen=True, kw_only=True)
class AlphaIgnored(Plain):
    """The bound is at the .001 of the paper, whatever alpha was asked for."""

    def lower(self, hits: int, samples: int) -> float:
        return float(beta.ppf(0.001, hits, samples - hits + 1)) if hits else 0.0


@dataclass(frozen=True, kw_only=True)
class L2AsLinf(Plain):
    """The l2 radius is reported for linf."""

    def scale(self, norm: Norm, dimensions: int) -> float:
        return 1.0


#: Mistake, certifier, and checks that each catch it alone.
MUTANTS: tuple[Mutant, ...] = (
    ("two-sided alpha used as one-sided", TwoSidedAlpha(), ("calibration", "largest-radius")),
    ("plug-in p", PlugIn(), ("calibration", "largest-radius", "smoothed-linear")),
    ("normal approximation", NormalApproximation(), ("largest-radius",)),
    ("runner-up only: 1 - p_B for p_A", RunnerUpOnly(), ("calibration-classes",)),
    ("gap of plug-in shares", PlugInGap(), ("calibration", "smoothed-linear")),
    ("sigma of the radius in other units", RadiusInOtherUnits(), ("largest-radius",)),
    ("alpha ignored", AlphaIgnored(), ("largest-radius",)),
    ("l2 radius as linf", L2AsLinf(), ("smoothed-linear", "largest-radius")),
)
