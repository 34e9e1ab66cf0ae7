"""A board: comparable entries of one image set, scored and ranked."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import nan

import pandas as pd

from leaderboards.audits import audit_cells
from leaderboards.badges import badge_text, ranked_apart
from leaderboards.claims import wrong_claim
from leaderboards.metrics import Share
from leaderboards.radii import format_radius, parse_radius
from leaderboards.records import STATUSES, VERDICTS, Entry, Run
from leaderboards.scores import Scores, score

#: The one rule by which boards are ranked, shown on each of them.
RANKING = (
    "Ranked by the mean of the certified accuracies over the radii shown; equal means share a rank. "
    "The average certified radius is shown but not ranked by."
)

_MUST_AGREE = {
    "schema": "schema version",
    "dataset": "data set",
    "split": "split",
    "norm": "norm",
    "images_digest": "image set",
    "images": "number of images",
}


class BoardError(ValueError):
    """These entries do not belong on one board, or an entry is not what it claims."""


@dataclass(frozen=True)
class Line:
    """One entry on a board.

    `scores` are None unless it is complete; `rank` too, and where an audit found it unsound.
    """

    entry: Entry
    rank: int | None
    scores: Scores | None


@dataclass(frozen=True)
class Board:
    """Entries of one image set: the ranked ones by rank, then those without numbers in their given order.

    `radii` ascend and are exact, in input units of `norm`; `ranking` is the rule of the ranks, in words.
    """

    name: str
    title: str
    description: str
    dataset: str
    split: str
    images: int
    images_digest: str
    norm: str
    schema: int
    radii: tuple[Fraction, ...]
    spec_text: str
    lines: tuple[Line, ...]
    ranking: str = RANKING

    @property
    def ranked(self) -> tuple[Line, ...]:
        """The lines that have numbers, best first; those without a rank, being unsound, come last."""
        return tuple(line for line in self.lines if line.scores is not None)

    @property
    def unranked(self) -> tuple[Line, ...]:
        """The lines without numbers."""
        return tuple(line for line in self.lines if line.scores is None)

    @property
    def audited(self) -> bool:
        """Whether any certificate on the board was audited."""
        return any(line.entry.audit for line in self.lines)

    @property
    def diagnosed(self) -> dict[str, Entry]:
        """An entry of each ensemble that has diagnostics, by the ensemble's name, best first."""
        found: dict[str, Entry] = {}
        for line in self.lines:
            if line.entry.diagnostics:
                found.setdefault(line.entry.ensemble, line.entry)
        return found

    def table(self) -> pd.DataFrame:
        """One row an entry, in the order of the board.

        Shares are in [0, 1], unrounded, with the ends of their intervals; `certified@8/255` and its `low@`,
        `high@` are one radius. Entries without numbers have NaN, their status and their reason.
        """
        frame = pd.DataFrame([self._cells(line) for line in self.lines])
        return frame.astype({"rank": "Int64", "errors": "Int64"})

    def _cells(self, line: Line) -> dict[str, object]:
        entry, scores = line.entry, line.scores
        cells: dict[str, object] = {"rank": line.rank, "entry": entry.name, "ensemble": entry.ensemble}
        cells |= {"aggregation": entry.aggregation, "certifier": entry.certifier, "guarantee": entry.guarantee}
        cells["mean_certified_accuracy"] = scores.mean_certified_accuracy if scores else nan
        for position, radius in enumerate(self.radii):
            at = format_radius(radius)
            share = scores.certified[position] if scores else None
            cells |= dict(zip((f"certified@{at}", f"low@{at}", f"high@{at}"), _ends(share), strict=True))
        clean = _ends(scores.clean if scores else None)
        cells |= dict(zip(("clean_accuracy", "clean_low", "clean_high"), clean, strict=True))
        cells["average_certified_radius"] = scores.average_radius if scores else nan
        cells["median_certified_radius"] = scores.median_radius if scores else nan
        cells["abstention_rate"] = scores.abstention.value if scores else nan
        cells["forward_passes_per_image"] = scores.forward_passes if scores else nan
        cells["bound_passes_per_image"] = scores.bound_passes if scores else nan
        cells["seconds_per_image"] = scores.seconds if scores else nan
        cells["expected_false_certificates"] = scores.expected_false_certificates if scores else nan
        cells |= {f"diagnostic_{name}": value for name, value in entry.diagnostics.items()}
        cells |= audit_cells(entry.audit) if self.audited else {}
        cells["errors"] = int((entry.rows["verdict"] == "ERROR").sum())
        return cells | {
            "images": entry.images,
            "status": entry.status,
            "reason": entry.reason,
            "warnings": "; ".join(entry.warnings),
            "conformance": badge_text(entry),
            "key": entry.key,
        }


def build_board(run: Run) -> Board:
    """The board of one run.

    Raises:
        BoardError: as `board_of`.
    """
    return board_of(
        run.entries,
        run.radii,
        name=run.name,
        title=run.title,
        description=run.description,
        spec_text=run.spec_text,
    )


