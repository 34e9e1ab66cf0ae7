"""The command line. Data goes to stdout, progress and messages to stderr."""

import functools
import json
import os
from pathlib import Path
from typing import Annotated

import typer

from bench.allocator import keep_memory
from bench.audit_command import audit
from bench.baseline_command import baseline
from bench.board_output import publish_run as _publish
from bench.check_command import check
from bench.compare_command import compare
from bench.endings import CHECK_FAILED, INTERRUPTED, NOTHING_MEASURED, UNFINISHED, USAGE, find_manifest
from bench.endings import stderr as _stderr
from bench.endings import stop as _stop
from bench.import_command import import_published
from bench.publish_command import pages, publish

# Torch takes seconds to import, so everything that needs it is imported by the command that uses it.

_EXIT_CODES = (
    "Exit codes: 0 ok; 1 a check failed; 2 bad usage or spec; 3 finished with ERROR or TIMEOUT cells, or could not "
    "finish; 4 nothing measured; 130 interrupted."
)

app = typer.Typer(
    name="certbench",
    help=f"Certified robustness of neural-network ensembles: train, certify, rank.\n\n{_EXIT_CODES}",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.command()(audit)
app.command()(baseline)
app.command()(check)
app.command("import")(import_published)
app.command()(publish)
app.command()(pages)
app.command()(compare)


def main() -> None:
    """The entry point of `certbench`."""
    # Before torch is loaded: threads that wait for each other should sleep soon. Beside other such processes on
    # the same cores, spinning made some trainings several times slower; it cannot change a number.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    keep_memory()
    app()


@app.command()
def run(
    spec: Annotated[str, typer.Argument(help="A spec: a TOML file, or the name of a packaged one.")] = "quickstart",
    output: Annotated[Path, typer.Option(help="Folder of the store; reused, never emptied.")] = Path("results"),
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="A quick look at this many of the spec's images, spread evenly: a run of its own, whose rows do not "
            "count for the whole one.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Where networks run: cpu, cuda, cuda:1.")] = "cpu",
    block_size: Annotated[int, typer.Option(min=1, help="Images stored at a time. Cannot change a result.")] = 10,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Inputs a forward pass, for certifiers that have one.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            envvar="CERTBENCH_JOBS",
            show_default="one a core",
            help="Trainings and certifications side by side. Cannot change a result.",
        ),
    ] = None,
    compile_networks: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile networks that are not fused before counting votes (minutes): for hours of smoothing.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done, and how long it takes; do nothing.")
    ] = False,
    no_check: Annotated[
        bool,
        typer.Option(
            "--no-check",
            envvar="CERTBENCH_NO_CHECK",
            help="Do not check the certifiers; rows that were not checked are shown apart.",
        ),
    ] = False,
) -> None:
    """Train, certify and publish a board. Run it again to resume; what is stored is not computed again.

    Examples:

        certbench run                                  the quickstart

        certbench run my-spec.toml --output results    a spec of your own

        certbench run quickstart --limit 20            a quick look, under a name of its own

        certbench run my-spec.toml --dry-run           what is stored, what is missing, how long it takes
    """
    try:
        _run(spec, output, limit, device, block_size, batch_size, jobs, compile_networks, dry_run, no_check)
    except KeyboardInterrupt:
        _stderr.print("Interrupted. Finished blocks are stored; the same command resumes.")
        raise typer.Exit(INTERRUPTED) from None


