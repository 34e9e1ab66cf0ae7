"""L0: the contract. Whatever a certifier computes, it answers in form and disturbs nothing."""

import json
from dataclasses import replace

import torch

from certifiers.certificate import Certificates, Guarantee, Norm, ThreatModel, Verdict
from certifiers.conformance.kit import Level, NotApplicable, Subject, Violation, check
from certifiers.conformance.probes import (
    Inert,
    Probe,
    answered,
    ask,
    norms_of,
    probes,
)
from certifiers.conformance.surroundings import surroundings
from certifiers.undisturbed import ClassifierChangedError


@check("answers", Level.L0)
def answers_are_well_formed(subject: Subject) -> int:
    """One answer an image, in shape, type and range; something is certified in each norm; other norms are refused."""
    certifier, judged = subject.certifier, 0
    certified = dict.fromkeys(sorted(certifier.norms), 0)
    for probe, threat, found in answered(subject, norms=sorted(certifier.norms)):
        where = f"{probe.name}, {threat.norm}"
        _well_formed(found, len(probe.x), certifier.guarantee, where)
        certified[threat.norm] += int(found.certified.sum())
        judged += len(found)
    idle = [norm for norm, count in certified.items() if not count]
    if idle:
        raise Violation(f"it declares the norms {', '.join(idle)} and certifies no ordinary classifier in them")
    for norm in set(Norm) - certifier.norms:
        refusal = ask(subject, probes(subject)[0], ThreatModel(norm))
        if set(refusal.verdict.tolist()) != {int(Verdict.UNSUPPORTED)} or not all(refusal.reason):
            raise Violation(f"the norm {norm} is not declared, and is not refused with a reason")
    return judged


@check("bisection", Level.L0)
def answers_without_radii(subject: Subject) -> int:
    """Without radii to ask for it answers in form, too."""
    judged = 0
    for norm in norms_of(subject):
        probe = probes(subject, batch=2)[0]
        threat = ThreatModel(norm)
        found = subject.certifier.certify(probe.classifier, probe.x, threat, seed=subject.seed)
        if bool((found.verdict == int(Verdict.UNSUPPORTED)).all()):
            continue
        _well_formed(found, len(probe.x), subject.certifier.guarantee, f"{probe.name}, {norm}, no radii")
        judged += len(found)
    if not judged:
        raise NotApplicable("unsupported: an ordinary linear model")
    return judged


@check("parameters", Level.L0)
def parameters_make_it_again(subject: Subject) -> int:
    """Its description is JSON, an equal certifier can be made from it, and certifying does not change it."""
    certifier = subject.certifier
    before = json.dumps(certifier.describe(), sort_keys=True)
    again = type(certifier).from_mapping(json.loads(before)["parameters"], "certifier")
    if again.identity() != certifier.identity():
        raise Violation(f"made from its own parameters it is another one: {certifier.identity()}, {again.identity()}")
    next(answered(subject))
    after = json.dumps(certifier.describe(), sort_keys=True)
    if after != before:
        raise Violation(f"certifying changes its parameters: {before} became {after}")
    return 1


@check("undisturbed", Level.L0)
def nothing_is_disturbed(subject: Subject) -> int:
    """Weights, modes, hooks, inputs, global generators, grad mode, default dtype, threads and settings stay.

    Also when it is asked by a careless caller: in train mode, with gradients on.
    """
    judged = 0
    for _, _, found in answered(subject, lambda probe, threat: _watched(subject, probe, threat)):
        judged += len(found)
    return judged


def _well_formed(found: Certificates, count: int, guarantee: Guarantee, where: str) -> None:
    """Raise a violation where an answer has not the form that everything after it relies on."""
    columns = {
        "prediction": (found.prediction, torch.int64),
        "radius": (found.radius, torch.float64),
        "verdict": (found.verdict, torch.int8),
        "failure_probability": (found.failure_probability, torch.float64),
    }
    for name, (values, dtype) in columns.items():
        if values.dtype != dtype or tuple(values.shape) != (count,):
            raise Violation(f"{where}: {name} is {values.dtype} {list(values.shape)}, not {dtype} [{count}]")
    certified = found.certified
    for wrong, what in [
        (~torch.isfinite(found.radius) | (found.radius < 0), "a radius is negative or not finite"),
        (certified != (found.radius > 0), "a radius is positive exactly where the verdict is not CERTIFIED"),
        (certified & (found.prediction < 0), "a certificate speaks of no class"),
        (certified & torch.tensor([bool(reason) for reason in found.reason]), "a certificate has a reason against it"),
        (~certified & torch.tensor([not reason for reason in found.reason]), "a refusal has no reason"),
        (
            (found.failure_probability > 0) != (certified & (guarantee is Guarantee.PROBABILISTIC)),
            "the failure probability does not fit the guarantee",
        ),
    ]:
        if bool(wrong.any()):
            raise Violation(f"{where}: {what}", str(found))
    for name, entries in found.evidence.items():
        if len(entries) != count:
            raise Violation(f"{where}: the evidence {name} has {len(entries)} values for {count} images")
    if bool((found.cost.forward_passes < 0).any() | (found.cost.bound_passes < 0).any()):
        raise Violation(f"{where}: a count of passes is negative")


def _watched(subject: Subject, probe: Probe, threat: ThreatModel) -> Certificates:
    """The answer, and a violation where anything around it changed that asking alone does not change."""
    before = surroundings(probe.classifier, probe.x)
    try:
        found = ask(subject, probe, threat)
    except ClassifierChangedError as error:
        raise Violation(f"{probe.name}, {threat.norm}: {error}") from None
    after = surroundings(probe.classifier, probe.x)
    changed = [name for name in before if before[name] != after[name]]
    if changed:
        # Whoever checks types while it runs, as our own tests do, may draw from a global generator.
        ask(replace(subject, certifier=Inert()), probe, threat)
        inert = surroundings(probe.classifier, probe.x)
        changed = [name for name in changed if inert[name] == after[name]]
    if changed:
        raise Violation(f"{probe.name}, {threat.norm}: certifying changes {', '.join(changed)}")
    return found
