"""Randomized smoothing: noise, votes, confidence bounds, and a method a file."""

from certifiers.smoothing.confidence import clopper_pearson_lower, clopper_pearson_upper
from certifiers.smoothing.ensemble_after_smoothing import EnsembleAfterSmoothing, MemberBounds, SmoothedMembers
from certifiers.smoothing.fixed_samples import FixedSamples
from certifiers.smoothing.neyman_pearson import Smoothed, Smoothing
from certifiers.smoothing.noise import CHUNK, GaussianNoise, Noise
from certifiers.smoothing.votes import count_votes

__all__ = [
    "CHUNK",
    "EnsembleAfterSmoothing",
    "FixedSamples",
    "GaussianNoise",
    "MemberBounds",
    "Noise",
    "Smoothed",
    "SmoothedMembers",
    "Smoothing",
    "clopper_pearson_lower",
    "clopper_pearson_upper",
    "count_votes",
]
