"""Badges: how hard a row's certifier was checked, by which kit, and with what seed; rows below L2 are shown apart.

The results of a check are plain data, `conformance/<digest>.json` beside the runs, as `certbench run` writes them.
What cannot be read counts as not checked.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leaderboards.board import Board, Line
    from leaderboards.records import Entry

#: Raised whenever a field of a stored check changes its meaning.
DOCUMENT_VERSION = 1

#: The level from which on a row is verified: contract, truth and planted counterexamples.
VERIFIED = 2

NOT_CHECKED = "not checked"

#: What stands above the rows that are shown apart.
UNVERIFIED = "Unverified"

#: What stands above rows that were read from published logs, and instead of their badge.
PUBLISHED = "Published, not verified here"

_HIGHEST = 4
_HARMLESS = ("passed", "not applicable")

#: What fails as its certifier declares, with a reason: it caps the level, and is no surprise.
_EXPECTED = "expected failure"


@dataclass(frozen=True, kw_only=True)
class Badge:
    """What one certifier, with its parameters, came to under the conformance kit.

    Attributes:
        certifier: name, version and parameters, as in the entries of a run.
        level: the highest level such that it, and each below, has no failure and judged something; -1: not even L0.
        kit: the version of the kit.
        seed: of the cases.
        quick: fewer and smaller cases of the same properties.
        failed: the checks that did not pass, as `L1: name`, in the order of their levels.
    """

    certifier: Mapping[str, Any]
    level: int
    kit: int
    seed: int
    quick: bool = False
    failed: tuple[str, ...] = ()

    @property
    def verified(self) -> bool:
        """Whether a row of this certifier stands among the ranked: L2 or more, and nothing failed."""
        return self.level >= VERIFIED and not self.failed

    def __str__(self) -> str:
        """`L2 · kit 1 · seed 7`, `L2 quick · kit 1 · seed 7`, or `failed L1: name · kit 1 · seed 7`."""
        if self.failed:
            head = f"failed {self.failed[0]}"
        elif self.level < 0:
            head = "no level reached"
        else:
            head = f"L{self.level} quick" if self.quick else f"L{self.level}"
        return f"{head} · kit {self.kit} · seed {self.seed}"


def badge_of(document: Mapping[str, Any]) -> Badge:
    """The badge of a stored check. Its level is derived from the checks, not read.

    Raises:
        ValueError: it is not such a document.
    """
    try:
        if document["document"] != "certbench-conformance" or document["document_version"] != DOCUMENT_VERSION:
            raise ValueError(f"not a check of version {DOCUMENT_VERSION}: {document['document']!r}")
        checks = sorted(
            (int(item["level"].removeprefix("L")), str(item["name"]), str(item["status"]), int(item["measured"]))
            for item in document["checks"]
        )
        return Badge(
            certifier=dict(document["certifier"]),
            level=_reached([(level, status, measured) for level, _, status, measured in checks]),
            kit=int(document["kit"]),
            seed=int(document["seed"]),
            quick=bool(document["quick"]),
            failed=tuple(
                f"L{level}: {name}" for level, name, status, _ in checks if status not in (*_HARMLESS, _EXPECTED)
            ),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not the description of a check ({error!r})") from error


def _reached(checks: Sequence[tuple[int, str, int]]) -> int:
    reached = -1
    for level in range(_HIGHEST + 1):
        own = [(status, measured) for at, status, measured in checks if at == level]
        if any(status not in _HARMLESS for status, _ in own) or not any(measured > 0 for _, measured in own):
            break
        reached = level
    return reached


def read_badges(folder: Path) -> tuple[Badge, ...]:
    """The badges of all checks stored in a folder; files that cannot be read are passed over."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(badge_of(json.loads(path.read_text(encoding="utf-8"))))
        except (ValueError, OSError):
            continue  # not checked, then
    return tuple(found)


def badge_for(certifier: Any, badges: Iterable[Badge]) -> Badge | None:
    """The badge to show of a certifier, described by name, version and parameters: of the newest kit.

    Where several checks of one kit disagree, a failure counts more than any level, and then the higher level.
    """
    own = [badge for badge in badges if badge.certifier == certifier]
    return max(own, key=lambda badge: (badge.kit, bool(badge.failed), badge.level, not badge.quick), default=None)


def badge_text(entry: "Entry") -> str:
    """The badge of an entry in words."""
    if entry.imported:
        return PUBLISHED.lower()
    return NOT_CHECKED if entry.conformance is None else str(entry.conformance)


def is_verified(entry: "Entry") -> bool:
    """Whether an entry was computed here, by a certifier that was checked to L2 and failed nothing."""
    return not entry.imported and entry.conformance is not None and entry.conformance.verified


def _standing(entry: "Entry") -> int:
    """Which group of a board an entry is ranked in: 0 verified, 1 unverified, 2 published."""
    return 2 if entry.imported else 0 if is_verified(entry) else 1


def ranked_apart(lines: Sequence["Line"]) -> tuple["Line", ...]:
    """Lines with numbers: the verified ones, the unverified, the published; each group has ranks of its own."""
    found: list[Line] = []
    for standing in range(3):
        group = [line for line in lines if _standing(line.entry) == standing]
        totals = [_successes(line) for line in group if line.rank is not None]
        for line in group:
            rank = None if line.rank is None else 1 + sum(total > _successes(line) for total in totals)
            found.append(replace(line, rank=rank))
    return tuple(found)


def _successes(line: "Line") -> int:
    return sum(share.successes for share in line.scores.certified) if line.scores else 0


@dataclass(frozen=True)
class Group:
    """Rows of a board under one heading; that of verified rows is empty. `first` counts from 0 in `board.lines`."""

    heading: str
    note: str
    lines: tuple["Line", ...]
    first: int


def groups(board: "Board") -> tuple[Group, ...]:
    """The verified rows of a board, and those shown apart: unverified, published. One without rows is left out."""
    headings = ("", UNVERIFIED, PUBLISHED)
    notes = (
        "",
        f"No check of these certifiers reached L{VERIFIED}, or one found a failure. Their certificates are as stored; "
        "nothing here says that they are true. What fails is said by certbench check.",
        "Read from logs that others published: nothing here has computed, checked or attacked these certificates, and "
        "they are ranked among themselves alone. Where their radii are printed in few digits, half a unit of the last "
        "digit is subtracted, so that rounding up never certifies.",
    )
    found: list[Group] = []
    for standing, (heading, note) in enumerate(zip(headings, notes, strict=True)):
        lines = tuple(line for line in board.ranked if _standing(line.entry) == standing)
        if lines:
            found.append(Group(heading, note, lines, sum(len(group.lines) for group in found)))
    return tuple(found)


def leading(board: "Board") -> tuple["Line", ...]:
    """The ranked lines that may be ordered together: the verified ones; the unverified where there are none.

    Published logs are never among them, nor are lines without a rank.
    """
    own = [group.lines for group in groups(board) if group.heading != PUBLISHED]
    return tuple(line for line in own[0] if line.rank is not None) if own else ()
