"""Checks of the certifiers of a run, stored as plain data beside its results: `conformance/<digest>.json`."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.keys import canonical_json, digest
from bench.plan import Plan
from bench.progress import Reporter
from bench.source import libraries, own_source, shared_source
from bench.store import Store
from certifiers import Certifier
from certifiers.conformance import examination, kit
from certifiers.conformance.kit import Level, Result, Subject
from leaderboards.badges import DOCUMENT_VERSION, Badge, badge_of

#: How a run checks its certifiers: the same cases each time, and few of them.
LEVEL, SEED, QUICK = Level.L2, 7, True


def path_of(store: Store, subject: Subject) -> Path:
    """Where the results of a check are stored: keyed by all that decides them but the code, whose digest they hold."""
    fields = {
        "certifier": subject.certifier.describe(),
        "kit": kit.VERSION,
        "seed": subject.seed,
        "quick": subject.quick,
    }
    return store.root / "conformance" / f"{digest(fields)[:32]}.json"


def document_of(subject: Subject, asked: Level, results: Sequence[Result]) -> dict[str, Any]:
    """The results of a check as plain data."""
    return {
        "document": "certbench-conformance",
        "document_version": DOCUMENT_VERSION,
        "certifier": _described(subject.certifier),
        "kit": kit.VERSION,
        "seed": subject.seed,
        "quick": subject.quick,
        "source": _source(subject.certifier),
        "asked": asked.name,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "checks": [
            {
                "name": result.check.name,
                "level": result.check.level.name,
                "status": result.status.value,
                "measured": result.measured,
                "seconds": round(result.seconds, 3),
                "message": result.message,
                "counterexample": result.counterexample,
                "replay": list(result.replay),
            }
            for result in results
        ],
    }


def record(store: Store, subject: Subject, asked: Level, results: Sequence[Result]) -> Badge:
    """Store the results of a check, and return the badge they earn.

    Raises:
        StoreError: they cannot be written.
    """
    document = document_of(subject, asked, results)
    store.write_json(path_of(store, subject), document)
    return badge_of(document)


def stored(store: Store, subject: Subject, asked: Level) -> Badge | None:
    """The badge of a stored check of at least that level; None where there is none, it cannot be read, or it failed.

    A failure is never taken from the store: it is looked at again. Nor is a check of other code than there is now.
    """
    document = _stored_document(store, subject)
    try:
        badge = badge_of(document)
        reusable = Level[document["asked"]] >= asked and badge.certifier == _described(subject.certifier)
    except (ValueError, KeyError):
        return None
    same = document.get("source") == _source(subject.certifier)
    return badge if reusable and same and not badge.failed else None


def forget_other_code(plan: Plan, store: Store, reporter: Reporter) -> None:
    """Before rows are computed: remove the stored checks of a plan's certifiers that are of other code than now.

    Boards show the check of a certifier by its name, version and parameters: that of other code would speak for rows
    that this code computes. Of a plug-in's there is a warning; the certifiers of certbench raise their versions.

    Raises:
        StoreError: the store is in use, full or not writable.
    """
    planned = {canonical_json(cell.certifier.describe()): cell.certifier for cell in plan.cells if not cell.reason}
    warned: set[str] = set()
    with store.locked():
        for path in sorted((store.root / "conformance").glob("*.json")):
            document = _read(path)
            described = canonical_json(document.get("certifier"))
            certifier, source = planned.get(described), document.get("source")
            if certifier is None or source == _source(certifier):
                continue
            if isinstance(source, dict) and source.get("own") != own_source(certifier) and described not in warned:
                warned.add(described)
                reporter.warn(
                    f"{certifier.name}: its code has changed since version {certifier.version} was checked, so that "
                    "check counts no more. Stored rows are of the code of before: raise `version` if numbers may "
                    "differ."
                )
            path.unlink(missing_ok=True)


def _stored_document(store: Store, subject: Subject) -> dict[str, Any]:
    """The stored results; empty where there are none that can be read."""
    return _read(path_of(store, subject))


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _source(certifier: Certifier) -> dict[str, str]:
    return {"own": own_source(certifier), "certbench": shared_source(), "libraries": libraries()}


def check_certifiers(
    plan: Plan, store: Store, reporter: Reporter, level: Level = LEVEL, seed: int = SEED, *, quick: bool = QUICK
) -> dict[str, Badge]:
    """Check each distinct certifier of a plan once, and store the results; what is stored and passed is not run again.

    Changed code is checked again.

    Returns:
        The badges, by the names of the certifiers with a number where several have one name.

    Raises:
        StoreError: the store is in use, full or not writable.
    """
    distinct = {canonical_json(cell.certifier.describe()): cell.certifier for cell in plan.cells if not cell.reason}
    found: dict[str, Badge] = {}
    with store.locked():
        for certifier in distinct.values():
            subject = Subject(certifier, seed=seed, quick=quick)
            label = _label(certifier, found)
            badge = stored(store, subject, level)
            if badge is None:
                badge = record(store, subject, level, _results(subject, level, label, reporter))
                reporter.note(f"{label}: {badge}")
            found[label] = badge
    return found


def _results(subject: Subject, level: Level, label: str, reporter: Reporter) -> list[Result]:
    results: list[Result] = []
    checks = kit.checks(level)
    with reporter.task(f"check {label} at {level.name}", len(checks)) as progress:
        for result in examination.results(subject, level):
            results.append(result)
            progress.advance(1, result.check.name)
    for result in results:
        if result.status is kit.Status.FAILED:
            reporter.warn(f"{label} failed {result.check.level.name}: {result.check.name}: {result.message}")
    return results


def _described(certifier: Certifier) -> Any:
    """Name, version and parameters as they come back from JSON."""
    return json.loads(canonical_json(certifier.describe()))


def _label(certifier: Certifier, known: dict[str, Badge]) -> str:
    name = certifier.name or type(certifier).__name__
    number = 1 + sum(label == name or label.startswith(f"{name} (") for label in known)
    return name if number == 1 else f"{name} ({number})"
