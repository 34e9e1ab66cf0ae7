"""What a gate says: findings, each of one kind, and the outcome that follows from all of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """How a comparison, or one finding of it, ended."""

    PASS = "pass"  # noqa: S105
    REGRESSION = "regression"
    INCONCLUSIVE = "inconclusive"
    NOTHING = "nothing measured"

    @property
    def exit_code(self) -> int:
        """0 pass, 1 regression, 3 inconclusive, 4 nothing measured."""
        return {Outcome.PASS: 0, Outcome.REGRESSION: 1, Outcome.INCONCLUSIVE: 3, Outcome.NOTHING: 4}[self]


class Kind(StrEnum):
    """What a finding is about, the gravest first."""

    SOUNDNESS = "soundness"
    DETERMINISM = "determinism"
    STATE = "state"
    CERTIFICATES = "certificates"
    LOSS = "loss"
    COST = "cost"


#: Kinds that compare rows of both runs: without any of these nothing was measured.
COMPARING = (Kind.DETERMINISM, Kind.CERTIFICATES, Kind.LOSS)


@dataclass(frozen=True)
class Rules:
    """What the gate tolerates.

    Attributes:
        margin: the loss of certified accuracy, as a share, beyond which a significant one is a regression.
        false_alarms: the probability with which a change that changes nothing may be called a regression, over all
            tests of one comparison.
        uncertainty: of the one-sided bound that must stay within `margin` for a pass, at each radius.
        cost: relative growth of a counter of passes beyond which there is a regression.
        allow_missing: whether entries and radii of BASE that HEAD lacks are only told.

    Raises:
        ValueError: one of them is out of its range.
    """

    margin: float = 0.01
    false_alarms: float = 0.01
    uncertainty: float = 0.05
    cost: float = 0.02
    allow_missing: bool = False

    def __post_init__(self) -> None:
        for name, least, most in (("margin", 0, 1), ("false_alarms", 0, 0.5), ("uncertainty", 0, 0.5)):
            value = getattr(self, name)
            if not least <= value < most or (name != "margin" and value == 0):
                raise ValueError(f"{name} must be at least {least} and below {most}, got {value}.")
        if not self.cost >= 0:
            raise ValueError(f"cost must be at least 0, got {self.cost}.")


@dataclass(frozen=True)
class Finding:
    """One thing that was judged, of one entry.

    Attributes:
        kind: what it is about.
        entry: the name of the entry; empty for the run as a whole.
        outcome: PASS, REGRESSION or INCONCLUSIVE.
        said: one sentence, with figures.
        about: what of the entry: a radius, a counter; empty for all of it.
        numbers: the figures, for programs.
    """

    kind: Kind
    entry: str
    outcome: Outcome
    said: str
    about: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """A whole comparison: its findings, the gravest first, and `notes` that decide nothing."""

    base: str
    head: str
    rules: Rules
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    @property
    def alarms(self) -> tuple[Finding, ...]:
        """The soundness alarms."""
        return tuple(
            item for item in self.findings if item.kind is Kind.SOUNDNESS and item.outcome is Outcome.REGRESSION
        )

    def of(self, outcome: Outcome) -> tuple[Finding, ...]:
        """The findings with that outcome."""
        return tuple(item for item in self.findings if item.outcome is outcome)

    @property
    def outcome(self) -> Outcome:
        """A regression counts most, then that nothing was measured, then that something stayed open."""
        if self.of(Outcome.REGRESSION):
            return Outcome.REGRESSION
        if not any(item.kind in COMPARING for item in self.findings):
            return Outcome.NOTHING
        return Outcome.INCONCLUSIVE if self.of(Outcome.INCONCLUSIVE) else Outcome.PASS

    @property
    def headline(self) -> str:
        """One sentence; soundness alarms first."""
        if self.alarms:
            what = "1 soundness alarm" if len(self.alarms) == 1 else f"{len(self.alarms)} soundness alarms"
            return f"UNSOUND: {what} in {self.head}. {self.alarms[0].entry}: {self.alarms[0].said}"
        counts = {outcome: len(self.of(outcome)) for outcome in Outcome}
        return {
            Outcome.PASS: f"PASS: {counts[Outcome.PASS]} checks, nothing lost beyond the margin.",
            Outcome.REGRESSION: f"REGRESSION: {counts[Outcome.REGRESSION]} of {len(self.findings)} checks failed.",
            Outcome.INCONCLUSIVE: f"INCONCLUSIVE: {counts[Outcome.INCONCLUSIVE]} of {len(self.findings)} are open.",
            Outcome.NOTHING: "NOTHING MEASURED: the two runs have no entry that could be compared.",
        }[self.outcome]
