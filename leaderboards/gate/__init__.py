"""The regression gate: two runs compared so that a change of chance passes and a loss does not.

`measured` reads a run with its attacks, `findings` is what a gate says; `soundness`, `identity`, `images`, `losses` and
`costs` each judge one thing; `comparison` asks them all. `junit`, `documents` and `summary` write it down.
"""

from leaderboards.gate.comparison import compare
from leaderboards.gate.documents import json_report
from leaderboards.gate.findings import Finding, Kind, Outcome, Report, Rules
from leaderboards.gate.junit import junit_report
from leaderboards.gate.measured import Measured, find_run, read_measured
from leaderboards.gate.summary import markdown_report

__all__ = [
    "Finding",
    "Kind",
    "Measured",
    "Outcome",
    "Report",
    "Rules",
    "compare",
    "find_run",
    "json_report",
    "junit_report",
    "markdown_report",
    "read_measured",
]
