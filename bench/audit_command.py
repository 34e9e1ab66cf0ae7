"""`certbench audit`: attacks every stored certificate of a run, and says first which ones are false."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.endings import (
    CHECK_FAILED,
    INTERRUPTED,
    NOTHING_MEASURED,
    UNFINISHED,
    USAGE,
    find_manifest,
    stderr,
    stop,
    tell,
)


def audit(
    stored: Annotated[str, typer.Argument(metavar="RUN", help="A run: its name, or the path of its run.json.")],
    output: Annotated[Path, typer.Option(help="Folder of the store.")] = Path("results"),
    entry: Annotated[
        list[str] | None, typer.Option(help="Audit only entries whose name matches, as in 'drt*'; may be repeated.")
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="Audit only this many certificates an entry, drawn by the seed.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each ascent.")] = 40,
    restarts: Annotated[int, typer.Option(min=1, help="Ascents an objective.")] = 5,
    samples: Annotated[int, typer.Option(min=100, help="Noisy inputs in the test of a smoothed claim.")] = 20_000,
    seed: Annotated[int, typer.Option(min=0, help="Base of random starts, of fresh noise and of --images.")] = 0,
    device: Annotated[str, typer.Option(help="Where networks run: cpu, cuda, cuda:1.")] = "cpu",
    art: Annotated[
        bool, typer.Option("--art", help="Attack with adversarial-robustness-toolbox as well, where installed.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Attack every stored certificate of a run inside its ball, and publish its board again.

    A refuted certificate is kept with its counterexample; the board shows the image as FALSIFIED and the entry as
    UNSOUND. What was attacked with the same settings is not attacked again. Exit code 0: nothing refuted; 1: a
    certificate is false; 3: an entry could not be audited; 4: nothing was audited.

    Examples:

        certbench audit quickstart

        certbench audit quickstart --images 20 --steps 100 --restarts 10

        certbench audit training-zoo --entry 'drt*' --entry 'gaussian*' --images 4

        certbench audit elsewhere/runs/my-spec/run.json --json | jq '.entries[].refuted'

        certbench audit quickstart --art       with the attacks of adversarial-robustness-toolbox
    """
    from bench.audit_subjects import AuditError
    from bench.auditing import AuditOptions, NoSuchEntryError
    from bench.auditing import audit as execute
    from bench.progress import reporter_for
    from bench.runner import check_device
    from bench.store import StoreError
    from certifiers import ClassifierChangedError
    from certifiers.conformance.nearest import Effort
    from leaderboards import BoardError, StoredDataError

    manifest = find_manifest(stored, output)
    try:
        check_device(device)
        effort = Effort(steps=steps, restarts=restarts, seed=seed)
        more = None
        if art:
            from certifiers.conformance.art_attacks import toolbox

            more = toolbox()
    except (ValueError, ImportError) as error:
        stop(USAGE, error)
    options = AuditOptions(
        images=images, effort=effort, samples=samples, device=device, more=more, entries=tuple(entry or ("*",))
    )
    try:
        outcome = execute(manifest, options, reporter_for(stderr))
        found = _published(manifest)
    except KeyboardInterrupt:
        stderr.print("Interrupted. Finished audits are stored; the same command resumes.")
        raise typer.Exit(INTERRUPTED) from None
    except NoSuchEntryError as error:
        stop(USAGE, error)
    except (AuditError, StoreError, StoredDataError, BoardError, ClassifierChangedError) as error:
        stop(UNFINISHED, error)
    except OSError as error:
        stop(UNFINISHED, f"Cannot write the board: {error}. Free some space and run the same command.")
    document = {"run": manifest.parent.name, **found, "problems": dict(outcome.problems)}
    document |= {"attacked_now": outcome.attacked, "attacked_before": outcome.stored}
    _tell(document, as_json)
    if document["refuted"]:
        raise typer.Exit(CHECK_FAILED)
    if outcome.problems:
        stop(UNFINISHED, f"{len(outcome.problems)} entries could not be audited.")
    if not outcome.attacked + outcome.stored:
        stop(NOTHING_MEASURED, "Nothing was audited: the run has no certificate.")


def _published(manifest: Path) -> dict[str, Any]:
    """Publish the board again, and say of each entry what all its audits come to."""
    from leaderboards import build_board, publish, read_run
    from leaderboards.audits import read_audits
    from leaderboards.verified_files import cell_folder

    run = read_run(manifest)
    root = manifest.resolve().parent.parent.parent
    entries = []
    for entry in run.entries:
        audits = read_audits(root / cell_folder(entry.key)) if entry.audit else None
        if entry.audit is None or audits is None:
            continue
        false = audits[(audits["attack_radius"] <= audits["radius"]) & audits["image_id"].isin(entry.rows["image_id"])]
        columns = ["image_id", "prediction", "radius", "attack_radius", "answer", "margin", "p_value", "method"]
        entries.append(
            {
                "name": entry.name,
                "certificates": entry.audit.certificates,
                "audited": entry.audit.audited,
                "refuted": entry.audit.refuted,
                "tightness": entry.audit.tightness,
                "expected_false": entry.audit.expected_false,
                "counterexamples": [
                    {**item, "norm": entry.norm, "witness": f"{cell_folder(entry.key)}/{file}"}
                    for item, file in zip(false[columns].to_dict("records"), false["witness"], strict=True)
                ],
            }
        )
    files = publish(build_board(run), root / "boards" / manifest.parent.name)
    return {
        "refuted": sum(entry["refuted"] for entry in entries),
        "audited": sum(entry["audited"] for entry in entries),
        "entries": entries,
        "board": str(files["board.html"]),
    }


def _tell(document: dict[str, Any], as_json: bool) -> None:
    refuted = document["refuted"]
    if refuted:
        what = "1 certificate is false" if refuted == 1 else f"{refuted} certificates are false"
        (tell if as_json else typer.echo)(f"UNSOUND: {what}, of {document['audited']} audited.")
    if as_json:
        typer.echo(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False))
        return
    for entry in document["entries"]:
        for item in entry["counterexamples"]:
            how = f"p = {item['p_value']:.1g}" if item["p_value"] else f"margin {item['margin']:.3g}"
            typer.echo(
                f"  {entry['name']}: image {item['image_id']}, certified {item['radius']:.6g}: an input at "
                f"{item['attack_radius']:.6g} in {item['norm']} is answered {item['answer']}, not "
                f"{item['prediction']} ({item['method']}, {how}): {item['witness']}"
            )
    for entry in document["entries"]:
        known = "" if entry["tightness"] is None else f", tightness {entry['tightness']:.3f}"
        typer.echo(
            f"{entry['name']}: {entry['audited']} of {entry['certificates']} certificates audited, "
            f"{entry['refuted']} refuted{known}"
        )
    typer.echo(f"{document['attacked_now']} attacked now, {document['attacked_before']} before.")
    typer.echo(f"board.html   {document['board']}")
