"""L1: truth. Classifiers whose certified radii are known in closed form or by enumeration."""

from collections.abc import Callable

from certifiers.certificate import ThreatModel
from certifiers.conformance.kit import Level, Subject, check
from certifiers.conformance.linear_truths import FAMILIES, HALF_SPACES
from certifiers.conformance.trial import Trial


def _linear(family: str) -> Callable[[Subject], int]:
    def holds(subject: Subject) -> int:
        trial = Trial(subject)
        for norm in trial.norms():
            for turn in range(1 if subject.quick else 3):
                generator = subject.generator("linear", family, norm, turn)
                truth = FAMILIES[family](generator, ThreatModel(norm), batch=1 if subject.quick else 2)
                trial.hold(truth, smoothed=family in HALF_SPACES)
        return trial.finish()

    holds.__doc__ = (
        f"No certificate of a linear model ({family.replace('-', ' ')}) reaches the closed form; complete methods come "
        "near to it."
    )
    return holds


for _family in FAMILIES:
    check(f"linear-{_family}", Level.L1)(_linear(_family))
