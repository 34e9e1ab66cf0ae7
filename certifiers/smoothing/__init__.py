"""Randomized smoothing: noise, votes, confidence bounds, and a method a file."""

from certifiers.smoothing.confidence import clopper_pearson_lower
from certifiers.smoothing.neyman_pearson import Smoothed, Smoothing
from certifiers.smoothing.noise import CHUNK, GaussianNoise
from certifiers.smoothing.votes import count_votes

__all__ = ["CHUNK", "GaussianNoise", "Smoothed", "Smoothing", "clopper_pearson_lower", "count_votes"]
