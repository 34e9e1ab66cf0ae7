import re

import pytest

from leaderboards.findings import findings_html
from tests.leaderboards.test_page import Reader

TEXT = """# What held

**DRT** gains [on the board](board.md), see [the figure](margins.svg) and [the paper](https://example.org/a?b=1&c=2).

| r | 0 | 1 |
|---|--:|--:|
| DRT | 90.6 | 64.8 |

###### deep
"""


def test_markdown_becomes_headings_tables_and_links() -> None:
    found = Reader(findings_html(TEXT))
    assert [tag for tag, _ in found.tags if re.fullmatch(r"h\d", tag)] == ["h3", "h6"]
    assert [a["href"] for tag, a in found.tags if tag == "a"] == ["#board-view", "https://example.org/a?b=1&c=2"]
    words = " ".join("".join(found.words).split())
    assert "DRT gains on the board, see the figure and the paper." in words
    assert [tag for tag, _ in found.tags].count("td") == 3
    (around,) = (attributes for tag, attributes in found.tags if tag == "div")
    assert around == {"class": "scroll", "role": "region", "aria-label": "Table", "tabindex": "0"}
    assert findings_html("") == ""


@pytest.mark.parametrize(
    "text",
    [
        "<img src=x onerror=alert(1)>",
        "<script>alert(1)</script>",
        "a <b onclick=alert(1)>b</b> <!-- c -->",
        "[a](javascript:alert(1))",
        "[a](<java\tscript:alert(1)>)",
        "[a](data:text/html;base64,PHNjcmlwdD4=)",
        "[a](//example.org) [b](../../etc/passwd) [c](http://example.org) [d](#entry-1)",
        "![a](http://example.org/x.png)",
        "[![a](http://example.org/x.png)](x.html)",
        '[a]: javascript:alert(1) "t"\n\n[a] and <javascript:alert(1)> and <http://example.org>',
        "`</code><script>alert(1)</script>`\n\n    </pre><img src=x>",
        "| a |\n|---|\n| </table><script>alert(1)</script> |",
        "```</code><img src=x>\n</pre>\n```",
    ],
)
def test_what_is_no_text_stays_text(text: str) -> None:
    found = Reader(findings_html(text))
    known = {"p", "code", "pre", "div", "table", "thead", "tbody", "tr", "th", "td"}
    assert {tag for tag, _ in found.tags} <= known
    names = {name for _, attributes in found.tags for name in attributes}
    assert names <= {"class", "role", "aria-label", "tabindex"}
    assert "".join(found.words).strip()


def test_an_address_cannot_leave_its_attribute() -> None:
    found = Reader(findings_html('[a](https://x.y/"onclick="alert(1) "t" ) [b](https://x.y/<b>"\'onclick=1)'))
    assert {name for _, attributes in found.tags for name in attributes} <= {"href", "rel"}
    assert {tag for tag, _ in found.tags} <= {"p", "a"}


def test_turned_and_hidden_characters_are_shown() -> None:
    assert "\u202e" not in findings_html("a\u202eb [c](https://x.y/\u202ed)")
    assert "a\ufffdb" in findings_html("a\u202eb")
