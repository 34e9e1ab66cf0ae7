"""What certifiers are held against: exact answers, planted counterexamples, attacks, statistics."""

from certifiers.conformance import (
    contract_checks,
    fail_closed_checks,
    planted_checks,
    statistics_checks,
    statistics_samples,
    symmetry_checks,
    truth_checks,
)
from certifiers.conformance.enumeration import exact_radii, least_margins
from certifiers.conformance.examination import Examination, examine
from certifiers.conformance.falsify import Attack, attack, changed, distance
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
from certifiers.conformance.planted import Planted, planted, unanswered
from certifiers.conformance.pytest_suite import suite
from certifiers.conformance.references import resolve
from certifiers.conformance.smoothed_truth import Slabs
from certifiers.conformance.truth import CancellingPair, Truth, cancelling_pair, enumerated, linear

__all__ = [
    "VERSION",
    "Attack",
    "CancellingPair",
    "Check",
    "Examination",
    "Level",
    "NotApplicable",
    "Planted",
    "Result",
    "Slabs",
    "Status",
    "Subject",
    "Truth",
    "Violation",
    "attack",
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
    "resolve",
    "run",
    "statistics_checks",
    "statistics_samples",
    "suite",
    "symmetry_checks",
    "truth_checks",
    "unanswered",
]
