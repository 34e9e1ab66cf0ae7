"""`certbench baseline`: makes a run the one that later runs are held against, and writes down why and what changed."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.endings import CHECK_FAILED, NOTHING_MEASURED, UNFINISHED, USAGE, stop

if TYPE_CHECKING:
    from leaderboards import Run

_SECTION = "### Baselines"


def baseline(
    stored: Annotated[str, typer.Argument(metavar="RUN", help="A run: its name, its folder or its run.json.")],
    to: Annotated[Path, typer.Option(help="Folder of the baseline; replaced.")],
    reason: Annotated[str, typer.Option(help="Why numbers may change; goes into the changelog.")],
    output: Annotated[Path, typer.Option(help="Folder of the store, for names of runs.")] = Path("results"),
    changelog: Annotated[Path, typer.Option(help="Where reason and difference are written.")] = Path("CHANGELOG.md"),
) -> None:
    """Make a run the baseline of `certbench compare`, and write the reason and the difference into the changelog.

    Copies the run, its rows (a file an entry) and the checks of its certifiers. A run with a soundness alarm, or with
    an entry that failed or is not finished, never becomes a baseline.

    Examples:

        certbench baseline results/regress --to leaderboards/published/ci --reason "smoothing 2 counts ties"
    """
    from bench.baseline_copy import copy_baseline
    from bench.compare_command import compared
    from bench.store import StoreError
    from leaderboards import StoredDataError, read_run
    from leaderboards.gate import Rules, find_run

    if not reason.strip():
        stop(USAGE, 'A baseline needs a reason: --reason "why the numbers may change".')
    if not changelog.is_file():
        stop(USAGE, f"No changelog at {changelog}. Name it with --changelog, or create it with a heading.")
    try:
        manifest = find_run(stored, output)
        run = read_run(manifest)
        before = _previous(to)
    except (FileNotFoundError, StoredDataError) as error:
        stop(USAGE, error)
    # Against itself: what is left are the soundness alarms, which no reason explains away.
    report = compared(str(manifest), str(manifest), output, Rules())
    if report.alarms:
        stop(CHECK_FAILED, report.headline)
    if bad := [entry for entry in run.entries if entry.status in ("failed", "incomplete")]:
        stop(UNFINISHED, f"{bad[0].name} is {bad[0].status}: {bad[0].reason}. Run the spec to its end first.")
    if not any(entry.status == "complete" for entry in run.entries):
        stop(NOTHING_MEASURED, "Nothing was measured: no entry of the run is complete.")
    try:
        copy_baseline(manifest, run, to)
        lines = [f"- `{run.name}`, {datetime.now(UTC).date().isoformat()}: {' '.join(reason.split())}"]
        lines += [f"  - {line}" for line in differences(before, run)]
        text = changelog.read_text(encoding="utf-8")
        changelog.write_text(with_entry(text, "\n".join(lines)), encoding="utf-8")
    except ValueError as error:
        stop(USAGE, error)
    except (StoreError, StoredDataError) as error:
        stop(UNFINISHED, f"{error} The baseline is as it was.")
    except OSError as error:
        stop(UNFINISHED, f"Cannot write {error.filename}: {error.strerror}. Make the folder writable.")
    for line in lines:
        typer.echo(line)
    typer.echo(f"Written: {to}, {changelog}")


def differences(before: "Run | None", after: "Run") -> list[str]:
    """What changed between two runs, a line an entry that did: mean certified accuracy over the radii, and counters."""
    from fractions import Fraction

    from leaderboards import score
    from leaderboards.gate.costs import COUNTERS
    from leaderboards.numerals import percent
    from leaderboards.radii import parse_radius

    if before is None:
        return [f"new: {len(after.entries)} entries"]
    ours, theirs = ({entry.name: entry for entry in run.entries} for run in (before, after))
    lines = [f"{name}: removed" for name in ours if name not in theirs]
    same = 0
    for name, entry in theirs.items():
        old = ours.get(name)
        if old is None:
            lines.append(f"{name}: added")
        elif old.status != entry.status:
            lines.append(f"{name}: was {old.status}, is {entry.status}")
        elif old.rows.drop(columns="seconds").equals(entry.rows.drop(columns="seconds")):
            same += 1
        else:
            radii: list[list[Fraction]] = [[parse_radius(radius) for radius in run.radii] for run in (before, after)]
            means = [score(item.rows, at).mean_certified_accuracy for item, at in zip((old, entry), radii, strict=True)]
            said = f"mean certified accuracy {percent(means[0])} % -> {percent(means[1])} %"
            for counter in COUNTERS:
                was, is_now = int(old.rows[counter].sum()), int(entry.rows[counter].sum())
                said += f", {counter.replace('_', ' ')} {was:,} -> {is_now:,}" if was != is_now else ""
            lines.append(f"{name}: {said}")
    return [*lines, f"{same} entries with the same rows"]


def with_entry(changelog: str, entry: str) -> str:
    """A changelog with a line more under "Baselines" of its unreleased part, which is made where it is missing."""
    unreleased = re.search(r"^## \[Unreleased\].*$", changelog, re.MULTILINE | re.IGNORECASE)
    if unreleased is None:
        return f"{changelog.rstrip()}\n\n## [Unreleased]\n\n{_SECTION}\n\n{entry}\n"
    following = re.search(r"^## ", changelog[unreleased.end() :], re.MULTILINE)
    end = unreleased.end() + following.start() if following else len(changelog)
    part, rest = changelog[unreleased.end() : end], changelog[end:]
    heading = re.search(rf"^{_SECTION}\n\n", part, re.MULTILINE)
    if heading:  # the newest first
        part = f"{part[: heading.end()]}{entry}\n{part[heading.end() :]}"
    else:
        part = f"{part.rstrip()}\n\n{_SECTION}\n\n{entry}\n" + ("\n" if rest else "")
    return changelog[: unreleased.end()] + part + rest


def _previous(folder: Path) -> "Run | None":
    """The baseline that is replaced; None where there is none, or none that can be read."""
    from leaderboards import StoredDataError, read_run
    from leaderboards.gate import find_run

    try:
        return read_run(find_run(folder, folder))
    except (FileNotFoundError, StoredDataError):
        return None
