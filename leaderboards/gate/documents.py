"""A comparison as one JSON document."""

import dataclasses
import json
import math
from typing import Any

from leaderboards.gate.findings import Report

#: Raised whenever a field of the document changes its meaning.
DOCUMENT_VERSION = 1


def json_report(report: Report) -> str:
    """The report as JSON text; shares and p-values unrounded, infinite ratios as null."""
    document = {
        "document": "certbench-comparison",
        "document_version": DOCUMENT_VERSION,
        "base": report.base,
        "head": report.head,
        "outcome": report.outcome.value,
        "exit_code": report.outcome.exit_code,
        "headline": report.headline,
        "soundness_alarms": len(report.alarms),
        "rules": dataclasses.asdict(report.rules),
        "findings": [
            {
                "kind": item.kind.value,
                "entry": item.entry,
                "about": item.about,
                "outcome": item.outcome.value,
                "said": item.said,
                "numbers": {name: _finite(value) for name, value in item.numbers.items()},
            }
            for item in report.findings
        ],
        "notes": list(report.notes),
    }
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
