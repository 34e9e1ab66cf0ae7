"""The kit catches every broken certifier, by the check that was made for it, and passes what it was made from."""

from pathlib import Path
from typing import Any

import pytest

from certifiers import conformance
from certifiers.conformance import Level, Status, Subject
from tests.certifiers.conformance.mutants import CAUGHT_BY, HONEST

ROOT = Path(__file__).resolve().parents[3]


def outcome(certifier: type[Any], check: str) -> conformance.Result:
    return conformance.run(conformance.named(check), Subject(certifier(), quick=True))


@pytest.mark.parametrize("mutant", CAUGHT_BY, ids=lambda mutant: mutant.__name__)
def test_it_is_caught(mutant: type[Any]) -> None:
    found = outcome(mutant, CAUGHT_BY[mutant])
    assert found.status is Status.FAILED, found
    assert found.replay
    assert "Traceback" not in found.counterexample, found


@pytest.mark.parametrize("mutant", CAUGHT_BY, ids=lambda mutant: mutant.__name__)
def test_what_it_was_made_from_is_not(mutant: type[Any]) -> None:
    parent = mutant.__base__
    if parent in HONEST:
        found = outcome(parent, CAUGHT_BY[mutant])
        assert found.status in (Status.PASSED, Status.NOT_APPLICABLE), found


@pytest.mark.parametrize("honest", HONEST, ids=lambda honest: honest.__name__)
def test_the_honest_ones_reach_the_level(honest: type[Any]) -> None:
    found = conformance.examine(Subject(honest(), quick=True), Level.L2)
    assert [str(result) for result in found.failures] == []
    assert found.level is Level.L2


def test_contributing_lists_them_all() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    missing = [f"| `{mutant.__name__}` | " for mutant in CAUGHT_BY if f"| `{mutant.__name__}` | " not in text]
    assert missing == []
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    listed = {line.split("`")[1]: line.split("`")[-2] for line in rows}
    for mutant, check in CAUGHT_BY.items():
        assert listed[mutant.__name__] == check
