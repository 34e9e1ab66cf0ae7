"""A comparison as Markdown, for the summary of a CI job or a comment on a pull request."""

from leaderboards import escaping
from leaderboards.gate.findings import Finding, Kind, Outcome, Report

#: Longer tables are cut here: comments have a size limit, and the JSON has everything.
MOST_ROWS = 50

_SIGNS = {Outcome.PASS: "pass", Outcome.REGRESSION: "**regression**", Outcome.INCONCLUSIVE: "inconclusive"}


def markdown_report(report: Report) -> str:
    """The headline, what failed or stayed open, the losses at each radius, and the rules."""
    text = escaping.markdown
    blocks = [f"## certbench: {text(report.head)} against {text(report.base)}", f"**{text(report.headline)}**"]
    pressing = [item for item in report.findings if item.outcome is not Outcome.PASS]
    if pressing:
        blocks.append(_table(pressing))
    losses = [item for item in report.findings if item.kind is Kind.LOSS and item.outcome is Outcome.PASS]
    others = len(report.findings) - len(pressing) - len(losses)
    if losses:
        blocks += ["<details><summary>Losses within the margin</summary>", _table(losses), "</details>"]
    if others:
        blocks.append(f"{others} other checks passed.")
    if report.notes:
        blocks.append("\n".join(f"- {escaping.markdown_line(note)}" for note in report.notes[:MOST_ROWS]))
    blocks.append(text(rules_in_words(report)))
    return "\n\n".join(blocks) + "\n"


def rules_in_words(report: Report) -> str:
    """What the gate tolerates, in one sentence or two."""
    rules = report.rules
    return (
        f"Rules: a loss of certified accuracy is a regression beyond {100 * rules.margin:g} points and at p <= "
        f"{rules.false_alarms:g}, corrected over all tests (Holm), so that a change that changes nothing raises an "
        f"alarm with a probability of at most {rules.false_alarms:g}; rows of one key must be equal; proofs of one "
        f"classifier must be kept; counters of passes may grow by {100 * rules.cost:g} %."
    )


def _table(findings: list[Finding]) -> str:
    text = escaping.markdown
    rows = [["outcome", "check", "entry", "", "found"], [":--"] * 5]
    rows += [
        [_SIGNS[item.outcome], item.kind.value, text(item.entry), text(item.about), text(item.said)]
        for item in findings[:MOST_ROWS]
    ]
    if len(findings) > MOST_ROWS:
        rows.append(["", "", "", "", f"and {len(findings) - MOST_ROWS} more"])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
