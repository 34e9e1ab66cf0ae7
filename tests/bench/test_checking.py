"""`certbench check`: outcomes, exit codes, streams."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from bench import checking
from certifiers.conformance import Check, Level, kit
from certifiers.conformance.kit import VERSION, NotApplicable, Subject, Violation

Certbench = Callable[..., Result]
MUTANTS = "tests.certifiers.conformance.mutants"


def test_a_certifier_that_passes(certbench: Certbench) -> None:
    found = certbench("check", "closed-form", "--level", "L1", "--quick")
    assert found.exit_code == 0, found.stdout
    lines = found.stdout.splitlines()
    assert re.search(r"│ linear-two-classes +│ L1 +│ passed +│ +3 │ +\d+\.\d\d │", found.stdout)
    assert re.search(r"│ linear-batch-norm +│ L1 +│ not applicable │ +│", found.stdout)
    assert any(line.startswith("not applicable: keyed-randomness: its guarantee is deterministic") for line in lines)
    # A reason is said once, for all checks that have it.
    assert len([line for line in lines if "the layer ReLU is not linear" in line]) == 1
    assert any(line.startswith("not applicable: linear-hidden-direction, linear-repeated-layer, ") for line in lines)
    assert lines[-1] == f"level reached: L1 of L1 asked (quick); seed 7, kit version {VERSION}"
    assert "check closed-form" in found.stderr


def test_a_certifier_that_fails_says_how_to_see_it_again(certbench: Certbench) -> None:
    found = certbench("check", f"{MUTANTS}:RunnerUpOnly", "--level", "L1", "--quick", "--seed", 3)
    assert found.exit_code == 1
    start = found.stdout.index("L1 linear-lowest-logit: failed: ")
    shown = found.stdout[start:]
    assert "property: No certificate of a linear model (lowest logit)" in shown
    assert "counterexample: x = [" in shown
    replay = shown[shown.index("replay:\n") :].splitlines()[1:4]
    assert replay[0] == "    from certifiers import conformance"
    with pytest.raises(AssertionError, match="the lowest logit is the nearest"):
        exec("\n".join(line.strip() for line in replay), {})  # noqa: S102
    *_, failed, level = found.stdout.splitlines()
    assert re.fullmatch(r"(\d+) of \d+ checks failed: .*linear-lowest-logit.*", failed)
    assert level == f"level reached: L0 of L1 asked (quick); seed 3, kit version {VERSION}"


def test_a_failure_that_many_checks_meet_is_shown_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, certbench: Certbench
) -> None:
    (tmp_path / "always_raises.py").write_text(
        "from dataclasses import dataclass\n"
        "from certifiers import Norm, RadiusCertifier\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Raises(RadiusCertifier):\n"
        "    norms = frozenset({Norm.L2})\n"
        "    def radii(self, classifier, x, threat, rng):\n"
        "        raise RuntimeError('as it always does')\n"
    )
    monkeypatch.chdir(tmp_path)
    found = certbench("check", "always_raises:Raises", "--level", "L0", "--quick")
    assert found.exit_code == 1
    assert found.stdout.count("Traceback (most recent call last)") == 1
    again = re.findall(r"^L0 \S+: failed as (\S+) did$", found.stdout, flags=re.MULTILINE)
    assert len(again) > 5
    assert len(set(again)) == 1
    assert f"L0 {again[0]}: failed: RuntimeError: as it always does" in found.stdout


def test_as_data(certbench: Certbench) -> None:
    found = certbench("check", "smoothing", "--level", "0", "--quick", "--json", "--set", "sigma=0.5", "--set", "n=500")
    assert found.exit_code == 0
    data = json.loads(found.stdout)
    assert data["certifier"]["parameters"]["sigma"] == 0.5
    assert data["certifier"]["parameters"]["n"] == 500
    assert (data["level"], data["asked"], data["seed"], data["kit_version"]) == ("L0", "L0", 7, VERSION)
    assert {row["level"] for row in data["checks"]} == {"L0"}
    assert all(row["status"] in ("passed", "not applicable") for row in data["checks"])
    assert sum(row["judged"] for row in data["checks"]) > 50


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["corwn"], "Unknown certifier 'corwn'. Did you mean 'crown'?"),
        (["crown", "--level", "L9"], "Unknown level 'L9'. Allowed: L0, L1, L2, L3, L4."),
        (["smoothing", "--set", "sigma"], "--set takes name=value, got 'sigma'. Write --set sigma=0.5."),
        (
            ["smoothing", "--set", "sgima=1"],
            "Unknown parameter 'sgima' of certifier 'smoothing'. Did you mean 'sigma'?",
        ),
        (["smoothing", "--set", "sigma=-1.0"], "sigma = -1.0 is not allowed"),
        (["no_such_module:Class"], "No module named 'no_such_module'"),
        (["certifiers:Norm"], "must name a class derived from Certifier as module:Class"),
    ],
)
def test_bad_usage(certbench: Certbench, words: list[str], said: str) -> None:
    found = certbench("check", *words)
    assert found.exit_code == 2
    assert said in found.stderr
    assert found.stdout == ""


def test_nothing_measured_has_its_own_code(certbench: Certbench, monkeypatch: pytest.MonkeyPatch) -> None:
    def holds(subject: Subject) -> int:
        raise NotApplicable("not this one")

    monkeypatch.setattr(kit, "_checks", {"own": Check("own", Level.L0, holds)})
    found = certbench("check", "closed-form")
    assert found.exit_code == 4
    assert "not applicable: own: not this one" in found.stdout
    assert "level reached: none of L2 asked" in found.stdout
    assert "Nothing was measured" in found.stderr


def test_equal_words_about_other_inputs_are_two_failures(certbench: Certbench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(counterexample: str) -> Callable[[Subject], int]:
        def holds(subject: Subject) -> int:
            """It holds."""
            raise Violation("2 of 3 certificates are false", counterexample)

        return holds

    inputs = {"one": "x = [1]", "two": "x = [2]", "three": "x = [1]"}
    found = {name: Check(name, Level.L0, broken(words)) for name, words in inputs.items()}
    monkeypatch.setattr(kit, "_checks", found)
    shown = certbench("check", "closed-form").stdout
    assert (shown.count("counterexample: x = [1]"), shown.count("counterexample: x = [2]")) == (1, 1)
    assert "L0 three: failed as one did" in shown
    assert "3 of 3 checks failed: one, two, three" in shown


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("x=1", 1),
        ("x=0.5", 0.5),
        ("x=true", True),
        ('x=["a", "b"]', ["a", "b"]),
        ("x=highs", "highs"),
        ("x=1_000", 1000),
    ],
)
def test_values_are_written_as_in_a_spec(written: str, value: Any) -> None:
    assert checking.parameters_of([written]) == {"x": value}


def test_a_class_in_the_current_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, certbench: Certbench
) -> None:
    (tmp_path / "lonely_certifier.py").write_text("from certifiers.exact import ClosedForm as Lonely\n")
    monkeypatch.chdir(tmp_path)
    found = certbench("check", "lonely_certifier:Lonely", "--level", "L0", "--quick")
    assert found.exit_code == 0, found.stdout
