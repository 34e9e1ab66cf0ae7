"""Hyper-parameters chosen on the validation split: candidates are a run of their own, with a board of their own."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.plan import Plan, make_plan
from bench.progress import Reporter
from bench.spec import ExperimentSpec
from bench.spec_tables import EntryTable
from bench.store import StoreError
from leaderboards import build_board, publish, read_run

#: Executes a plan and returns the manifest of its run.
Execute = Callable[[Plan], Path]


class SelectionError(RuntimeError):
    """No candidate of a grid could be scored."""


def select(plan: Plan, execute: Execute, boards: Path, reporter: Reporter) -> Plan:
    """The plan with the best candidate in the place of each ensemble that has a grid.

    Candidates are trained and certified on validation images as a run `<name>-selection-<ensemble>`, which is
    stored, resumed and published like any other; the ranking of its board decides. Test images take no part.

    Raises:
        SelectionError: no candidate of an ensemble could be scored.
    """
    spec, searches = plan.spec, {}
    for label, table in spec.ensembles.items():
        if not table.grid:
            continue
        search = _search_plan(plan, label)
        board = build_board(read_run(execute(search)))
        try:
            publish(board, boards / search.name)
        except OSError as error:
            raise StoreError(
                f"Cannot write the board of {search.name}: {error}. Free some space and run again."
            ) from error
        if not board.ranked:
            raise SelectionError(f"ensembles.{label}: no candidate could be scored: {board.unranked[0].entry.reason}")
        best = board.ranked[0].entry.name
        names = _candidate_names(spec, label)
        chosen, chosen_table = table.candidates()[names.index(best)]
        reporter.note(f"{label}: chose {best} of {len(names)} candidates, on {board.images} validation images")
        searches[label] = {
            "run": search.name,
            "chosen": chosen,
            "images": board.images,
            "radii": list(search.spec.threat.radii),
            "candidates": [
                {"name": line.entry.name, "score": line.scores.mean_certified_accuracy if line.scores else None}
                for line in board.lines
            ],
        }
        spec = spec.model_copy(update={"ensembles": {**spec.ensembles, label: chosen_table}})
    if not searches:
        return plan
    resolved = make_plan(spec, plan.spec_text, plan.dataset)
    return Plan(plan.name, spec, plan.spec_text, plan.dataset, plan.images, resolved.cells, searches)


def _search_plan(plan: Plan, label: str) -> Plan:
    """The plan that scores the candidates of one ensemble."""
    spec, table = plan.spec, plan.spec.ensembles[label]
    selection = spec.selection
    assert selection is not None, "checked with the spec"  # noqa: S101
    names = _candidate_names(spec, label)
    # Hyper-parameters are chosen once, from the spec's own seed, and then every training seed has them.
    candidates = {
        name: candidate.model_copy(update={"seeds": None})
        for name, (_, candidate) in zip(names, table.candidates(), strict=True)
    }
    entries = tuple(
        EntryTable.model_construct(
            name=name, ensemble=(name,), aggregation=(selection.aggregation,), certifier=(selection.certifier,)
        )
        for name in names
    )
    whole = {"every": 1, "offset": 0, "limit": None, "answered_rightly": None}
    update: dict[str, Any] = {
        "name": f"{plan.name}-selection-{label}",
        "title": f"{spec.title or spec.name}: hyper-parameters of {label}, chosen on validation images",
        "description": "Candidates of a grid. The first of this board is used; no test image took part.",
        "data": spec.data.model_copy(update={**whole, "split": "validation"}),
        "ensembles": {**spec.ensembles, **candidates},
        "threat": spec.threat.model_copy(update={"radii": table.grid_radii or spec.threat.radii}),
        "entries": entries,
        "diagnostics": False,
    }
    search = make_plan(spec.model_copy(update=update), plan.spec_text, plan.dataset)
    return replace(search, images=search.images.spread(min(selection.images, len(search.images))))


def _candidate_names(spec: ExperimentSpec, label: str) -> list[str]:
    return [f"{label} {_shown(chosen)}" for chosen, _ in spec.ensembles[label].candidates()]


def _shown(chosen: dict[str, Any]) -> str:
    return ", ".join(f"{key.partition('.')[2]}={value}" for key, value in chosen.items())
