"""The audit: every stored certificate of a run is attacked inside its ball; what refutes one is kept."""

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from bench import datasets
from bench.audit_store import write_audits, write_witness
from bench.audit_subjects import AuditError, AuditSubject, images_of, read_manifest, subject_of
from bench.datasets import DataError, Dataset
from bench.keys import canonical_json
from bench.number_formats import full_float32
from bench.progress import Reporter
from bench.spec import SpecError, spec_of
from bench.store import Store
from certifiers.conformance.nearest import Candidates, Effort, Hunt
from certifiers.conformance.smoothed import refute_smoothed
from certifiers.conformance.voters import Attackable
from ensembles import derive_seed
from ensembles.checkpoint import CheckpointError
from ensembles.registry import RegistryError
from leaderboards.audits import read_audits
from leaderboards.verified_files import StoredDataError

#: Raised whenever the attacks change: certificates are then attacked again.
ATTACK_VERSION = 1

#: What this audit attacked in vain, by classifier, image, prediction and radius. Certifiers that claim the same of one
#: classifier share it: attacks depend on nothing else.
Met = dict[tuple[str, int, int, float], dict[str, Any]]

#: Audits stored at a time; a refuted certificate is stored at once.
_BLOCK = 10


class NoSuchEntryError(ValueError):
    """A pattern meets no entry of the run."""


@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """How to audit.

    Attributes:
        images: certificates an entry, drawn by the seed; None: all. More of them begin with the same ones.
        effort: of each attack.
        samples: noisy inputs in the test of a smoothed claim.
        device: where networks run.
        more: the name, with version, of further attacks, and these.
        entries: patterns of names; an entry that meets none is left out.
    """

    images: int | None = None
    effort: Effort = field(default_factory=Effort)
    samples: int = 20_000
    device: str = "cpu"
    more: tuple[str, Candidates] | None = None
    entries: tuple[str, ...] = ("*",)

    def attack(self, smoothed: bool) -> str:
        """The settings that an audit is stored with: certificates attacked under them are not attacked again."""
        own = {"samples": self.samples} if smoothed else {"more": self.more[0] if self.more else None}
        return canonical_json({"version": ATTACK_VERSION, **dataclasses.asdict(self.effort), **own})


@dataclass(frozen=True)
class AuditOutcome:
    """How an audit went: certificates attacked now, those that had been, and why entries could not be audited."""

    attacked: int
    stored: int
    problems: Mapping[str, str]


def audit(manifest: Path, options: AuditOptions, reporter: Reporter) -> AuditOutcome:
    """Attack the certificates of a run, entry by entry, skipping those that these attacks have met before.

    An entry that cannot be audited is a problem of its own and does not stop the others.

    Raises:
        NoSuchEntryError: a pattern meets no entry.
        AuditError: the file does not describe a run, or its data set cannot be loaded.
        StoreError: the store is in use, full or not writable.
        KeyboardInterrupt: the user stopped it; finished blocks are stored.
    """
    full_float32()
    document = read_manifest(manifest)
    names = [str(entry.get("name")) for entry in document["entries"] if isinstance(entry, dict)]
    for pattern in options.entries:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise NoSuchEntryError(
                f"No entry of {manifest} is named {pattern!r}; its entries: {', '.join(names[:5])}"
                f"{' and others' if len(names) > 5 else ''}. A pattern may have * and ?, and meets whole names."
            )
    store = Store(manifest.resolve().parent.parent.parent)
    published = [entry for entry in document["entries"] if isinstance(entry, dict) and entry.get("source")]
    for entry in published:
        reporter.note(f"{entry.get('name')}: published; its weights are not here, and nothing of it is attacked.")
    if len(published) == len(document["entries"]):
        return AuditOutcome(0, 0, {})
    dataset = _dataset(document, manifest)
    attacked, stored, problems = 0, 0, {}
    seen: set[str] = set()
    met: Met = {}
    with store.locked():
        for entry in document["entries"]:
            name = str(entry.get("name") if isinstance(entry, dict) else entry)
            if entry in published or (isinstance(entry, dict) and entry.get("status") == "unsupported"):
                continue
            if not any(fnmatchcase(name, pattern) for pattern in options.entries):
                continue
            try:
                subject = subject_of(entry, images_of(entry, dataset), store, options.device)
                if subject.key in seen:  # another name of the same cell
                    continue
                seen.add(subject.key)
                new, old = _audit_entry(subject, store, options, reporter, met)
            except (AuditError, CheckpointError, StoredDataError, DataError) as error:
                problems[name] = str(error)
                reporter.warn(f"{name}: not audited: {error}")
                continue
            attacked, stored = attacked + new, stored + old
    return AuditOutcome(attacked, stored, problems)


