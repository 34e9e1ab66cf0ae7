"""A board as one JSON document: every number unrounded, with its counts, so that it can be checked."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from leaderboards.board import Board, Line
from leaderboards.metrics import CONFIDENCE, Share
from leaderboards.radii import format_radius
from leaderboards.rounding import rounding_costs
from leaderboards.statistics_document import statistics_document

#: Raised whenever a field of the document changes its meaning.
DOCUMENT_VERSION = 1


def json_document(board: Board) -> str:
    """The board as JSON text: keys in a fixed order, no NaN (null stands for "not known").

    Shares are `{"value", "interval": [low, high], "successes", "trials"}`; radii are given exactly, as text,
    and as a float64.
    """
    document = {
        "document": "certbench-board",
        "document_version": DOCUMENT_VERSION,
        "schema": board.schema,
        "name": board.name,
        "title": board.title,
        "description": board.description,
        "dataset": board.dataset,
        "split": board.split,
        "norm": board.norm,
        "images": board.images,
        "images_digest": board.images_digest,
        "radii": [format_radius(radius) for radius in board.radii],
        "ranking": board.ranking,
        "confidence": CONFIDENCE,
        "entries": [_entry(board, line) for line in board.lines],
        "statistics": statistics_document(board),
        "spec_text": board.spec_text,
    }
    return json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _entry(board: Board, line: Line) -> dict[str, Any]:
    entry = line.entry
    return {
        "rank": line.rank,
        "name": entry.name,
        "ensemble": entry.ensemble,
        "aggregation": entry.aggregation,
        "certifier": entry.certifier,
        "guarantee": entry.guarantee,
        "status": entry.status,
        "reason": entry.reason,
        "key": entry.key,
        "rows": len(entry.rows),
        "errors": int((entry.rows["verdict"] == "ERROR").sum()),
        "scores": _scores(board, line),
        "conformance": _conformance(line),
        **({"published": {"source": entry.source, "verified": False}} if entry.imported else {}),
        **({"audit": dataclasses.asdict(entry.audit) | {"unsound": entry.audit.unsound}} if entry.audit else {}),
        "warnings": list(entry.warnings),
        "diagnostics": entry.diagnostics,
        "parameters": entry.parameters,
        "details": entry.details,
        "provenance": entry.provenance,
    }


def _scores(board: Board, line: Line) -> dict[str, Any] | None:
    scores = line.scores
    if scores is None:
        return None
    unrounded = {cost.line.entry.name: [_share(share) for share in cost.without] for cost in rounding_costs(board)}
    known = {"unrounded": unrounded[line.entry.name]} if line.entry.name in unrounded else {}
    return {
        "mean_certified_accuracy": scores.mean_certified_accuracy,
        "certified_accuracy": [
            {"radius": format_radius(radius), "radius_float": float(radius)} | _share(share)
            for radius, share in zip(board.radii, scores.certified, strict=True)
        ],
        "clean_accuracy": None if scores.clean is None else _share(scores.clean),
        "average_certified_radius": scores.average_radius,
        "median_certified_radius": scores.median_radius,
        "abstention_rate": _share(scores.abstention),
        "verdicts": scores.verdicts,
        "forward_passes_per_image": _known(scores.forward_passes),
        "bound_passes_per_image": _known(scores.bound_passes),
        "seconds_per_image": _known(scores.seconds),
        "expected_false_certificates": scores.expected_false_certificates,
        **known,
    }


def _conformance(line: Line) -> dict[str, Any] | None:
    badge = line.entry.conformance
    if badge is None or line.entry.imported:
        return None
    found = {
        "badge": str(badge),
        "verified": badge.verified,
        "level": badge.level,
        "kit": badge.kit,
        "seed": badge.seed,
    }
    return found | {"quick": badge.quick, "failed": list(badge.failed)}


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _share(share: Share) -> dict[str, Any]:
    return {
        "value": share.value,
        "interval": list(share.interval),
        "successes": share.successes,
        "trials": share.trials,
    }


def _plain(value: Any) -> Any:
    # Parameters and provenance are the callers'; a value that JSON lacks becomes text rather than an error.
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)
