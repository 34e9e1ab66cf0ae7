"""What is compared and how: keys, proofs, paired tests, counters, states; exit codes of each."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from leaderboards.badges import Badge
from leaderboards.gate import Kind, Measured, Outcome, Rules, compare
from leaderboards.gate.findings import Finding, Report
from leaderboards.records import Entry
from tests.leaderboards.gate.conftest import CELLS

MakeEntry = Callable[..., Entry]
MakeRun = Callable[..., Measured]


def only(report: Report, kind: Kind, about: str = "") -> Finding:
    (found,) = (item for item in report.findings if item.kind is kind and item.about == about)
    return found


def votes(images: int = 400, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(5_000, 10_001, images)


# ---- one key


def test_rows_of_one_key_are_equal(measured: MakeRun, smoothed: MakeEntry) -> None:
    entry = smoothed(votes())
    slower = replace(entry, rows=entry.rows.assign(seconds=9.0).iloc[::-1].reset_index(drop=True))
    report = compare(measured(entry), measured(slower, name="head"))
    assert report.outcome is Outcome.PASS
    assert only(report, Kind.DETERMINISM).said == "400 rows of one key are equal in all 12 columns"
    assert any("0.1 s an image before, 9 now, 90.00 times (shown only: not one job)" in note for note in report.notes)


@pytest.mark.parametrize("column", ["radius", "evidence_n_A", "forward_passes", "reason"])
def test_any_difference_under_one_key_is_a_regression(measured: MakeRun, smoothed: MakeEntry, column: str) -> None:
    entry = smoothed(votes())
    values = entry.rows[column].tolist()
    at = int(np.argmax(entry.rows["radius"]))
    values[at] = "other" if column == "reason" else values[at] * (1 - 1e-15) - (column != "radius")
    report = compare(measured(entry), measured(smoothed(entry.rows.assign(**{column: values})), name="head"))
    assert report.outcome is Outcome.REGRESSION
    found = only(report, Kind.DETERMINISM)
    assert f"one key, two results: 1 of 400 rows differ, in {column}; the first image is {at}" in found.said
    dropped = smoothed(entry.rows.drop(columns="evidence_n"))
    assert "in evidence_n" in only(compare(measured(entry), measured(dropped)), Kind.DETERMINISM).said


def test_time_and_audits_are_no_difference(measured: MakeRun, proof: MakeEntry) -> None:
    late = proof(columns={"verdict": ["TIMEOUT", "CERTIFIED", "CERTIFIED", "ABSTAINED"], "radius": [0, 0.7, 0.2, 0]})
    report = compare(measured(proof()), measured(late, name="head"))
    assert only(report, Kind.DETERMINISM).outcome is Outcome.INCONCLUSIVE
    assert report.outcome is Outcome.INCONCLUSIVE
    assert "1 images ran out of time, 0 before" in only(report, Kind.STATE).said
    assert compare(measured(late), measured(proof(), name="head")).outcome is Outcome.PASS
    audited = {"verdict": "FALSIFIED", "radius": 0.0, "prediction": -1, "reason": "refuted by an audit at 0.5"}
    rows = proof().rows
    told = rows.assign(**{name: [value, *rows[name][1:]] for name, value in audited.items()})
    refuted = compare(measured(replace(proof(), rows=told)), measured(proof()))
    assert only(refuted, Kind.DETERMINISM).outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("radii", "outcome", "words"),
    [
        ((1.0, 0.7, 0.2, None), Outcome.PASS, "3 rows of one key are equal in all 10 columns, and in 1 time ran out"),
        ((1.5, 0.8, 0.3, None), Outcome.PASS, "1 rows of one key are equal in all 10 columns, and in 3 time ran out"),
        ((1.0, 0.1, 0.2, None), Outcome.INCONCLUSIVE, "1 of these certify less: run it on an idle machine"),
    ],
)
def test_a_proof_lost_to_a_time_limit_is_inconclusive(
    measured: MakeRun, proof: MakeEntry, radii: tuple[float | None, ...], outcome: Outcome, words: str
) -> None:
    """A mixed-integer program proves a radius and runs out of time at a larger one: CERTIFIED all the same."""
    late = proof(radii, columns={"evidence_timeout": [1, 1, 1, 0]})
    report = compare(measured(proof(columns={"evidence_timeout": [1, 0, 1, 0]})), measured(late, name="head"))
    found = only(report, Kind.DETERMINISM)
    assert (found.outcome, report.outcome) == (outcome, outcome)
    assert words in found.said


def test_stages_with_a_time_limit_may_differ_and_no_others(measured: MakeRun, proof: MakeEntry) -> None:
    stages = [{"name": "crown", "parameters": {}}, {"name": "milp", "parameters": {"time_limit": 10.0}}]
    details = {**CELLS, "certifier": {"name": "cascade", "stages": stages}}

    def staged(closed: list[str], radii: tuple[float | None, ...] = (1.0, 0.7, 0.2, None)) -> Measured:
        return measured(proof(radii, columns={"evidence_stage": closed}, details=details))

    base = staged(["crown", "milp", "crown", "open"])
    assert compare(base, staged(["crown", "open", "crown", "milp"])).outcome is Outcome.PASS
    slow = staged(["crown", "open", "crown", "open"], (1.0, 0.5, 0.2, None))
    assert compare(base, slow).outcome is Outcome.INCONCLUSIVE
    assert (
        compare(base, staged(["crown", "milp", "crown", "open"], (0.9, 0.7, 0.2, None))).outcome is Outcome.REGRESSION
    )


@pytest.mark.parametrize(
    "elsewhere",
    [{"threads": 2}, {"batch_size": 7}, {"processor": "b"}, {"versions": {"torch": "3", "auto-LiRPA": "1"}}],
)
def test_other_threads_or_libraries_make_last_bits_differ(
    measured: MakeRun, proof: MakeEntry, elsewhere: dict[str, Any]
) -> None:
    made: dict[str, Any] = {"processor": "a", "threads": 1, "versions": {"torch": "2", "auto-LiRPA": "1"}}
    radii = [1.0] * 400
    base, last_bit = proof(radii, provenance=made), [math.nextafter(1.0, 2), *radii[1:]]
    assert compare(measured(base), measured(proof(last_bit, provenance=made))).outcome is Outcome.REGRESSION
    report = compare(measured(base), measured(proof(last_bit, provenance=made | elsewhere), name="head"))
    assert report.outcome is Outcome.PASS
    assert any("other libraries, threads or batches, so rows are held to tests" in note for note in report.notes)
    # What an older run did not write down is not known to differ.
    older = proof(last_bit, provenance=made | {"versions": {"torch": "2"}})
    assert compare(measured(base), measured(older)).outcome is Outcome.REGRESSION


# ---- proofs of one classifier


@pytest.mark.parametrize(
    ("radii", "outcome", "words"),
    [
        ((1.0, 0.7, 0.2, None), Outcome.PASS, "all 3 certificates kept, 0 more"),
        ((1.0, 0.7 * (1 - 1e-12), 0.2, 0.1), Outcome.PASS, "all 3 certificates kept, 1 more"),
        ((1.0, 0.7 * (1 - 1e-8), 0.2, None), Outcome.REGRESSION, "0 of 3 certificates lost and 1 with a lower radius"),
        ((1.0, 0.7, None, None), Outcome.REGRESSION, "1 of 3 certificates lost and 0 with a lower radius"),
    ],
)
def test_proofs_are_kept_image_by_image(
    measured: MakeRun, proof: MakeEntry, radii: tuple[float | None, ...], outcome: Outcome, words: str
) -> None:
    report = compare(measured(proof()), measured(proof(radii, key="other"), name="head"))
    found = only(report, Kind.CERTIFICATES)
    assert (found.outcome, report.outcome) == (outcome, outcome)
    assert words in found.said


def test_a_radius_of_the_board_that_is_just_missed_is_lost(measured: MakeRun, proof: MakeEntry) -> None:
    """A certifier that is asked 1/2 proves 1/2; an ulp below, the board shows nothing there."""
    head = proof([math.nextafter(0.5, 0)] * 4, key="other")
    report = compare(measured(proof([0.5] * 4)), measured(head, name="head"))
    assert report.outcome is Outcome.REGRESSION
    assert "0 of 4 certificates lost and 4 with a lower radius" in only(report, Kind.CERTIFICATES).said


def test_a_proof_for_another_class_keeps_nothing(measured: MakeRun, proof: MakeEntry) -> None:
    head = proof(key="other", columns={"prediction": 2, "clean_prediction": 2})
    report = compare(measured(proof()), measured(head, name="head"))
    assert report.outcome is Outcome.REGRESSION
    assert "3 of 3 certificates lost" in only(report, Kind.CERTIFICATES).said


def test_proofs_of_other_or_unknown_weights_are_tested_instead(measured: MakeRun, proof: MakeEntry) -> None:
    radii = [1.0] * 400
    for details in ({**CELLS, "weights": ["v" * 64]}, {}):
        head = proof([0.9, *radii[1:]], key="other", details=details)
        report = compare(measured(proof(radii)), measured(head, name="head"))
        assert [item.kind for item in report.findings if item.kind in (Kind.CERTIFICATES, Kind.LOSS)] == [Kind.LOSS] * 3
        assert report.outcome is Outcome.INCONCLUSIVE or report.outcome is Outcome.PASS
        assert any("proofs are compared by paired tests" in note for note in report.notes)


# ---- losses


def test_a_loss_beyond_the_margin_and_chance_is_a_regression(measured: MakeRun, smoothed: MakeEntry) -> None:
    before = votes()
    after = np.where(np.arange(400) < 40, 0, before)
    report = compare(measured(smoothed(before)), measured(smoothed(after, key="other"), name="head"))
    assert report.outcome is Outcome.REGRESSION
    found = only(report, Kind.LOSS, "r = 0")
    assert found.outcome is Outcome.REGRESSION
    assert found.numbers["gained"] == 0
    assert 35 <= found.numbers["lost"] <= 40
    # The same the other way round is a gain.
    assert compare(measured(smoothed(after)), measured(smoothed(before, key="other"))).outcome is Outcome.PASS


def test_a_significant_loss_within_the_margin_passes_if_a_larger_one_is_excluded(
    measured: MakeRun, smoothed: MakeEntry
) -> None:
    before = np.full(4000, 9_999)
    after = np.where(np.arange(4000) < 20, 0, before)
    runs = measured(smoothed(before)), measured(smoothed(after, key="other"), name="head")
    report = compare(*runs)
    found = only(report, Kind.LOSS, "r = 0.5")
    assert found.numbers["p_holm"] < 1e-4
    assert (found.outcome, report.outcome) == (Outcome.PASS, Outcome.PASS)
    assert compare(*runs, Rules(margin=0.004)).outcome is Outcome.REGRESSION
    assert compare(*runs, Rules(margin=0.006)).outcome is Outcome.INCONCLUSIVE


def test_too_few_images_are_inconclusive_and_say_how_many_it_takes(measured: MakeRun, smoothed: MakeEntry) -> None:
    runs = measured(smoothed(votes(100))), measured(smoothed(votes(100), key="other"), name="head")
    report = compare(*runs)
    assert (report.outcome, report.outcome.exit_code) == (Outcome.INCONCLUSIVE, 3)
    assert "beyond 1 points is neither shown nor excluded" in only(report, Kind.LOSS, "r = 0").said
    (advice,) = (note for note in report.notes if "it takes" in note)
    assert advice == ("On 100 images no loss beyond 1 points can be excluded: it takes 268 images, or a wider margin.")
    assert compare(*runs, Rules(margin=0.05)).outcome is Outcome.PASS
    enough = measured(smoothed(votes(268))), measured(smoothed(votes(268), key="other"))
    assert compare(*enough).outcome is Outcome.PASS
    fewer = measured(smoothed(votes(267))), measured(smoothed(votes(267), key="other"))
    assert compare(*fewer).outcome is Outcome.INCONCLUSIVE


def test_certificates_that_promise_less_do_not_pass(measured: MakeRun, smoothed: MakeEntry, proof: MakeEntry) -> None:
    entry = smoothed(votes())
    eager = smoothed(entry.rows.assign(failure_probability=0.01), key="other")
    report = compare(measured(entry), measured(eager))
    assert report.outcome is Outcome.INCONCLUSIVE
    assert "of alpha 0.001 and are of alpha 0.01: they promise less" in only(report, Kind.STATE).said
    assert "they promise more" in only(compare(measured(eager), measured(entry)), Kind.STATE).said
    proofs = proof(entry.rows["radius"].tolist(), key="other")
    proofs = replace(proofs, rows=entry.rows.assign(failure_probability=0.0, prediction=1, verdict="CERTIFIED"))
    fell = compare(measured(proofs), measured(entry, name="head"))
    assert fell.outcome is not Outcome.PASS
    assert "its certificates were proofs and are of alpha 0.001" in only(fell, Kind.STATE).said


def test_a_gain_on_every_image_passes(measured: MakeRun, proof: MakeEntry) -> None:
    """37 of 37 gained: rounding put a discriminant below 0."""
    details = {**CELLS, "weights": ["v" * 64]}
    report = compare(measured(proof([0.2] * 37)), measured(proof([1.2] * 37, key="other", details=details)))
    assert [item.numbers["gained"] for item in report.findings if item.kind is Kind.LOSS] == [0, 37, 37]


# ---- costs


def test_counters_may_grow_by_two_per_cent(measured: MakeRun, proof: MakeEntry) -> None:
    def with_passes(passes: Any, **changes: Any) -> Measured:
        return measured(proof([1.0] * 300, columns={"bound_passes": passes}, **changes))

    base = with_passes(1000)
    for passes, outcome in ((1020, Outcome.PASS), (1021, Outcome.REGRESSION), (10, Outcome.PASS)):
        report = compare(base, with_passes(passes, key="other"))
        found = only(report, Kind.COST, "bound passes")
        assert (found.outcome, report.outcome) == (outcome, outcome)
        assert only(report, Kind.COST, "forward passes").said == "30,000 before, 30,000 now: +0.0 %"
    # On other weights counters move by chance: few images that got dearer prove nothing, all of them do.
    other = {"key": "other", "details": {**CELLS, "weights": ["v" * 64]}}
    some = compare(base, with_passes(np.where(np.arange(300) < 4, 5000, 1000), **other))
    assert only(some, Kind.COST, "bound passes").outcome is Outcome.PASS
    assert "not told from chance" in only(some, Kind.COST, "bound passes").said
    # More images got cheaper than dearer, but those that got dearer did so tenfold.
    skewed = compare(base, with_passes(np.where(np.arange(300) < 120, 10_000, 999), **other))
    assert only(skewed, Kind.COST, "bound passes").outcome is Outcome.REGRESSION
    every = compare(base, with_passes(1021, **other))
    assert only(every, Kind.COST, "bound passes").outcome is Outcome.REGRESSION
    started = compare(with_passes(0), with_passes(1, key="other"))
    assert math.isinf(only(started, Kind.COST, "bound passes").numbers["ratio"])
    assert started.outcome is Outcome.REGRESSION


# ---- what is there


def test_entries_of_one_run_alone(measured: MakeRun, proof: MakeEntry) -> None:
    both, gone, new = proof(), proof(name="gone"), proof(name="new")
    report = compare(measured(both, gone), measured(both, new, name="head"))
    assert report.outcome is Outcome.INCONCLUSIVE
    assert only(report, Kind.STATE).entry == "gone"
    assert "in BASE alone: what is no longer measured cannot pass" in only(report, Kind.STATE).said
    assert "Only in HEAD: new." in report.notes
    allowed = compare(measured(both, gone), measured(both, new), Rules(allow_missing=True))
    assert allowed.outcome is Outcome.PASS


def test_nothing_in_common_is_nothing_measured(measured: MakeRun, proof: MakeEntry) -> None:
    report = compare(measured(proof()), measured(proof(name="b"), name="head"), Rules(allow_missing=True))
    assert (report.outcome, report.outcome.exit_code) == (Outcome.NOTHING, 4)
    assert report.headline.startswith("NOTHING MEASURED")
    assert compare(measured(), measured()).outcome is Outcome.NOTHING
    radii = compare(measured(proof()), measured(proof(key="o", details={}), name="head", radii=("2",)))
    assert radii.outcome is Outcome.NOTHING
    assert "Radii of HEAD alone, not compared: 2." in radii.notes


def test_radii_that_are_no_longer_asked_do_not_pass(measured: MakeRun, smoothed: MakeEntry) -> None:
    """Nothing is lost at r = 0, and everything at .5 and 1, which HEAD leaves out."""
    before, after = smoothed(np.full(400, 10_000)), smoothed(np.full(400, 6_000), key="other")
    assert compare(measured(before), measured(after)).outcome is Outcome.REGRESSION
    head = measured(after, name="head", radii=("0",))
    report = compare(measured(before), head)
    assert report.outcome is Outcome.INCONCLUSIVE
    said = "radii that HEAD was not asked, and are not compared: 0.5, 1: what is no longer measured cannot pass"
    assert said in only(report, Kind.STATE).said
    assert compare(measured(before), head, Rules(allow_missing=True)).outcome is Outcome.PASS
    assert compare(head, measured(after)).outcome is Outcome.PASS


@pytest.mark.parametrize("radius", [math.inf, math.nan, -1.0])
def test_rows_that_cannot_be_scored_are_told_and_not_compared(
    measured: MakeRun, proof: MakeEntry, radius: float
) -> None:
    broken = proof(columns={"radius": [radius, 0.7, 0.2, 0]}, key="other")
    report = compare(measured(proof()), measured(broken, name="head"))
    assert report.headline.startswith("UNSOUND: 1 soundness alarm in head")
    assert any("a: not compared: its rows are not what the schema says" in note for note in report.notes)
    back = compare(measured(broken, proof(name="b")), measured(proof(), proof(name="b"), name="head"))
    assert back.outcome is Outcome.INCONCLUSIVE
    assert "rows of BASE are not what the schema says (image 0: a radius" in only(back, Kind.STATE).said


@pytest.mark.parametrize(
    ("status", "outcome"),
    [("failed", Outcome.REGRESSION), ("unsupported", Outcome.REGRESSION), ("incomplete", Outcome.INCONCLUSIVE)],
)
def test_what_is_no_longer_complete(measured: MakeRun, proof: MakeEntry, status: str, outcome: Outcome) -> None:
    other = proof(name="b")
    head = measured(proof(status=status, reason="why"), other, name="head")
    report = compare(measured(proof(), other), head)
    assert report.outcome is outcome
    assert only(report, Kind.STATE).said == f"complete before, now {status}: why"
    back = compare(head, measured(proof(), other))
    assert back.outcome is Outcome.PASS
    assert any(f"not compared, being {status} in BASE (why)" in note for note in back.notes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dataset": "mnist"}, "another data set (digits and mnist)"),
        ({"split": "validation"}, "another split"),
        ({"norm": "linf"}, "another norm"),
        ({"images_digest": "xyz"}, "images of the same numbers that have other pixels or labels"),
        ({"columns": {"label": 2}}, "images of the same numbers that have other pixels or labels"),
        ({"radii": (1.0, 0.7, 0.2)}, "other images (4 in BASE, 3 in HEAD, 3 in both)"),
    ],
)
def test_what_cannot_be_compared(measured: MakeRun, proof: MakeEntry, change: dict[str, Any], words: str) -> None:
    other = proof(name="b")
    report = compare(measured(proof(), other), measured(proof(**change), other, name="head"))
    assert report.outcome is Outcome.INCONCLUSIVE
    assert words in only(report, Kind.STATE).said


def test_a_certifier_that_is_no_longer_checked(measured: MakeRun, proof: MakeEntry) -> None:
    badge = Badge(certifier={}, level=2, kit=1, seed=7)
    report = compare(measured(proof(conformance=badge)), measured(proof(), name="head"))
    assert report.outcome is Outcome.INCONCLUSIVE
    assert "checked to L2 before and is not now" in only(report, Kind.STATE).said


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"margin": -0.1}, "margin must be at least 0 and below 1, got -0.1"),
        ({"false_alarms": 0.0}, "false_alarms must be at least 0 and below 0.5, got 0.0"),
        ({"cost": math.nan}, "cost must be at least 0, got nan"),
    ],
)
def test_rules_out_of_range_are_refused(rule: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Rules(**rule)
