import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench import conformance
from bench.cli import app
from bench.plan import Plan
from bench.store import Store
from certifiers import create
from certifiers.conformance import kit
from certifiers.conformance.kit import Check, Level, NotApplicable, Subject, Violation
from leaderboards import read_run
from leaderboards.badges import read_badges
from tests.bench.conftest import PLAIN

Judged = Callable[[Subject], int]


def passes(subject: Subject) -> int:
    """Holds of all."""
    return 3


def fails(subject: Subject) -> int:
    """Holds of none."""
    raise Violation("it is broken", "this input", ("print(1)",))


def concerns_nobody(subject: Subject) -> int:
    raise NotApplicable("not of this kind")


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Replace the kit's checks by one each level, and list which of them are run."""

    def install(*properties: Judged) -> list[str]:
        ran: list[str] = []

        def noted(name: str, holds: Judged) -> Judged:
            return lambda subject: ran.append(name) or holds(subject)  # type: ignore[func-returns-value]

        named = {f"check {level}": (Level(level), holds) for level, holds in enumerate(properties)}
        monkeypatch.setattr(
            kit, "_checks", {name: Check(name, level, noted(name, holds)) for name, (level, holds) in named.items()}
        )
        return ran

    return install


def test_each_distinct_certifier_is_checked_once_and_stored(
    checked: Callable[..., list[str]], plan_of: Callable[..., Plan], store: Store, reporter: Any
) -> None:
    ran = checked(passes, passes, passes, fails)
    plan = plan_of()
    assert len(plan.cells) == 3  # of one certifier
    badges = conformance.check_certifiers(plan, store, reporter)
    assert ran == ["check 0", "check 1", "check 2"]  # up to L2
    said = {name: str(badge) for name, badge in badges.items()}
    assert said == {"smoothing": f"L2 quick · kit {kit.VERSION} · seed 7"}
    assert reporter.tasks == [("check smoothing at L2", 3)]
    assert reporter.notes == [f"smoothing: L2 quick · kit {kit.VERSION} · seed 7"]
    (path,) = (store.root / "conformance").iterdir()
    document = json.loads(path.read_text())
    assert document["certifier"] == json.loads(json.dumps(plan.cells[0].certifier.describe()))
    assert [item["status"] for item in document["checks"]] == ["passed"] * 3
    # Again: nothing is run, nothing is said.
    assert conformance.check_certifiers(plan, store, reporter) == badges
    assert (len(ran), len(reporter.notes)) == (3, 1)


def test_a_failure_is_told_and_looked_at_again(
    checked: Callable[..., list[str]], plan_of: Callable[..., Plan], store: Store, reporter: Any
) -> None:
    ran = checked(passes, fails, concerns_nobody)
    badge = conformance.check_certifiers(plan_of(), store, reporter)["smoothing"]
    assert (badge.failed, badge.level, badge.verified) == (("L1: check 1",), 0, False)
    assert reporter.warnings == ["smoothing failed L1: check 1: it is broken"]
    conformance.check_certifiers(plan_of(), store, reporter)
    assert ran == ["check 0", "check 1", "check 2"] * 2
    repaired = checked(passes, passes, passes)
    assert conformance.check_certifiers(plan_of(), store, reporter)["smoothing"].verified
    assert len(repaired) == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda subject: replace(subject, seed=8),
        lambda subject: replace(subject, quick=False),
        lambda subject: replace(subject, certifier=create("smoothing", sigma=0.5)),
    ],
    ids=["seed", "quick", "parameters"],
)
def test_what_decides_a_check_is_its_key(change: Callable[[Subject], Subject], store: Store) -> None:
    subject = Subject(create("smoothing", sigma=0.25), seed=7, quick=True)
    assert conformance.path_of(store, change(subject)) != conformance.path_of(store, subject)
    batched = replace(subject, certifier=create("smoothing", sigma=0.25, batch_size=7))
    assert conformance.path_of(store, batched) == conformance.path_of(store, subject)


