"""`certbench compare`: the regression gate between two runs, told to people, to programs and to CI systems."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from bench.endings import USAGE, stdout, stop, tell

if TYPE_CHECKING:
    from leaderboards.gate import Report, Rules

_STYLES = {"pass": "green", "regression": "bold red", "inconclusive": "yellow"}


def compare(
    base: Annotated[str, typer.Argument(help="The run to hold against: a name, a run.json, or a published folder.")],
    head: Annotated[str, typer.Argument(help="The run to judge, written in the same ways.")],
    output: Annotated[Path, typer.Option(help="Folder of the store, for names of runs.")] = Path("results"),
    margin: Annotated[
        float, typer.Option(min=0, max=99, help="Points of certified accuracy: a smaller loss is no regression.")
    ] = 1.0,
    false_alarms: Annotated[
        float, typer.Option(help="Probability of any alarm where nothing changed but noise, over the whole comparison.")
    ] = 0.01,
    cost: Annotated[float, typer.Option(min=0, help="Per cent by which counters of passes may grow.")] = 2.0,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Entries and radii of BASE that HEAD lacks do not stop it.")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything as JSON; - for stdout.")] = None,
    junit_file: Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML, for CI systems.")] = None,
    markdown_file: Annotated[Path | None, typer.Option("--markdown", help="Write a summary in Markdown.")] = None,
) -> None:
    """Hold a run against another: did anything get worse by more than chance, and is every certificate still sound?

    Entries are matched by name. Rows of one key must be equal; proofs of one classifier must all be kept; everything
    else is compared image by image with exact tests that share one budget of false alarms. Exit code 0: pass; 1: a
    regression, or a soundness alarm, which is told first; 2: bad usage; 3: inconclusive; 4: nothing measured.

    Examples:

        certbench compare main my-branch

        certbench compare leaderboards/published/ci ci --margin 5

        certbench compare old/runs/a/run.json new/runs/a/run.json --junit gate.xml --markdown summary.md

        certbench compare main my-branch --json - | jq '.findings[] | select(.outcome != "pass")'
    """
    from leaderboards.gate import Rules, json_report, junit_report, markdown_report

    try:
        rules = Rules(margin=margin / 100, false_alarms=false_alarms, cost=cost / 100, allow_missing=allow_missing)
    except ValueError as error:
        stop(USAGE, error)
    report = compared(base, head, output, rules)
    to_stdout = json_file is not None and str(json_file) == "-"
    written = (
        (json_file, json_report(report).encode()),
        (junit_file, junit_report(report)),
        (markdown_file, markdown_report(report).encode()),
    )
    try:
        for path, content in written:
            if path is not None and str(path) != "-":
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
    except OSError as error:
        stop(USAGE, f"Cannot write {error.filename}: {error.strerror}. Name a file in a folder that can be written.")
    if to_stdout:
        if report.alarms:
            tell(report.headline)
        typer.echo(json_report(report), nl=False)
    else:
        show(report)
    raise typer.Exit(report.outcome.exit_code)


def compared(base: str, head: str, output: Path, rules: "Rules") -> "Report":
    """The report of two runs, as they are written on the command line.

    A run whose rows were altered or do not fit the schema is a soundness alarm, not a mistake of usage.

    Raises:
        typer.Exit: a run is not there.
    """
    from leaderboards import StoredDataError
    from leaderboards.gate import Finding, Kind, Outcome, Report, find_run, read_measured
    from leaderboards.gate import compare as judge

    try:
        manifests = [find_run(written, output) for written in (base, head)]
    except FileNotFoundError as error:
        stop(USAGE, error)
    runs = []
    for manifest, written in zip(manifests, (base, head), strict=True):
        try:
            runs.append(read_measured(manifest))
        except StoredDataError as error:
            broken = Finding(Kind.SOUNDNESS, manifest.parent.name, Outcome.REGRESSION, f"cannot be believed: {error}")
            # The alarm is told of the run that it is in, be that BASE.
            return Report(base, written, rules, (broken,))
    report = judge(runs[0], runs[1], rules)
    # One spec in two stores is the usual case, and a name against itself tells nobody which is which.
    return replace(report, base=f"{report.base} ({base})") if report.base == report.head else report


def show(report: "Report") -> None:
    """The headline, what failed or stayed open, a line an entry and check that passed, and the notes."""
    from leaderboards.escaping import visible
    from leaderboards.gate.findings import COMPARING, Outcome
    from leaderboards.gate.summary import MOST_ROWS, rules_in_words

    # Plain, and before anything else: a line that logs can be searched for.
    typer.echo(visible(report.headline))
    table = Table(title=Text(visible(f"{report.head} against {report.base}")), title_justify="left")
    for name in ("outcome", "check", "entry", "", "found"):
        table.add_column(name, overflow="fold")
    passed = report.of(Outcome.PASS)
    # What passed is worth a line where it has figures; the rest is counted, and told in the JSON.
    shown = [item for item in passed if item.kind in COMPARING][:MOST_ROWS]
    for item in (*(item for item in report.findings if item.outcome is not Outcome.PASS), *shown):
        cells = [item.kind.value, item.entry, item.about, item.said]
        outcome = Text(item.outcome.value, _STYLES[item.outcome.value])
        table.add_row(outcome, *(Text(visible(cell)) for cell in cells))
    stdout().print(table)
    if len(passed) > len(shown):
        typer.echo(f"{len(passed) - len(shown)} other checks passed.")
    for note in report.notes:
        typer.echo(visible(note))
    typer.echo(visible(rules_in_words(report)))
