"""How commands end: exit codes, what goes to stderr, and the run that a command was given."""

import sys
from pathlib import Path
from typing import NoReturn

import typer
from rich.console import Console

OK, CHECK_FAILED, USAGE, UNFINISHED, NOTHING_MEASURED, INTERRUPTED = 0, 1, 2, 3, 4, 130

stderr = Console(stderr=True)


def stdout() -> Console:
    """Where tables go. A pipe has no width: there it is wide enough that nothing is cut."""
    return Console(width=None if sys.stdout.isatty() else 200)


def tell(why: object) -> None:
    """Print a line to stderr as it is."""
    stderr.print(str(why), markup=False, emoji=False, highlight=False, soft_wrap=True)


def stop(code: int, why: object) -> NoReturn:
    """End with an exit code and one sentence.

    Raises:
        typer.Exit: always.
    """
    tell(f"error: {why}")
    raise typer.Exit(code)


def find_manifest(stored: str, output: Path) -> Path:
    """The file that describes a run, from its name or its path.

    Raises:
        typer.Exit: there is none; says which there are.
    """
    manifest = Path(stored).resolve() if stored.endswith(".json") else output / "runs" / stored / "run.json"
    if not manifest.is_file():
        from ensembles.registry import did_you_mean

        known = sorted(path.parent.name for path in (output / "runs").glob("*/run.json"))
        stop(
            USAGE,
            f"No run at {manifest}. {did_you_mean(stored, known)}Stored in {output}: {', '.join(known) or 'none'}.",
        )
    return manifest
