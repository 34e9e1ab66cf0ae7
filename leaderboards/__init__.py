"""Scores, ranks and shows stored results. Reads plain data; never imports torch.

`records` is the stored form, `audits` what attacks on it found, and `radii` its exact radii; `metrics` measures
one set of rows and `scores` gathers an entry's numbers; `board` ranks comparable entries; `render` publishes a board
as `page` (HTML), `tables` (Markdown, LaTeX), `documents` (JSON) and `plots`; `published` keeps a board with its rows,
`packed` into few files, and `site` makes the pages of all of them; `published_logs` and `published_dsrs` read others'
results.

How sure it all is: `band` of a whole curve, `paired` tests, `resampling` of ranks, `standings` and `training_seeds` of
a board, its `pareto` front and `envelope` views. `gate` compares two runs.
"""

from leaderboards.audits import Audit
from leaderboards.band import band_half_width, simultaneous_band
from leaderboards.board import RANKING, Board, BoardError, Line, board_of, build_board
from leaderboards.envelope import Envelope, envelopes
from leaderboards.metrics import Share, binomial_interval, certified_accuracy
from leaderboards.paired import PairedComparison, compare_entries
from leaderboards.pareto import front_of, pareto_front
from leaderboards.published_dsrs import read_dsrs_log
from leaderboards.published_logs import PublishedLog, read_cohen_log
from leaderboards.published_text import LogError
from leaderboards.radii import ceil_float, floor_float, format_radius, parse_radius
from leaderboards.records import Entry, Run, read_rows, read_run
from leaderboards.render import publish
from leaderboards.scores import Scores, score
from leaderboards.standings import Standing, standings
from leaderboards.training_seeds import Family, families
from leaderboards.verified_files import StoredDataError

__all__ = [
    "RANKING",
    "Audit",
    "Board",
    "BoardError",
    "Entry",
    "Envelope",
    "Family",
    "Line",
    "LogError",
    "PairedComparison",
    "PublishedLog",
    "Run",
    "Scores",
    "Share",
    "Standing",
    "StoredDataError",
    "band_half_width",
    "binomial_interval",
    "board_of",
    "build_board",
    "ceil_float",
    "certified_accuracy",
    "compare_entries",
    "envelopes",
    "families",
    "floor_float",
    "format_radius",
    "front_of",
    "pareto_front",
    "parse_radius",
    "publish",
    "read_cohen_log",
    "read_dsrs_log",
    "read_rows",
    "read_run",
    "score",
    "simultaneous_band",
    "standings",
]