def board_of(
    entries: Iterable[Entry],
    radii: Iterable[str | float | Fraction],
    *,
    name: str = "board",
    title: str = "",
    description: str = "",
    spec_text: str = "",
) -> Board:
    """Entries of any runs on one board, scored at `radii` and ranked by `RANKING`.

    Raises:
        BoardError: no entries or radii; entries of different data sets, splits, image sets, norms or schemas;
            two of one name; a radius that is not a number at least 0; or rows that are not what their entry claims.
    """
    given = tuple(entries)
    exact = _distinct(radii)
    _check_comparable(given)
    for entry in given:
        _check_rows(entry)
    _check_same_labels(given)
    scored = [(entry, _score(entry, exact)) for entry in given if entry.status == "complete"]
    # Whole numbers of successes make equal means exactly equal.
    totals = [sum(share.successes for share in scores.certified) for _, scores in scored]
    # What was caught with a false certificate is shown, but no rank is its due.
    unsound = [entry.audit is not None and entry.audit.unsound for entry, _ in scored]
    sound = [total for total, caught in zip(totals, unsound, strict=True) if not caught]
    order = sorted(range(len(scored)), key=lambda index: (unsound[index], -totals[index]))
    ranks = [None if unsound[i] else 1 + sum(total > totals[i] for total in sound) for i in order]
    ranked = [Line(scored[i][0], rank, scored[i][1]) for i, rank in zip(order, ranks, strict=True)]
    without = [Line(entry, None, None) for entry in given if entry.status != "complete"]
    return Board(
        name=name,
        title=title or name,
        description=description,
        dataset=given[0].dataset,
        split=given[0].split,
        images=given[0].images,
        images_digest=given[0].images_digest,
        norm=given[0].norm,
        schema=given[0].schema,
        radii=exact,
        spec_text=spec_text,
        lines=(*ranked_apart(ranked), *without),
    )


def _score(entry: Entry, radii: Sequence[Fraction]) -> Scores:
    try:
        return score(entry.rows, radii)
    except ValueError as error:
        raise BoardError(f"Entry {entry.name!r}: {error}") from error


def _ends(share: Share | None) -> tuple[float, float, float]:
    return (nan, nan, nan) if share is None else (share.value, *share.interval)


def _distinct(radii: Iterable[str | float | Fraction]) -> tuple[Fraction, ...]:
    written = list(radii)
    try:
        exact = [parse_radius(radius) for radius in written]
    except ValueError as error:
        raise BoardError(str(error)) from None
    if not exact:
        raise BoardError("The board has no radii. Name at least one in the spec, such as radii = [0, 0.25].")
    first: dict[Fraction, object] = {}
    for text, radius in zip(written, exact, strict=True):
        if radius in first:
            raise BoardError(f"Radii {first[radius]!r} and {text!r} are the same number. Remove one of them.")
        first[radius] = text
    return tuple(sorted(exact))


def _check_comparable(entries: Sequence[Entry]) -> None:
    if not entries:
        raise BoardError("The board has no entries. Run a spec first: certbench run SPEC.")
    for name, count in Counter(entry.name for entry in entries).items():
        if count > 1:
            raise BoardError(f"{count} entries are named {name!r}. Give each its own name in the spec.")
    first = entries[0]
    for entry in entries[1:]:
        for field, words in _MUST_AGREE.items():
            ours, theirs = getattr(first, field), getattr(entry, field)
            if ours != theirs:
                raise BoardError(
                    f"Entries {first.name!r} and {entry.name!r} differ in their {words}: "
                    f"{ours!r} and {theirs!r}. Their numbers are not comparable: put them on separate "
                    "boards, or run both with the same spec."
                )


def _check_rows(entry: Entry) -> None:
    if entry.status not in STATUSES:
        raise BoardError(f"Entry {entry.name!r} has status {entry.status!r}; allowed: {', '.join(STATUSES)}.")
    found = len(entry.rows)
    if found > entry.images or (entry.status == "complete" and (found < entry.images or not found)):
        raise BoardError(
            f"Entry {entry.name!r} is {entry.status} for {entry.images} images but has {found} rows. "
            "Run its spec again."
        )
    if entry.rows["image_id"].duplicated().any():
        raise BoardError(f"Entry {entry.name!r} has two rows of one image. Run its spec again.")
    strange = sorted(set(entry.rows["verdict"]) - set(VERDICTS))
    if strange:
        raise BoardError(f"Entry {entry.name!r} has verdict {strange[0]!r}; allowed: {', '.join(VERDICTS)}.")
    errors = int((entry.rows["verdict"] == "ERROR").sum())
    if entry.status == "complete" and errors:
        raise BoardError(f"Entry {entry.name!r} is complete but {errors} of its rows are ERROR. Run its spec again.")
    if entry.status == "complete" and (wrong := wrong_claim(entry)):
        raise BoardError(wrong)


def _check_same_labels(entries: Sequence[Entry]) -> None:
    complete = [entry for entry in entries if entry.status == "complete"]
    if not complete:
        return
    first = complete[0].rows.set_index("image_id")["label"].sort_index()
    for entry in complete[1:]:
        if not first.equals(entry.rows.set_index("image_id")["label"].sort_index()):
            raise BoardError(
                f"Entries {complete[0].name!r} and {entry.name!r} hold other images or labels, although "
                "their image sets have one digest. Run both again."
            )
