"""What certifiers are held against: exact answers, planted counterexamples, attacks, statistics."""

from certifiers.conformance import statistics_checks, statistics_samples
from certifiers.conformance.enumeration import exact_radii, least_margins
from certifiers.conformance.falsify import Attack, attack, changed, distance
from certifiers.conformance.planted import Planted, planted, unanswered
from certifiers.conformance.smoothed_truth import Slabs
from certifiers.conformance.truth import CancellingPair, Truth, cancelling_pair, enumerated, linear

__all__ = [
    "Attack",
    "CancellingPair",
    "Planted",
    "Slabs",
    "Truth",
    "attack",
    "cancelling_pair",
    "changed",
    "distance",
    "enumerated",
    "exact_radii",
    "least_margins",
    "linear",
    "planted",
    "statistics_checks",
    "statistics_samples",
    "unanswered",
]
