"""What certifiers are held against: exact answers, planted counterexamples, attacks, statistics."""

from certifiers.conformance import (
    attack_checks,
    contract_checks,
    fail_closed_checks,
    planted_checks,
    repetition_checks,
    statistics_checks,
    statistics_members,
    statistics_samples,
    symmetry_checks,
    truth_checks,
)
from certifiers.conformance.apgd import apgd
from certifiers.conformance.balls import Ball, distance
from certifiers.conformance.enumeration import exact_radii, least_margins
from certifiers.conformance.examination import Examination, examine
from certifiers.conformance.falsify import Attack, attack, changed
from certifiers.conformance.kit import (
    VERSION,
    Check,
    Level,
    NotApplicable,
    Result,
    Status,
    Subject,
    Violation,
    check,
    checks,
    named,
    run,
)
from certifiers.conformance.nearest import Effort, Hunt, Witness
from certifiers.conformance.planted import Planted, planted, unanswered
from certifiers.conformance.pytest_suite import suite
from certifiers.conformance.references import resolve
from certifiers.conformance.smoothed import Refutation, probability_if_true, refute_smoothed
from certifiers.conformance.smoothed_truth import Slabs
from certifiers.conformance.trained import Trained, trained
from certifiers.conformance.truth import CancellingPair, Truth, cancelling_pair, enumerated, linear

__all__ = [
    "VERSION",
    "Attack",
    "Ball",
    "CancellingPair",
    "Check",
    "Effort",
    "Examination",
    "Hunt",
    "Level",
    "NotApplicable",
    "Planted",
    "Refutation",
    "Result",
    "Slabs",
    "Status",
    "Subject",
    "Trained",
    "Truth",
    "Violation",
    "Witness",
    "apgd",
    "attack",
    "attack_checks",
    "cancelling_pair",
    "changed",
    "check",
    "checks",
    "contract_checks",
    "distance",
    "enumerated",
    "exact_radii",
    "examine",
    "fail_closed_checks",
    "least_margins",
    "linear",
    "named",
    "planted",
    "planted_checks",
    "probability_if_true",
    "refute_smoothed",
    "repetition_checks",
    "resolve",
    "run",
    "statistics_checks",
    "statistics_members",
    "statistics_samples",
    "suite",
    "symmetry_checks",
    "trained",
    "truth_checks",
    "unanswered",
]
