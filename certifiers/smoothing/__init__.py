"""Randomized smoothing: noise, votes, confidence bounds, and a method a file."""

from certifiers.smoothing.adaptive import AdaptiveSmoothing
from certifiers.smoothing.anytime import BettingSequence, ConfidenceSequence, UnionSequence, look_times
from certifiers.smoothing.compiling import check_compiler
from certifiers.smoothing.confidence import clopper_pearson_lower, clopper_pearson_upper
from certifiers.smoothing.ensemble_after_smoothing import EnsembleAfterSmoothing, MemberBounds, SmoothedMembers
from certifiers.smoothing.fixed_samples import FixedSamples
from certifiers.smoothing.integer_smoothing import IntegerSmoothing, SmoothedOnGrid
from certifiers.smoothing.l1_noise import LaplaceNoise, UniformNoise
from certifiers.smoothing.l1_smoothing import SmoothedBy, SmoothingL1
from certifiers.smoothing.neyman_pearson import Smoothed, Smoothing
from certifiers.smoothing.noise import CHUNK, GaussianNoise, Noise
from certifiers.smoothing.phases import PhasedSmoothing
from certifiers.smoothing.rounded_gaussian import RoundedGaussianNoise
from certifiers.smoothing.shared_votes import VoteCounting
from certifiers.smoothing.votes import count_votes

__all__ = [
    "CHUNK",
    "AdaptiveSmoothing",
    "BettingSequence",
    "ConfidenceSequence",
    "EnsembleAfterSmoothing",
    "FixedSamples",
    "GaussianNoise",
    "IntegerSmoothing",
    "LaplaceNoise",
    "MemberBounds",
    "Noise",
    "PhasedSmoothing",
    "RoundedGaussianNoise",
    "Smoothed",
    "SmoothedBy",
    "SmoothedMembers",
    "SmoothedOnGrid",
    "Smoothing",
    "SmoothingL1",
    "UniformNoise",
    "UnionSequence",
    "VoteCounting",
    "check_compiler",
    "clopper_pearson_lower",
    "clopper_pearson_upper",
    "count_votes",
    "look_times",
]
