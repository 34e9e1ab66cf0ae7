"""Marks: what must be read beside an entry's numbers wherever they stand outside of the ranking.

The ranking shows in its own way which rows to doubt: those found unsound have no rank, unverified ones a heading of
their own. Tables and figures that order entries otherwise have only these words to say it by.
"""

from leaderboards.badges import PUBLISHED, is_verified
from leaderboards.records import Entry

#: An audit refuted certificates of the entry.
UNSOUND = "UNSOUND"

#: No check of the entry's certifier reached L2, or one found a failure.
UNVERIFIED = "unverified"


def mark(entry: Entry) -> str:
    """`UNSOUND`, `unverified`, both with a comma between, `published, not verified here`, or nothing."""
    if entry.imported:
        return PUBLISHED.lower()
    found = [UNSOUND] if entry.audit is not None and entry.audit.unsound else []
    return ", ".join(found + ([] if is_verified(entry) else [UNVERIFIED]))


def marked_name(entry: Entry) -> str:
    """`crown on drt (unverified)`: the name, and its mark where it has one."""
    found = mark(entry)
    return f"{entry.name} ({found})" if found else entry.name


def state(entry: Entry) -> str:
    """The status of an entry without numbers; of an incomplete one with how many images are missing."""
    found = f"{entry.status}: {entry.reason}" if entry.status == "incomplete" and entry.reason else entry.status
    return f"{PUBLISHED.lower()}; {found}" if entry.imported else found