def _dataset(document: Mapping[str, Any], manifest: Path) -> Dataset:
    try:
        spec = spec_of(document["spec_text"], str(manifest))
        return datasets.load(spec.data.name, spec.data.root)
    except (SpecError, RegistryError, DataError, ImportError, OSError) as error:
        raise AuditError(f"{manifest}: its data cannot be loaded: {error}") from error


def _audit_entry(
    subject: AuditSubject, store: Store, options: AuditOptions, reporter: Reporter, met: Met
) -> tuple[int, int]:
    """Attack the chosen certificates of one entry; how many now, and how many before."""
    target = subject.certifier.target(subject.ensemble)
    if target is not subject.ensemble and not isinstance(target, Attackable):
        raise AuditError(
            f"its certificates speak about {type(target).__name__}, which no attack here knows; known are the "
            "classifier itself and Smoothed, SmoothedBy, SmoothedOnGrid and SmoothedMembers of certifiers.smoothing."
        )
    settings = options.attack(smoothed=target is not subject.ensemble)
    chosen = _chosen(subject.claims, options)
    audits = read_audits(store.cell(subject.key))
    if audits is not None:
        stored = audits[audits["attack"] == settings][["image_id", "prediction", "radius"]]
        done = set(stored.itertuples(index=False, name=None))
        keys = chosen[["image_id", "prediction", "radius"]].itertuples(index=False, name=None)
        pending = chosen[[key not in done for key in keys]]
    else:
        pending = chosen
    block: list[dict[str, Any]] = []
    with reporter.task(f"audit {subject.name}", len(pending)) as progress:
        refuted = 0
        for number, claim in enumerate(pending.to_dict("records"), start=1):
            row = _attacked(subject, target, claim, settings, store, options, met)
            block.append(row)
            refuted += row["attack_radius"] <= row["radius"]
            if len(block) == _BLOCK or number == len(pending) or row["attack_radius"] <= row["radius"]:
                write_audits(store, subject.key, pd.DataFrame(block))
                block = []
            progress.advance(1, f"{refuted} refuted")
    return len(pending), len(chosen) - len(pending)


def _chosen(claims: pd.DataFrame, options: AuditOptions) -> pd.DataFrame:
    """The certificates to audit: all, or the first of an order that the seed and the image decide."""
    if options.images is None:
        return claims
    seed = options.effort.seed
    order = claims["image_id"].map(lambda image: derive_seed(seed, "audit", int(image)))
    return claims.loc[order.sort_values(kind="stable").index[: options.images]]


def _attacked(
    subject: AuditSubject,
    target: Any,
    claim: Mapping[Any, Any],
    settings: str,
    store: Store,
    options: AuditOptions,
    met: Met,
) -> dict[str, Any]:
    """One audit: the row of `AUDIT_SCHEMA`; the witness of a refuted certificate is stored first."""
    started = time.perf_counter()
    image_id, prediction, radius = int(claim["image_id"]), int(claim["prediction"]), float(claim["radius"])
    attacked = (subject.classifier, image_id, prediction, radius)
    if attacked in met and target is subject.ensemble:
        return met[attacked] | {"forward_passes": 0, "seconds": time.perf_counter() - started}
    image = subject.image(image_id).to(options.device)
    row: dict[str, Any] = {"image_id": image_id, "prediction": prediction, "radius": radius, "attack": settings}
    row |= {"attack_radius": float("inf"), "answer": -1, "margin": 0.0, "p_value": 1.0, "method": "", "witness": ""}
    witness: torch.Tensor | None = None
    if isinstance(target, Attackable):
        found = refute_smoothed(
            *(target, image, prediction, radius, subject.threat, options.effort),
            samples=options.samples,
            image_id=image_id,
        )
        row |= {"p_value": found.p_value, "forward_passes": found.forward_passes}
        if found.refuted:
            share = (found.votes[1] - found.votes[0]) / options.samples
            row |= {"attack_radius": found.distance, "answer": found.answer, "margin": share, "method": "eot-pgd"}
            witness = found.point
    else:
        more = options.more[1] if options.more else None
        hunt = Hunt(subject.ensemble, image, prediction, subject.threat, options.effort, more)
        nearest = hunt.nearest(radius)
        row["forward_passes"] = hunt.forward_passes
        if nearest is not None:
            row |= {"attack_radius": nearest.distance, "answer": nearest.answer, "margin": nearest.margin}
            row |= {"p_value": 0.0, "method": nearest.method}
            witness = nearest.point if nearest.distance <= radius else None
    if witness is not None:
        told = ("prediction", "radius", "attack_radius", "answer", "margin", "p_value", "method", "attack")
        facts = {"norm": subject.threat.norm.value, "entry": subject.name} | {name: row[name] for name in told}
        row["witness"] = write_witness(store, subject.key, image_id, image[0], witness, facts).name
    row["seconds"] = time.perf_counter() - started
    # A refuted one is attacked again, and each entry keeps its own counterexample. What was found about a smoothed
    # function says nothing of the network.
    if witness is None and target is subject.ensemble:
        met[attacked] = row
    return row
