"""Soundness alarms come first and end in a regression, whatever else is true."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from certifiers.smoothing import FixedSamples, IntegerSmoothing, SmoothingL1
from leaderboards.audits import Audit
from leaderboards.badges import Badge
from leaderboards.gate import Kind, Measured, Outcome, compare
from leaderboards.gate.findings import Report
from leaderboards.published import read_published
from leaderboards.records import Entry
from tests.leaderboards.gate.conftest import CELLS

PUBLISHED = Path(__file__).parents[3] / "leaderboards" / "published"

MakeProof = Callable[..., Entry]
MakeRun = Callable[..., Measured]


def alarmed(report: Report, words: str) -> None:
    assert report.outcome is Outcome.REGRESSION
    assert report.outcome.exit_code == 1
    assert [words in item.said for item in report.alarms] == [True], report.alarms
    assert report.headline.startswith("UNSOUND: 1 soundness alarm in head")
    assert report.findings[0] is report.alarms[0]


def test_without_an_alarm_every_entry_is_said_to_be_sound(measured: MakeRun, proof: MakeProof) -> None:
    report = compare(measured(proof()), measured(proof(), name="head"))
    assert (report.outcome, report.alarms) == (Outcome.PASS, ())
    assert [item.said for item in report.findings if item.kind is Kind.SOUNDNESS] == [
        "nothing speaks against its 3 certificates"
    ]


def test_a_refuted_certificate(measured: MakeRun, proof: MakeProof) -> None:
    head = proof(audit=Audit(certificates=3, audited=3, refuted=1, enclosed=2, tightness=0.5))
    alarmed(compare(measured(proof()), measured(head, name="head")), "UNSOUND: 1 of 3 audited certificates refuted")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"radius": [math.nan, 0.7, 0.2, 0]}, "image 0: a radius that is not a number at least 0"),
        ({"radius": [math.inf, 0.7, 0.2, 0]}, "a radius that is not a number at least 0"),
        ({"radius": [1, 0.7, 0.2, 0.1]}, "image 30: a radius without a certificate"),
        (
            {"verdict": ["SAFE", "CERTIFIED", "CERTIFIED", "ABSTAINED"], "radius": [0, 1, 1, 0]},
            "its verdict is none of",
        ),
        ({"image_id": [0, 0, 20, 30]}, "image 0: an image has two rows"),
        ({"prediction": [-1, 1, 1, -1]}, "a certificate without a class"),
        ({"failure_probability": [0.1, 0, 0, 0]}, "a proof with a failure probability"),
        ({"failure_probability": [0, 0, 0, math.nan]}, "a failure probability that is not in [0, 1)"),
        ({"clean_prediction": [-1, 1, 1, 1]}, "CERTIFIED, but the classifier itself has no finite answer"),
        ({"clean_prediction": [2, 1, 1, 1]}, "proved for a class that the classifier does not answer"),
    ],
)
def test_rows_that_cannot_be(measured: MakeRun, proof: MakeProof, columns: dict[str, Any], words: str) -> None:
    # Only in HEAD: nothing else is compared, and it is an alarm all the same.
    report = compare(measured(proof()), measured(proof(), proof(name="new", columns=columns), name="head"))
    alarmed(report, words)
    assert report.alarms[0].entry == "new"


def test_an_error_of_nan_that_became_a_certificate(measured: MakeRun, proof: MakeProof) -> None:
    broken = {"verdict": "ERROR", "radius": 0.0, "prediction": -1, "clean_prediction": -1}
    base = proof(columns=broken, status="failed")
    head = proof(columns={"clean_prediction": -1})
    alarmed(compare(measured(base), measured(head, name="head")), "3 images (0, 10, 20): CERTIFIED, but the classifier")


def test_a_certifier_that_fails_the_kit(measured: MakeRun, proof: MakeProof) -> None:
    badge = Badge(certifier={}, level=0, kit=1, seed=7, failed=("L1: linear-two-classes",))
    report = compare(measured(proof()), measured(proof(conformance=badge), name="head"))
    alarmed(report, "its certifier fails the conformance kit: failed L1: linear-two-classes")


def test_a_proof_beyond_an_input_that_another_entry_found(measured: MakeRun, proof: MakeProof) -> None:
    cascade = proof(name="cascade", key="c" * 64, columns={"evidence_refuted_radius": [math.inf, 0.5, math.inf, 0.1]})
    report = compare(measured(proof()), measured(proof(), cascade, name="head"))
    # Both certify 0.7 for the image whose answer changes at 0.5.
    assert [item.entry for item in report.alarms] == ["a", "cascade"]
    assert "image 10: certified beyond an input that is answered otherwise, at distance 0.5" in report.alarms[0].said
    # Other weights are another classifier.
    other = replace(cascade, details={**CELLS, "weights": ["v" * 64]}, rows=proof((None,) * 4).rows)
    assert not compare(measured(proof()), measured(proof(), other, name="head")).alarms


def test_what_one_certifier_falsifies_no_other_proves(measured: MakeRun, proof: MakeProof) -> None:
    """The radii asked for go up to 1: an image that is FALSIFIED is answered otherwise within 1."""
    verdicts = {"verdict": ["FALSIFIED"] * 2 + ["CERTIFIED", "ABSTAINED"], "radius": [0, 0, 0.2, 0]}
    base = measured(proof(), proof(name="b", key="b" * 64, columns=verdicts | {"prediction": [-1, -1, 1, -1]}))
    report = compare(base, measured(proof(), name="head"))
    # It proves 1.0 for the first image, and 0.7 for the second, where the input may be farther away.
    assert [(item.entry, "image 0: certified beyond" in item.said) for item in report.alarms] == [("a", True)]


def test_a_proof_that_an_audit_of_the_other_run_refutes(measured: MakeRun, proof: MakeProof) -> None:
    audit = pd.DataFrame({"image_id": [0, 10], "prediction": [1, 1], "attack_radius": [0.9, 5.0]})
    base = measured(proof(), audits={"k" * 64: audit})
    head = measured(proof(key="new"), name="head")
    alarmed(compare(base, head), "image 0: certified beyond an input that is answered otherwise, at distance 0.9")
    # To certify it no longer is right, and no loss.
    honest = measured(proof((0.8, 0.7, 0.2, None), key="new"), name="head")
    report = compare(base, honest)
    assert report.outcome is Outcome.PASS
    assert any("1 certificates of BASE are known to be false" in note for note in report.notes)


@pytest.mark.parametrize(("factor", "alarms"), [(1.0, 0), (1.001, 1), (1.5, 1)])
def test_a_radius_beyond_its_votes(
    measured: MakeRun, smoothed: Callable[..., Entry], factor: float, alarms: int
) -> None:
    entry = smoothed([10_000, 9_000, 6_000, 100])
    larger = smoothed(entry.rows.assign(radius=entry.rows["radius"] * [1, factor, 1, 1]))
    report = compare(measured(entry), measured(larger, name="head"))
    found = [item for item in report.alarms if "image 1: a radius beyond what its samples and alpha allow" in item.said]
    assert len(found) == alarms


@pytest.mark.parametrize(
    "certifier",
    [
        SmoothingL1(sigma=0.5, n=10_000, noise_kind="uniform"),
        SmoothingL1(sigma=0.5, n=10_000, noise_kind="laplace"),
        IntegerSmoothing(sigma=0.5, n=10_000),
    ],
    ids=["uniform", "laplace", "integer"],
)
@pytest.mark.parametrize(("factor", "alarms"), [(1.0, 0), (1.001, 1)])
def test_a_radius_beyond_the_votes_under_other_noise(
    measured: MakeRun, smoothed: Callable[..., Entry], certifier: FixedSamples, factor: float, alarms: int
) -> None:
    votes = [10_000, 9_000, 6_000, 5_200]
    radii = np.array([certifier.certificate_of_counts(won)[1] for won in votes])
    noise = {f"evidence_{name}": value for name, value in certifier.more_evidence().items()}
    rows = smoothed(votes).rows.assign(radius=radii * [1, 1, factor, 1], **noise)
    entry = smoothed(rows, certifier=certifier.name)
    report = compare(measured(entry), measured(entry, name="head"))
    found = [item for item in report.alarms if "image 2: a radius beyond what its samples and alpha allow" in item.said]
    assert (len(found), len(report.alarms)) == (alarms, alarms)


@pytest.mark.parametrize("lacking", ["n", "n_A", "sigma"])
def test_a_radius_that_follows_from_nothing(measured: MakeRun, smoothed: Callable[..., Entry], lacking: str) -> None:
    entry = smoothed(smoothed([10_000, 9_000]).rows.drop(columns=f"evidence_{lacking}"))
    words = f"its radii cannot be computed again: the evidence lacks {lacking}"
    alarmed(compare(measured(entry), measured(entry, name="head")), words)


def test_what_others_published_is_no_alarm(measured: MakeRun, smoothed: Callable[..., Entry]) -> None:
    """A log has no answer of the classifier itself, and no evidence."""
    rows = smoothed([10_000, 9_000]).rows.drop(columns=["evidence_n", "evidence_n_A", "evidence_sigma"])
    entry = smoothed(rows.assign(clean_prediction=-1), source="Somebody, 2020")
    assert not compare(measured(entry), measured(entry, name="head")).alarms


def test_of_unknown_noise_no_radius_is_allowed(measured: MakeRun, smoothed: Callable[..., Entry]) -> None:
    entry = smoothed(smoothed([10_000, 9_000]).rows.assign(evidence_noise="other"), certifier="smoothing-l1")
    alarmed(compare(measured(entry), measured(entry, name="head")), "2 images (0, 1): a radius beyond what its samples")


def test_a_radius_beyond_all_votes_of_adaptive_smoothing(measured: MakeRun, smoothed: Callable[..., Entry]) -> None:
    rows = smoothed([10_000, 9_000]).rows.drop(columns="evidence_n_A").assign(evidence_samples=[10_000, 100])
    # 100 samples allow 0.5 Phi^-1(0.001^(1/100)) = 0.75, and 9000 of 10000 votes gave 0.62.
    fine = smoothed(rows, certifier="smoothing-adaptive")
    assert not compare(measured(fine), measured(fine, name="head")).alarms
    broken = smoothed(rows.assign(radius=[1.0, 0.8]), certifier="smoothing-adaptive")
    alarmed(compare(measured(broken), measured(broken, name="head")), "image 1: a radius beyond what its samples")


def test_what_a_spec_calls_a_certifier_hides_nothing() -> None:
    """`[certifiers.fixed] method = "smoothing"`: its votes are counted again all the same."""
    run = read_published(PUBLISHED / "adaptive-smoothing").run
    entry = next(entry for entry in run.entries if entry.details["labels"]["certifier"] == "fixed")
    assert entry.certifier == "smoothing"
    assert not compare(Measured(run), Measured(run)).alarms
    larger = replace(entry, rows=entry.rows.assign(radius=entry.rows["radius"] * 1.001))
    report = compare(Measured(run), Measured(replace(run, entries=(larger,))))
    assert [item.entry for item in report.alarms] == [entry.name]
    assert "a radius beyond what its samples and alpha allow" in report.alarms[0].said
