"""What certifiers are held against: exact answers, planted counterexamples, attacks."""

from certifiers.conformance.balls import Ball, distance
from certifiers.conformance.enumeration import exact_radii, least_margins
from certifiers.conformance.falsify import Attack, attack, changed
from certifiers.conformance.planted import Planted, planted, unanswered
from certifiers.conformance.truth import CancellingPair, Truth, cancelling_pair, enumerated, linear

__all__ = [
    "Attack",
    "Ball",
    "CancellingPair",
    "Planted",
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
    "unanswered",
]