def test_another_version_of_certifier_or_kit_is_checked_anew(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject(create("smoothing", sigma=0.25), quick=True)
    results = [kit.run(Check(f"c{level}", Level(level), passes), subject) for level in range(3)]
    conformance.record(store, subject, Level.L2, results)
    assert conformance.stored(store, subject, Level.L2) is not None
    assert conformance.stored(store, subject, Level.L3) is None  # it was not asked so much
    monkeypatch.setattr(kit, "VERSION", kit.VERSION + 1)
    assert conformance.stored(store, subject, Level.L2) is None
    monkeypatch.undo()
    monkeypatch.setattr(type(subject.certifier), "version", 99)
    assert conformance.stored(store, subject, Level.L2) is None


def test_changed_code_is_checked_again_and_a_plug_in_is_warned_of(
    checked: Callable[..., list[str]],
    plan_of: Callable[..., Plan],
    store: Store,
    reporter: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran, plan = checked(passes, passes, passes), plan_of()

    def run() -> int:
        """As a run does: before rows are computed, and after."""
        conformance.forget_other_code(plan, store, reporter)
        kept = len(read_badges(store.root / "conformance"))
        conformance.check_certifiers(plan, store, reporter)
        return kept

    assert run() == 0
    first = len(ran)
    assert (run(), len(ran)) == (1, first)
    for number, name in enumerate(("shared_source", "libraries"), start=2):
        monkeypatch.setattr(conformance, name, lambda: "another")
        # With --no-check, or where the check is interrupted, no board shows the check of other code.
        assert (run(), len(ran)) == (0, number * first)
    assert reporter.warnings == [], "certbench raises its versions itself"
    monkeypatch.setattr(conformance, "own_source", lambda certifier: "another plug-in")
    assert (run(), len(ran)) == (0, 4 * first)
    assert "its code has changed since version 1 was checked" in reporter.warnings[0]
    assert "raise `version`" in reporter.warnings[0]
    assert len(reporter.warnings) == 1


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"document": 1}', b"\xff\xfe"], ids=str)
def test_a_damaged_file_is_no_check(damage: bytes, store: Store) -> None:
    subject = Subject(create("smoothing", sigma=0.25), quick=True)
    conformance.record(store, subject, Level.L0, [kit.run(Check("c", Level.L0, passes), subject)])
    path = conformance.path_of(store, subject)
    path.write_bytes(damage)
    assert conformance.stored(store, subject, Level.L0) is None
    assert read_badges(path.parent) == ()


def test_a_run_checks_and_its_board_shows_it(
    checked: Callable[..., list[str]], copied: Path, tiny: str, tmp_path: Path, certbench: Callable[..., Any]
) -> None:
    (tmp_path / "tiny.toml").write_text(tiny)
    words = ["run", str(tmp_path / "tiny.toml"), "--output", str(copied)]
    rows = {path.name for path in copied.glob("cells/*/rows-*")}

    def run(*more: str) -> Any:
        return CliRunner(env=PLAIN | {"CERTBENCH_NO_CHECK": None}).invoke(app, [*words, *more])

    checked(passes, passes, passes)
    first = run()
    assert first.exit_code == 0, first.stderr
    assert f"smoothing: L2 quick · kit {kit.VERSION} · seed 7" in first.stderr
    assert f"L2 quick · kit {kit.VERSION} · seed 7" in first.stdout
    assert "Unverified" not in first.stdout
    assert {str(entry.conformance) for entry in read_run(copied / "runs/tiny/run.json").entries} == {
        f"L2 quick · kit {kit.VERSION} · seed 7"
    }
    assert "Unverified" not in certbench("board", "tiny", "--output", copied).stdout

    shutil.rmtree(copied / "conformance")
    ran = checked(passes, fails, passes)
    unchecked = run("--no-check")
    assert (unchecked.exit_code, ran) == (0, [])
    assert "not checked" in unchecked.stdout
    failed = run()
    assert failed.exit_code == 1
    assert (
        "error: Certifiers failed the conformance kit, and their rows are shown apart: smoothing: failed L1"
        in failed.stderr
    )
    assert "Unverified" in failed.stdout
    assert {path.name for path in copied.glob("cells/*/rows-*")} == rows
    assert "failed L1: check 1" in (copied / "boards/tiny/board.md").read_text(encoding="utf-8")
