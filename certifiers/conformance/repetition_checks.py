"""L0: repetition. The same question has the same answer, whatever is beside it; other seeds draw other noise."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch import Tensor

from certifiers.certificate import Certificates, Guarantee, ThreatModel, Verdict
from certifiers.conformance.kit import Level, NotApplicable, Subject, Violation, check
from certifiers.conformance.probes import (
    FINE_RADII,
    RADII,
    answered,
    ask,
    ids_of,
    near_boundary,
    norms_of,
    probes,
)


@check("same-seed", Level.L0)
def the_same_seed_gives_the_same_bits(subject: Subject) -> int:
    """The same question has the same answer to the last bit, whatever global generators, grad mode and dtype are."""
    judged = 0
    for probe, threat, first in answered(subject):
        with _elsewhere(subject.seed):
            second = ask(subject, probe, threat)
        if difference := unlike(first, second):
            raise Violation(
                f"{probe.name}, {threat.norm}: the same seed gives another {difference}. Whatever is random comes from "
                "rng.generator(row, stream, chunk)",
                f"x = {probe.x.tolist()}, image ids {ids_of(len(probe.x))}\n{probe.classifier}",
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
    """What differs in some bit between two answers, `radius of row 2: 0.25, then 0.26`, or nothing.

    Seconds are not compared.
    """
    ours, theirs = _columns(first), _columns(second)
    if alone := ours.keys() ^ theirs.keys():
        return f"evidence: only one answer has {', '.join(sorted(alone))}"
    for name, values in ours.items():
        pairs = zip(column(values), column(theirs[name]), strict=False)
        if changed := [(row, one, other) for row, (one, other) in enumerate(pairs) if one != other]:
            row, one, other = changed[0]
            return f"{name} of row {row}: {one!r}, then {other!r}"
        if len(column(values)) != len(column(theirs[name])):
            return f"{name}: {len(column(values))} rows, then {len(column(theirs[name]))}"
    return ""


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
