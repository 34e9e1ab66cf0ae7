"""L2: planted counterexamples that no gradient finds, at known distances and new from each seed."""

from collections.abc import Callable

import torch

from certifiers.certificate import Norm, ThreatModel
from certifiers.conformance.ambushes import Place, Where, corner, needle
from certifiers.conformance.kit import Level, Subject, check
from certifiers.conformance.planted import FAMILIES
from certifiers.conformance.trial import SLACK, Trial
from certifiers.conformance.truth import Truth
from ensembles.aggregation import Aggregation, MaxMargin, WeightedAverage

#: How ensembles are aggregated; both know only logits, whose truth is exact.
AGGREGATIONS: tuple[Aggregation, ...] = (WeightedAverage(of="logit"), MaxMargin(of="logit"))
#: One radius just beyond the truth, asked alone: a search over several may stop before it.
BEYOND = (1.01,)
#: Nothing is rounded in the planted numbers: a certificate must not even reach the radius, where there is a tie.
_NONE = 0.0


def _ambush(
    name: str,
    build: Callable[[torch.Generator, Norm, Aggregation | None], Truth],
    kinds: tuple[Aggregation | None, ...],
    *,
    smoothed: bool,
) -> Callable[[Subject], int]:
    def holds(subject: Subject) -> int:
        trial = Trial(subject)
        for norm in trial.norms(*([name] if name else [])):
            for turn in range(1 if subject.quick else 2):
                for kind in kinds:
                    truth = build(subject.generator("ambush", norm, turn), norm, kind)
                    # Of equal gaps the first member's counts: exactly at the radius either answer may be right.
                    slack = SLACK if isinstance(kind, MaxMargin) else _NONE
                    trial.hold(truth, smoothed=smoothed, slack=slack)
                    if subject.certifier.uses_radii and not subject.quick:
                        trial.hold(truth, BEYOND, smoothed=smoothed, slack=slack)
        return trial.finish()

    return holds


def _corners(where: Where, place: Place, kinds: tuple[Aggregation | None, ...]) -> Callable[[Subject], int]:
    def build(generator: torch.Generator, norm: Norm, kind: Aggregation | None) -> Truth:
        return corner(generator, ThreatModel(norm), where, kind, place)

    # Everywhere, also out of the box, these are two half-spaces: noise leaves their boundary where it is.
    name = "" if (where, place) == ("alone", "inside") else f"corner {where} {place}"
    holds = _ambush(name, build, kinds, smoothed=place != "outside")
    says = {"alone": "a network", "one": "one member", "all": "all members", "sum": "the sum of the members alone"}
    ends = {
        "inside": "beyond which the certificate must end",
        "edge": "and that corner is one of the box",
        "outside": "and that corner lies just outside of the box, where nothing is to be refuted",
    }
    holds.__doc__ = f"A hidden unit of {says[where]} fires in one corner of the ball only, {ends[place]}."
    return holds


def _needles(where: Where, kinds: tuple[Aggregation | None, ...]) -> Callable[[Subject], int]:
    holds = _ambush(
        f"needle {where}",
        lambda generator, norm, kind: needle(generator, ThreatModel(norm), where, kind),
        kinds,
        smoothed=False,
    )
    says = {"alone": "a network", "one": "one member", "all": "all members", "sum": "the sum of the members alone"}
    holds.__doc__ = f"A needle at a random point, where the answer of {says[where]} changes, ends the certificate."
    return holds


check("corner", Level.L2)(_corners("alone", "inside", (None,)))
check("corner-on-the-edge", Level.L2)(_corners("alone", "edge", (None,)))
check("corner-outside", Level.L2)(_corners("alone", "outside", (None,)))
check("corner-in-one-member", Level.L2)(_corners("one", "inside", AGGREGATIONS))
check("corner-in-all-members", Level.L2)(_corners("all", "edge", AGGREGATIONS))
check("corner-in-the-sum", Level.L2)(_corners("sum", "inside", AGGREGATIONS))
check("needle", Level.L2)(_needles("alone", (None,)))
check("needle-in-one-member", Level.L2)(_needles("one", AGGREGATIONS))
check("needle-in-all-members", Level.L2)(_needles("all", AGGREGATIONS))
check("needle-in-the-sum", Level.L2)(_needles("sum", AGGREGATIONS))


def _planted(family: str) -> Callable[[Subject], int]:
    def holds(subject: Subject) -> int:
        trial = Trial(subject)
        for norm in trial.norms("planted", family):
            case = FAMILIES[family](ThreatModel(norm))
            truth = Truth(
                f"planted {family}",
                case.classifier,
                case.x,
                case.threat,
                torch.zeros(1, dtype=torch.int64),
                torch.tensor([case.safe], dtype=torch.float64),
            )
            trial.hold(truth, smoothed=family in ("halfspace", "dropout"), slack=_NONE)
        return trial.finish()

    holds.__doc__ = (FAMILIES[family].__doc__ or "").strip().partition("\n")[0]
    return holds


for _family in FAMILIES:
    check(f"planted-{_family.replace(' ', '-')}", Level.L2)(_planted(_family))
