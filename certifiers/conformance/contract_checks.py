"""L0: the contract. Whatever a certifier computes, it answers in form, disturbs nothing and repeats itself."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from certifiers.certificate import Certificates, Guarantee, Norm, ThreatModel, Verdict
from certifiers.conformance.kit import Level, NotApplicable, Subject, Violation, check
from certifiers.conformance.probes import (
    FINE_RADII,
    RADII,
    Inert,
    Probe,
    answered,
    ask,
    ids_of,
    near_boundary,
    norms_of,
    probes,
)
from certifiers.conformance.surroundings import surroundings


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


@check("same-seed", Level.L0)
def the_same_seed_gives_the_same_bits(subject: Subject) -> int:
    """The same question has the same answer to the last bit, whatever global generators, grad mode and dtype are."""
    judged = 0
    for probe, threat, first in answered(subject):
        with _elsewhere(subject.seed):
            second = ask(subject, probe, threat)
        if difference := unlike(first, second):
            raise Violation(
                f"{probe.name}, {threat.norm}: the same seed gives another {difference}", f"{first}\n{second}"
            )
        judged += len(first)
    return judged


@check("batches", Level.L0)
def batch_and_order_do_not_matter(subject: Subject) -> int:
    """An image's answer does not depend on the images beside it, nor on their order: its id keys its randomness."""
    judged = 0
    fine = partial(ask, subject, radii=FINE_RADII)
    for probe, threat, whole in answered(subject, fine):
        ids = ids_of(len(probe.x))
        for rows in [[1, 3, 0, 2], [2]] if subject.quick else [[1, 3, 0, 2], [2], [0, 1, 3]]:
            part = subject.certifier.certify(
                probe.classifier,
                probe.x[rows],
                threat,
                radii=FINE_RADII,
                seed=subject.seed,
                image_ids=[ids[row] for row in rows],
            )
            same = torch.equal(part.verdict, whole.verdict[rows]) & torch.equal(part.prediction, whole.prediction[rows])
            if not same or not torch.allclose(part.radius, whole.radius[rows], rtol=1e-5, atol=0):
                raise Violation(
                    f"{probe.name}, {threat.norm}: images {rows} of a batch are answered otherwise alone: radii "
                    f"{whole.radius[rows].tolist()} in the batch, {part.radius.tolist()} without the others",
                    f"x = {probe.x.tolist()}, image ids {ids}\n{probe.classifier}",
                )
            judged += len(part)
    return judged


@check("together", Level.L0)
def several_classifiers_are_answered_as_each_alone(subject: Subject) -> int:
    """Asked for several classifiers in one pass it answers each as it does alone."""
    judged = 0
    for norm in norms_of(subject):
        asked = probes(subject)
        x, threat = asked[0].x, ThreatModel(norm)
        found = subject.certifier.certify_together(
            [probe.classifier for probe in asked], x, threat, RADII, subject.seed, ids_of(len(x))
        )
        for probe, together in zip(asked, found, strict=True):
            alone = ask(subject, probe, threat)
            if difference := unlike(together, alone):
                raise Violation(f"{probe.name}, {norm}: beside other classifiers it has another {difference}")
            judged += int((alone.verdict != int(Verdict.UNSUPPORTED)).sum())
    return judged


@check("keyed-randomness", Level.L0)
def randomness_is_keyed_by_seed_and_image(subject: Subject) -> int:
    """Other seeds and other image ids draw other noise: a probabilistic method does not repeat one sample."""
    if subject.certifier.guarantee is Guarantee.DETERMINISTIC:
        raise NotApplicable("its guarantee is deterministic: it has no noise")
    probe = near_boundary()
    x = probe.x.expand(8, *probe.x.shape[1:]).clone()
    judged = 0
    for norm in sorted(subject.certifier.norms):
        asked = [
            subject.certifier.certify(probe.classifier, x, ThreatModel(norm), seed=seed, image_ids=range(8))
            for seed in (subject.seed, subject.seed + 1)
        ]
        columns = [{name: column(values) for name, values in _columns(found).items()} for found in asked]
        if all(len(set(values)) == 1 for values in columns[0].values()):
            raise Violation(f"{norm}: the same image under eight ids has the same answer and evidence eight times")
        if columns[0] == {**columns[1], "seed": columns[0].get("seed")}:
            raise Violation(f"{norm}: another seed gives the same answers and evidence")
        judged += 16
    return judged


def column(values: Tensor | object) -> tuple[object, ...]:
    """Plain values, comparable; NaN equals NaN."""
    listed = values.tolist() if isinstance(values, Tensor) else list(values)  # type: ignore[call-overload]
    return tuple("nan" if value != value else value for value in listed)


def _columns(found: Certificates) -> dict[str, object]:
    return {
        **found.evidence,
        "prediction": found.prediction,
        "radius": found.radius,
        "verdict": found.verdict,
        "failure probability": found.failure_probability,
        "reason": found.reason,
    }


def unlike(first: Certificates, second: Certificates) -> str:
    """The name of a column in which two answers differ in some bit, or nothing; seconds are not compared."""
    ours, theirs = _columns(first), _columns(second)
    if ours.keys() != theirs.keys():
        return "evidence"
    return next((name for name, values in ours.items() if column(values) != column(theirs[name])), "")


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
    found = ask(subject, probe, threat)
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


@contextmanager
def _elsewhere(seed: int) -> Iterator[None]:
    """Other global states than before, for a while."""
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    dtype, enabled = torch.get_default_dtype(), torch.is_grad_enabled()
    try:
        torch.manual_seed(seed + 1)
        np.random.seed((seed + 1) % 2**32)  # noqa: NPY002
        torch.set_default_dtype(torch.float64 if dtype is torch.float32 else torch.float32)
        torch.set_grad_enabled(not enabled)
        yield
    finally:
        torch.set_rng_state(torch_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(enabled)
