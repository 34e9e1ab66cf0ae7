"""Two runs, entry by entry: which can be compared, how, and what follows."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from leaderboards.gate import costs, losses
from leaderboards.gate.findings import Finding, Kind, Outcome, Report, Rules
from leaderboards.gate.identity import same_rows
from leaderboards.gate.images import lost_images
from leaderboards.gate.measured import Measured, classifier_of, same_machine
from leaderboards.gate.soundness import Refuted, counterexamples, false_images, misfits, soundness
from leaderboards.numerals import quantity
from leaderboards.paired import holm
from leaderboards.radii import format_radius, parse_radius
from leaderboards.records import Entry

_MUST_AGREE = {"dataset": "data set", "split": "split", "norm": "norm"}

#: Where last bits are other ones (`same_machine`).
_ELSEWHERE = "another processor or device, or with other libraries, threads or batches"

#: Kinds of findings in the order in which they are told.
_ORDER = tuple(Kind)


def compare(base: Measured, head: Measured, rules: Rules | None = None) -> Report:
    """The gate: HEAD beside BASE.

    Entries are matched by name. Entries of one key must be equal row by row; proofs about one classifier must all be
    kept; all others are held to `rules` by paired tests, which share one budget of false alarms. Rows of another
    processor, other libraries or threads may differ in last bits, so that these too are held to the tests where they
    differ.
    """
    rules = rules or Rules()
    known = counterexamples((base, head))
    findings = soundness(head, known)
    ours, theirs = ({entry.name: entry for entry in run.run.entries if not entry.imported} for run in (base, head))
    radii, unasked, notes = _radii(base, head, rules)
    findings += unasked
    published = dict.fromkeys(entry.name for run in (base, head) for entry in run.run.entries if entry.imported)
    notes += [f"{name}: not compared, being what others published." for name in published]
    notes += [f"Only in HEAD: {name}." for name in theirs if name not in ours]
    findings += [_no_longer_measured(name, "in BASE alone", rules) for name in ours if name not in theirs]
    tests: list[losses.Loss] = []
    counted: list[costs.Growth] = []
    for name, entry in ours.items():
        if name in theirs:
            added, noted = _compared(entry, theirs[name], radii, known, tests, counted)
            findings += added
            notes += noted
    findings += _tested(tests, counted, rules)
    notes += losses.too_few_images(tests, rules)
    findings.sort(key=lambda item: (item.outcome is Outcome.PASS, _ORDER.index(item.kind)))
    return Report(base.run.name, head.run.name, rules, tuple(findings), tuple(notes))


def _compared(
    base: Entry,
    head: Entry,
    radii: tuple[Fraction, ...],
    known: Refuted,
    tests: list[losses.Loss],
    counted: list[costs.Growth],
) -> tuple[list[Finding], list[str]]:
    """Findings and notes about one entry; what needs a test is added to `tests` and `counted`."""
    if base.status != "complete":
        return [], [f"{base.name}: not compared, being {base.status} in BASE ({base.reason or 'no reason given'})."]
    findings = _state(base, head)
    if head.status != "complete":
        return findings, []
    if wrong := misfits(base):
        said = f"cannot be compared: rows of BASE are not what the schema says ({wrong[0]}). Update the baseline."
        return [*findings, Finding(Kind.STATE, head.name, Outcome.INCONCLUSIVE, said)], []
    if misfits(head):
        return findings, [f"{head.name}: not compared: its rows are not what the schema says, which is an alarm."]
    if reason := _incomparable(base, head):
        said = f"cannot be compared: {reason}. Run both with one spec, or update the baseline."
        return [*findings, Finding(Kind.STATE, head.name, Outcome.INCONCLUSIVE, said)], []
    notes = [_seconds(base, head)]
    exact = same_machine(base, head)
    if base.key and base.key == head.key:
        same = same_rows(base, head)
        if exact or same.outcome is Outcome.PASS:
            return [*findings, same], notes
        notes.append(f"{base.name}: computed on {_ELSEWHERE}, so rows are held to tests.")
    false = false_images(base, known)
    if false:
        notes.append(f"{base.name}: {len(false)} certificates of BASE are known to be false; losing them is no loss.")
    same_classifier = exact and classifier_of(base) is not None and classifier_of(base) == classifier_of(head)
    proofs = base.guarantee == head.guarantee == "deterministic"
    if proofs and same_classifier:
        findings.append(lost_images(base, head, false, radii))
    else:
        if proofs:
            why = "weights that differ or are not known" if exact else _ELSEWHERE
            notes.append(f"{base.name}: {why}: proofs are compared by paired tests.")
        findings += _weaker(base, head)
        tests += losses.losses(_without(base, false), head, radii) if radii else []
    counted += costs.growths(base, head, exact=proofs and same_classifier)
    return findings, notes


def _tested(tests: Sequence[losses.Loss], counted: Sequence[costs.Growth], rules: Rules) -> list[Finding]:
    """All findings that chance has a part in, under one budget."""
    uncertain = [growth for growth in counted if growth.p_value is not None]
    p_values = [test.p_value for test in tests] + [float(growth.p_value or 0.0) for growth in uncertain]
    adjusted = holm(p_values) if p_values else np.empty(0)
    found = [losses.judged(test, float(p), rules) for test, p in zip(tests, adjusted[: len(tests)], strict=True)]
    found += [costs.judged(item, float(p), rules) for item, p in zip(uncertain, adjusted[len(tests) :], strict=True)]
    return found + [costs.judged(growth, None, rules) for growth in counted if growth.p_value is None]


def _radii(base: Measured, head: Measured, rules: Rules) -> tuple[tuple[Fraction, ...], list[Finding], list[str]]:
    """The radii of both runs; a finding where HEAD was not asked one of BASE, and a note where it was asked more."""
    one, other = ({parse_radius(radius) for radius in run.run.radii} for run in (base, head))
    findings, notes = [], []
    if dropped := one - other:
        said = f"radii that HEAD was not asked, and are not compared: {', '.join(map(format_radius, sorted(dropped)))}"
        findings.append(_no_longer_measured("", said, rules))
    if added := other - one:
        notes.append(f"Radii of HEAD alone, not compared: {', '.join(map(format_radius, sorted(added)))}.")
    return tuple(sorted(one & other)), findings, notes


def _no_longer_measured(entry: str, said: str, rules: Rules) -> Finding:
    if rules.allow_missing:
        return Finding(Kind.STATE, entry, Outcome.PASS, f"{said}, which is allowed")
    why = "what is no longer measured cannot pass. Update the baseline, or allow it (--allow-missing)"
    return Finding(Kind.STATE, entry, Outcome.INCONCLUSIVE, f"{said}: {why}")


def _state(base: Entry, head: Entry) -> list[Finding]:
    """Whether HEAD has as much to show for an entry as BASE had."""
    if head.status != "complete":
        outcome = Outcome.INCONCLUSIVE if head.status == "incomplete" else Outcome.REGRESSION
        return [Finding(Kind.STATE, head.name, outcome, f"complete before, now {head.status}: {head.reason}")]
    found = []
    before, now = (int((entry.rows["verdict"] == "TIMEOUT").sum()) for entry in (base, head))
    if now > before:
        said = f"{now} images ran out of time, {before} before: run it on an idle machine"
        found.append(Finding(Kind.STATE, head.name, Outcome.INCONCLUSIVE, said))
    was, is_now = (entry.conformance is not None and entry.conformance.verified for entry in (base, head))
    if was and not is_now and not (head.conformance and head.conformance.failed):
        said = "its certifier was checked to L2 before and is not now. Run without --no-check"
        found.append(Finding(Kind.STATE, head.name, Outcome.INCONCLUSIVE, said))
    return found


def _incomparable(base: Entry, head: Entry) -> str:
    for field, words in _MUST_AGREE.items():
        if getattr(base, field) != getattr(head, field):
            return f"another {words} ({getattr(base, field)} and {getattr(head, field)})"
    one, other = (entry.rows.set_index("image_id")["label"].sort_index() for entry in (base, head))
    if not one.index.equals(other.index):
        shared = len(one.index.intersection(other.index))
        return f"other images ({len(one)} in BASE, {len(other)} in HEAD, {shared} in both)"
    # The digest tells pixels apart that have one number and one label.
    same = base.images_digest == head.images_digest and one.equals(other)
    return "" if same else "images of the same numbers that have other pixels or labels"


def _without(entry: Entry, false: dict[int, float]) -> Entry:
    """An entry of which some certificates are taken away."""
    if not false:
        return entry
    told = entry.rows["image_id"].isin(list(false))
    rows = entry.rows.assign(
        verdict=entry.rows["verdict"].mask(told, "FALSIFIED"), radius=entry.rows["radius"].mask(told, 0.0)
    )
    return replace(entry, rows=rows)


def _weaker(base: Entry, head: Entry) -> list[Finding]:
    """Certificates that promise less than before, however many there are of them: a proof, or a smaller alpha."""
    claims = [entry.rows[entry.rows["verdict"] == "CERTIFIED"] for entry in (base, head)]
    if not all(map(len, claims)):
        return []
    one, other = (float(rows["failure_probability"].max()) for rows in claims)
    if other > one:
        was = "proofs" if base.guarantee == "deterministic" else f"of alpha {one:g}"
        said = f"its certificates were {was} and are of alpha {other:g}: they promise less. Update the baseline"
        return [Finding(Kind.STATE, head.name, Outcome.INCONCLUSIVE, said)]
    if other < one:
        return [Finding(Kind.STATE, head.name, Outcome.PASS, f"alpha was {one:g} and is {other:g}: they promise more")]
    return []


def _seconds(base: Entry, head: Entry) -> str:
    one, other = (float(entry.rows["seconds"].mean()) for entry in (base, head))
    ratio = f", {other / one:.2f} times" if one > 0 else ""
    return f"{head.name}: {quantity(one)} s an image before, {quantity(other)} now{ratio} (shown only: not one job)."
