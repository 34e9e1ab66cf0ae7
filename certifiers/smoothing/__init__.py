"""Randomized smoothing: noise, votes, confidence bounds, and a method a file."""

from certifiers.smoothing.adaptive import AdaptiveSmoothing
from certifiers.smoothing.anytime import BettingSequence, ConfidenceSequence, UnionSequence, look_times
from certifiers.smoothing.confidence import clopper_pearson_lower
from certifiers.smoothing.neyman_pearson import Smoothed, Smoothing
from certifiers.smoothing.noise import CHUNK, GaussianNoise
from certifiers.smoothing.phases import PhasedSmoothing
from certifiers.smoothing.votes import count_votes

__all__ = [
    "CHUNK",
    "AdaptiveSmoothing",
    "BettingSequence",
    "ConfidenceSequence",
    "GaussianNoise",
    "PhasedSmoothing",
    "Smoothed",
    "Smoothing",
    "UnionSequence",
    "clopper_pearson_lower",
    "count_votes",
    "look_times",
]
