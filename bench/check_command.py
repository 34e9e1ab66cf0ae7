"""`certbench check`: holds a certifier against the conformance kit."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.endings import CHECK_FAILED, INTERRUPTED, NOTHING_MEASURED, USAGE, stderr, stdout, stop


def check(
    certifier: Annotated[
        str,
        typer.Argument(metavar="NAME|MODULE:CLASS", help="A registered certifier, or a class that Python can import."),
    ],
    level: Annotated[str, typer.Option(help="Up to which level: L0 to L4.")] = "L2",
    seed: Annotated[int, typer.Option(help="Base of everything random; another seed, other cases.")] = 7,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A parameter of the certifier; may be given several times."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer and smaller cases of the same properties.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Hold a certifier against the conformance kit: contract, truth, planted counterexamples, attacks, statistics.

    Examples:

        certbench check crown

        certbench check smoothing --set sigma=0.5 --level L4

        certbench check my_package.my_module:MyCertifier --json

        certbench check ibp --seed 11 --quick
    """
    try:
        _check(certifier, level, seed, settings or [], quick, as_json)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _check(written: str, level: str, seed: int, settings: list[str], quick: bool, as_json: bool) -> None:
    # As `python -m` does: a class in the current folder can be named.
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    from bench import checking
    from bench.progress import reporter_for
    from certifiers import conformance
    from ensembles.registry import RegistryError

    try:
        up_to = checking.level_of(level)
        subject = conformance.Subject(
            conformance.resolve(written, **checking.parameters_of(settings)), seed=seed, quick=quick
        )
    except (ValueError, RegistryError, ImportError) as error:
        stop(USAGE, error)
    found = checking.examined(subject, up_to, reporter_for(stderr))
    if as_json:
        typer.echo(json.dumps(checking.as_data(found), indent=1, ensure_ascii=False))
    else:
        stdout().print(checking.table(found))
        for line in checking.lines(found):
            typer.echo(line)
    if found.failures:
        raise typer.Exit(CHECK_FAILED)
    if not found.measured:
        stop(NOTHING_MEASURED, "Nothing was measured: no check applies.")