def _run(
    written: str,
    output: Path,
    limit: int | None,
    device: str,
    block_size: int,
    batch_size: int | None,
    jobs: int | None,
    compile_networks: bool,
    dry_run: bool,
    no_check: bool,
) -> None:
    from bench import datasets
    from bench.calibration import estimates
    from bench.choosing import ChoosingError
    from bench.conformance import check_certifiers, forget_other_code
    from bench.dry_run import describe_plan
    from bench.plan import make_plan
    from bench.progress import reporter_for
    from bench.runner import Options, check_device
    from bench.runner import run as execute
    from bench.selection import SelectionError
    from bench.spec import find_spec, read_spec
    from bench.store import Store, StoreError
    from bench.workers import WorkerError, jobs_for
    from certifiers import ClassifierChangedError
    from certifiers.smoothing import check_compiler
    from ensembles.checkpoint import CheckpointError
    from ensembles.registry import RegistryError
    from ensembles.training import TrainingError
    from leaderboards import BoardError, StoredDataError

    reporter = reporter_for(_stderr)
    options = Options(output, device, block_size, batch_size, jobs or jobs_for(device), compile_networks)
    try:
        check_device(device)
        if compile_networks:
            check_compiler()
        spec, text = read_spec(find_spec(written))
        plan = make_plan(spec, text, datasets.load(spec.data.name, spec.data.root), limit)
    except (ValueError, RegistryError, ImportError, OSError) as error:
        _stop(USAGE, error)
    try:
        if dry_run:
            for line in describe_plan(plan, options, functools.partial(estimates, plan, options)):
                typer.echo(line)
            return
        forget_other_code(plan, Store(output), reporter)
        outcome = execute(plan, options, reporter)
        badges = {} if no_check else check_certifiers(plan, Store(output), reporter)
    except (
        *(TrainingError, SelectionError, CheckpointError, StoreError, StoredDataError),
        *(BoardError, datasets.DataError, ClassifierChangedError, ChoosingError, WorkerError),
    ) as error:
        _stop(UNFINISHED, error)
    reporter.note(f"{outcome.computed} rows computed, {outcome.stored} were stored.")
    for name, reason in outcome.reasons.items():
        if reason:
            reporter.warn(f"{name}: {outcome.statuses[name]}: {reason}")
    try:
        _publish(outcome.manifest, output / "boards" / plan.name, as_json=False)
    except (BoardError, StoredDataError) as error:
        _stop(UNFINISHED, error)
    except OSError as error:
        _stop(UNFINISHED, f"Cannot write the board: {error}. Free some space and run the same command.")
    if failed := {name: badge for name, badge in badges.items() if badge.failed}:
        said = "; ".join(f"{name}: {badge}" for name, badge in failed.items())
        _stop(CHECK_FAILED, f"Certifiers failed the conformance kit, and their rows are shown apart: {said}.")
    if outcome.failed or outcome.timeouts:
        raise typer.Exit(UNFINISHED)
    if not outcome.measured:
        _stop(NOTHING_MEASURED, "Nothing was measured: no entry of the spec could be.")


@app.command()
def board(
    stored: Annotated[str, typer.Argument(metavar="RUN", help="A run: its name, or the path of its run.json.")],
    output: Annotated[Path, typer.Option(help="Folder of the store.")] = Path("results"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the board as JSON.")] = False,
) -> None:
    """Publish a board again from stored rows, without computing anything.

    Examples:

        certbench board quickstart

        certbench board quickstart --json | jq '.entries[0]'

        certbench board elsewhere/runs/my-spec/run.json
    """
    from leaderboards import BoardError, StoredDataError
    from leaderboards.published import is_published

    manifest = find_manifest(stored, output)
    try:
        # A published folder is no store; its board goes to ours.
        root = output if is_published(manifest) else manifest.parent.parent.parent
        folder = root / "boards" / manifest.parent.name
        _publish(manifest, folder, as_json)
    except (BoardError, StoredDataError) as error:
        _stop(CHECK_FAILED, error)
    except OSError as error:
        _stop(UNFINISHED, f"Cannot write the board: {error}. Free some space and run the same command.")


@app.command("list")
def list_names(
    kind: Annotated[
        str | None,
        typer.Argument(help="certifiers, objectives, aggregations, architectures, datasets or specs; none: all."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """List what a spec can name, with its parameters; plug-ins of installed packages included.

    Examples:

        certbench list

        certbench list certifiers

        certbench list objectives --json
    """
    from bench.catalogue import KINDS, catalogue
    from ensembles.registry import did_you_mean

    if kind is not None and kind not in KINDS:
        _stop(USAGE, f"Unknown kind {kind!r}. {did_you_mean(kind, KINDS)}Available: {', '.join(KINDS)}.")
    found = catalogue([kind] if kind else list(KINDS))
    if as_json:
        typer.echo(json.dumps(found, indent=1, ensure_ascii=False))
        return
    for name, items in found.items():
        typer.echo(f"{name}:")
        for item in items:
            typer.echo(f"  {item['name']}" + (f"  [{item['origin']}]" if item["origin"] != "certbench" else ""))
            typer.echo(f"      {item['summary']}")
            for parameter in item["parameters"]:
                typer.echo(f"      {parameter['name']}: {parameter['type']} = {parameter['default']}")


if __name__ == "__main__":
    main()
