"""What certifiers are held against: exact answers, planted counterexamples, attacks."""

from certifiers.conformance import attack_checks
from certifiers.conformance.apgd import apgd
from certifiers.conformance.balls import Ball, distance
from certifiers.conformance.enumeration import exact_radii, least_margins
from certifiers.conformance.falsify import Attack, attack, changed
from certifiers.conformance.nearest import Effort, Hunt, Witness
from certifiers.conformance.planted import Planted, planted, unanswered
from certifiers.conformance.smoothed import Refutation, probability_if_true, refute_smoothed
from certifiers.conformance.trained import Trained, trained
from certifiers.conformance.truth import CancellingPair, Truth, cancelling_pair, enumerated, linear

__all__ = [
    "Attack",
    "Ball",
    "CancellingPair",
    "Effort",
    "Hunt",
    "Planted",
    "Refutation",
    "Trained",
    "Truth",
    "Witness",
    "apgd",
    "attack",
    "attack_checks",
    "cancelling_pair",
    "changed",
    "distance",
    "enumerated",
    "exact_radii",
    "least_margins",
    "linear",
    "planted",
    "probability_if_true",
    "refute_smoothed",
    "trained",
    "unanswered",
]
