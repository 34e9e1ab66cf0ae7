"""L0: fail closed. What has no answer, or none in time, is not certified."""

import dataclasses

import torch
from torch import Tensor, nn

from certifiers.certificate import Guarantee, ThreatModel, Unsupported, Verdict
from certifiers.conformance.awkward import Interrupting, image, overflowing, racing_clock, unanswering
from certifiers.conformance.kit import Level, NotApplicable, Subject, Violation, check
from certifiers.conformance.linear_truths import FAMILIES
from certifiers.conformance.probes import norms_of
from certifiers.conformance.trial import Trial

#: Radii that are asked for.
_RADII = (1e-6, 1e-3, 0.1)


@check("no-answer", Level.L0)
def what_has_no_answer_is_not_certified(subject: Subject) -> int:
    """Scores that are NaN, infinite or tied are never certified; refusals and errors are both answers."""
    judged = 0
    for norm in norms_of(subject, "no-answer"):
        for name, classifier, x, tied in unanswering():
            # A tie under noise is an answer: votes for the lowest class.
            if not (tied and subject.certifier.guarantee is Guarantee.PROBABILISTIC):
                judged += _refused(subject, name, classifier, x, ThreatModel(norm))
    return judged


@check("overflow", Level.L0)
def what_overflows_is_not_certified(subject: Subject) -> int:
    """Networks whose scores overflow wherever the input moves are never certified.

    In exact arithmetic the answer changes at 1e-60 or before: a radius below that, smaller than any step that the input
    can take, is true.
    """
    judged = 0
    for norm in norms_of(subject, "overflow"):
        for name, classifier, x in overflowing():
            judged += _refused(subject, f"{name} in {x.dtype}", classifier, x, ThreatModel(norm), tiny=1e-30)
    return judged


@check("interrupted", Level.L0)
def what_is_interrupted_is_not_certified(subject: Subject) -> int:
    """A classifier that raises in the middle, out of time, unsupported or broken, is not certified."""
    judged, clean = 0, 1 if subject.certifier.guarantee is Guarantee.DETERMINISTIC else 0
    for norm in norms_of(subject, "interrupted"):
        for error in (TimeoutError, Unsupported, RuntimeError, ValueError, FloatingPointError, MemoryError):
            for answers in (0, 1, 2):
                classifier = Interrupting(clean + answers, error).eval()
                name = f"{error.__name__} after {answers} calls"
                _refused(subject, name, classifier, image(), ThreatModel(norm))
                judged += classifier.raised > 0
    if not judged:
        raise NotApplicable("it does not run the classifier, which therefore cannot interrupt it")
    return judged


@check("out-of-time", Level.L0)
def what_is_out_of_time_is_not_certified(subject: Subject) -> int:
    """Where every deadline is over, by a clock that races and by its own `time_limit`, no false radius is certified."""
    certifier = subject.certifier
    limited = {"time_limit": 1e-9} if "time_limit" in {field.name for field in dataclasses.fields(certifier)} else {}
    hurried = dataclasses.replace(certifier, **limited)
    judged = 0
    for norm in norms_of(subject, "out-of-time"):
        trial = Trial(dataclasses.replace(subject, certifier=hurried))
        for family in ("two-classes", "hidden-direction"):
            truth = FAMILIES[family](subject.generator("out of time", norm), ThreatModel(norm), batch=1)
            with racing_clock():
                trial.hold(truth, smoothed=family == "two-classes", complete=False)
        judged += trial.finish()
    return judged


def _refused(
    subject: Subject, name: str, classifier: nn.Module, x: Tensor, threat: ThreatModel, tiny: float = 0.0
) -> int:
    """Ask, and raise a violation where a radius above `tiny` is certified. An error is no certificate."""
    try:
        found = subject.certifier.certify(classifier, x, threat, radii=_RADII, seed=subject.seed)
    except Exception:
        return 1
    if isinstance(classifier, Interrupting) and not classifier.raised:
        return 0  # it was answered as often as it asked
    if bool((found.radius > tiny).any() | ((found.verdict == int(Verdict.CERTIFIED)) & (tiny == 0)).any()):
        with torch.no_grad():
            scores = "interrupted" if isinstance(classifier, Interrupting) else classifier(x).tolist()
        raise Violation(
            f"{name}, {threat.norm}: certified is class {int(found.prediction[0])} within {float(found.radius[0])!r}",
            f"x = {x.tolist()}, scores {scores}\n{classifier}",
        )
    return 1
