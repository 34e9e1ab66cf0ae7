"""A board as text: Markdown for repositories, a LaTeX table for papers."""

import math

from leaderboards import escaping, numerals
from leaderboards.audits import audit_texts, reading_of_audits
from leaderboards.badges import badge_text, groups
from leaderboards.board import Board, Line
from leaderboards.imported import reading_of_imported
from leaderboards.margins import margins
from leaderboards.marks import mark, marked_name, state
from leaderboards.radii import format_radius
from leaderboards.rounding import reading_of_rounding, rounding_costs
from leaderboards.scores import Scores
from leaderboards.side_by_side import side_by_side, stages
from leaderboards.statistics_tables import reading_of_band, statistics_blocks
from leaderboards.training import diagnostic_names, searches


def markdown_page(board: Board) -> str:
    """The board as a Markdown page: the table, the entries without numbers, how to read it, the spec."""
    text, line_of = escaping.markdown, escaping.markdown_line
    at = [f"r = {format_radius(radius)}" for radius in board.radii]
    head = [
        "#",
        "entry",
        "certifier",
        "guarantee",
        "mean",
        *at,
        "clean",
        "ACR",
        "median",
        "abstains",
        "E[false]",
        "s / image",
        "checked",
        *(["audited", "tightness"] if board.audited else []),
    ]
    rows = [
        [
            numerals.rank(line.rank),
            text(line.entry.name) + ("".join(f" (**{text(warning)}**)" for warning in line.entry.warnings)),
            text(line.entry.certifier),
            text(line.entry.guarantee),
            *_numbers(line.scores),
            numerals.percent(line.scores.abstention.value),
            numerals.quantity(line.scores.expected_false_certificates),
            numerals.quantity(line.scores.seconds),
            text(badge_text(line.entry)),
            *(audit_texts(line.entry.audit) if board.audited else ()),
        ]
        for line in board.ranked
        if line.scores
    ]
    ruled = [head, ["--:", ":--", ":--", ":--", *["--:"] * (len(head) - 5), ":--"]]
    blocks = [f"# {text(board.title)}", line_of(board.description), line_of(_subject(board))]
    blocks += _side_by_side_blocks(board)
    blocks += _margin_blocks(board)
    blocks += ["## Ranking"] if len(blocks) > 3 else []
    for group in groups(board):
        blocks += [f"## {group.heading}", line_of(group.note)] if group.heading else []
        table = [*ruled, *rows[group.first : group.first + len(group.lines)]]
        blocks.append("\n".join(f"| {' | '.join(cells)} |" for cells in table))
    blocks += [] if rows else ["No entry is complete."]
    if board.unranked:
        blocks += ["## Without numbers", "\n".join(f"- {_without(line)}" for line in board.unranked)]
    blocks += statistics_blocks(board)
    blocks += _rounding_blocks(board)
    blocks += _training_blocks(board)
    blocks += ["## How to read it", "\n".join(f"- {line_of(sentence)}" for sentence in reading_guide(board))]
    if board.spec_text.strip():
        blocks += [
            "## Reproduce",
            "Save the spec as `spec.toml`, then `certbench run spec.toml`.",
            escaping.markdown_fence(board.spec_text, "toml"),
        ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _side_by_side_blocks(board: Board) -> list[str]:
    """Certifiers as groups of columns, where a classifier meets several; and what each stage of a cascade settled."""
    text, blocks = escaping.markdown, []
    if view := side_by_side(board):
        radii = [format_radius(radius) for radius in board.radii]
        at = [f"{text(name)} r = {radius}" for name in view.certifiers for radius in (*radii, "s / image")]
        head = ["ensemble", "aggregation", *(column.replace("r = s / image", "s / image") for column in at)]
        rows = [head, [":--", ":--", *["--:"] * len(at)]]
        for classifier, lines in view.lines.items():
            cells = [text(name) for name in classifier]
            for line in lines:
                if line is None or line.scores is None:
                    cells += [numerals.NOTHING] * (len(radii) + 1)
                else:
                    numbers = [numerals.percent(share.value) for share in line.scores.certified]
                    found = mark(line.entry)
                    cells += [f"{number} **{found}**" if found else number for number in numbers]
                    cells.append(numerals.quantity(line.scores.seconds))
            rows.append(cells)
        blocks += ["## Certifiers side by side", "\n".join(f"| {' | '.join(cells)} |" for cells in rows)]
    if settled := stages(board):
        items = [
            f"- {escaping.markdown_line(name)}: "
            + ", ".join(f"{text(stage)} {count}" for stage, count in counts.items())
            for name, counts in settled.items()
        ]
        blocks += ["## Images settled by each stage", "\n".join(items)]
    return blocks


def _margin_blocks(board: Board) -> list[str]:
    """How many images have a lower bound above zero, of those that the figure of margins shows."""
    line_of = escaping.markdown_line
    items = [
        f"- {line_of(marked_name(panel.line.entry))}: {panel.above} of {len(panel.values)} above 0, median "
        f"{numerals.quantity(panel.median) if math.isfinite(panel.median) else numerals.NOTHING}"
        for panel in margins(board)
    ]
    if not items:
        return []
    told = (
        "Of the first images that all members on this board classify rightly, an entry each; `margins.svg` shows them."
    )
    return ["## Lower bounds on margins", told, "\n".join(items)]


def _rounding_blocks(board: Board) -> list[str]:
    """Certified accuracy with and without what is given away for rounding, of the entries that know both."""
    costs = rounding_costs(board)
    if not costs:
        return []
    rows = [
        ["entry", *(f"r = {format_radius(radius)}" for radius in board.radii)],
        [":--", *["--:"] * len(board.radii)],
    ]
    for cost in costs:
        pairs = zip(cost.line.scores.certified if cost.line.scores else (), cost.without, strict=True)
        cells = [f"{numerals.percent(proved.value)} [{numerals.percent(exact.value)}]" for proved, exact in pairs]
        rows.append([escaping.markdown(cost.line.entry.name), *cells])
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    return ["## With and without rounding", reading_of_rounding(), table]


def _training_blocks(board: Board) -> list[str]:
    """Diagnostics of the ensembles and searches of hyper-parameters, where the run has any."""
    text, blocks = escaping.markdown, []
    names = diagnostic_names(board)
    if names:
        rows = [["ensemble", *(text(name.replace("_", " ")) for name in names)], [":--", *["--:"] * len(names)]]
        for ensemble, entry in board.diagnosed.items():
            numbers = (entry.diagnostics.get(name) for name in names)
            rows.append([text(ensemble), *("" if item is None else numerals.quantity(item) for item in numbers)])
        blocks += ["## Diagnostics", "\n".join(f"| {' | '.join(cells)} |" for cells in rows)]
    for ensemble, search in searches(board).items():
        rows = [["candidate", f"mean certified accuracy (%) at r = {text(', '.join(search['radii']))}"], [":--", "--:"]]
        for candidate in search["candidates"]:
            score = candidate["score"]
            rows.append([text(candidate["name"]), numerals.NOTHING if score is None else numerals.percent(score)])
        heading = f"## Hyper-parameters of {text(ensemble)}, chosen on {search['images']} validation images"
        blocks += [heading, "\n".join(f"| {' | '.join(cells)} |" for cells in rows)]
    return blocks


def latex_table(board: Board) -> str:
    r"""The board as a LaTeX table environment; needs `\usepackage{booktabs}`."""
    text = escaping.latex
    columns = len(board.radii)
    head = ["", "Entry", *(f"$r={format_radius(radius)}$" for radius in board.radii), "Clean", "ACR"]
    rows = [
        [
            numerals.rank(line.rank),
            text(line.entry.name) + (r" (\textbf{unsound})" if line.rank is None else ""),
            *(numerals.percent(share.value) for share in line.scores.certified),
            numerals.percent(line.scores.clean.value) if line.scores.clean else "--",
            numerals.radius(line.scores.average_radius),
        ]
        for line in board.ranked
        if line.scores
    ]
    grouped: list[list[str]] = []
    for group in groups(board):
        heading = rf"\midrule \multicolumn{{{columns + 4}}}{{l}}{{\emph{{{text(group.heading)}}}}}"
        grouped += [[heading]] if group.heading else []
        grouped += rows[group.first : group.first + len(group.lines)]
    omitted = [f"{text(line.entry.name)} ({text(state(line.entry))})" for line in board.unranked]
    note = f" Without numbers: {', '.join(omitted)}." if omitted else ""
    ends = [share.interval for line in board.ranked if line.scores for share in line.scores.certified]
    widest = max((high - low for low, high in ends), default=0.0)
    caption = (
        f"{text(board.title)}. Certified accuracy in percent, "
        f"{text(_subject(board))}; exact 95\\,\\% intervals "
        f"are at most {numerals.percent(widest)} points wide. {text(board.ranking)}{note}"
    )
    return "\n".join(
        [
            r"% Needs \usepackage{booktabs}.",
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{caption}}}",
            rf"  \begin{{tabular}}{{rl{'r' * columns}rr}}",
            r"    \toprule",
            f"    {' & '.join(head)} \\\\",
            r"    \midrule",
            *(f"    {' & '.join(cells)} \\\\" for cells in grouped),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def reading_guide(board: Board) -> list[str]:
    """What the columns mean, one sentence or two a point."""
    return [
        "Certified accuracy at radius r: the share of all images that are classified correctly with a "
        f"certificate of at least r in {board.norm}, in input units. Images that abstain, time out or get no "
        "proof count as not certified, at r = 0 too.",
        "[low, high]: the exact 95 % interval (Clopper-Pearson) for a random image of this data set. Where "
        "two intervals overlap, the order of the entries may be chance.",
        reading_of_band(board),
        board.ranking,
        "Clean: accuracy of the unsmoothed classifier without any certificate.",
        "ACR and median: average and median over all images of the certified radius, 0 where it is wrong or "
        "missing; rounded down. ACR grows with the number of samples: compare it only at equal cost.",
        "Checked: the level that the entry's certifier reached under the conformance kit (L0 contract, L1 truth, L2 "
        "planted counterexamples, L3 attacks, L4 statistics), the version of the kit and the seed of its cases; or the "
        "first check that it failed. Entries below L2 are unverified and ranked apart; other tables and "
        "figures mark them.",
        "Guarantee: a deterministic certificate is a proof; a probabilistic one is wrong with at most the "
        "stated probability per image. E[false] adds these up over all images that were asked: the expected number "
        "of false certificates is at most that.",
        "Seconds: wall time per image on the machine of the run; a pass that serves several entries is shared "
        "equally between them. Between machines, compare passes.",
        *reading_of_imported(board),
        *([reading_of_audits()] if board.audited else []),
    ]


def _numbers(scores: Scores) -> list[str]:
    return [
        numerals.percent(scores.mean_certified_accuracy),
        *map(numerals.percent_with_interval, scores.certified),
        numerals.percent_with_interval(scores.clean),
        numerals.radius(scores.average_radius),
        numerals.radius(scores.median_radius),
    ]


def _subject(board: Board) -> str:
    return f"{board.images} images of {board.dataset} ({board.split} split), radii in {board.norm}"


def _without(line: Line) -> str:
    named = marked_name(line.entry) if line.entry.imported else line.entry.name
    status, reason = map(escaping.markdown, (line.entry.status, line.entry.reason))
    return f"{escaping.markdown_line(named)}: **{status}**" + (f" ({reason})" if reason else "")
