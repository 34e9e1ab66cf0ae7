"""`findings.md` of a published board, what its numbers say of the claims, as a part of its page.

The file is CommonMark with tables, read by markdown-it. It is text and nothing else on the page: HTML in it is shown
as written, pictures are their descriptions, and links that a page alone cannot follow are words.
"""

from collections.abc import Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from leaderboards.escaping import visible_lines

FINDINGS = "findings.md"

#: Links of the file to the board beside it; on the page that is the view of the board.
_BOARD = {"board.md": "#board-view", "board.html": "#board-view"}

#: The page has h1 and h2; the highest heading of the file is h3.
_DEEPER = 2


def findings_html(text: str) -> Markup:
    """The findings as HTML that may stand in a page as it is; empty for an empty text.

    Headings are two levels deeper than in the file. Of links, those to `https:` addresses and to the board itself stay.

    Args:
        text: Markdown; of any author.

    Source: CommonMark 0.31 and the tables of GitHub's Markdown, by markdown-it-py.
    """
    # Without `html`, markup in the text is escaped; without `linkify`, only what is written as a link is one.
    reader = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["html_block", "html_inline"])
    tokens = reader.parse(visible_lines(text))
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1:]) + _DEEPER)}"
        if token.children:
            token.children = _followable(token.children)
    html = reader.renderer.render(tokens, reader.options, {})
    # A wide table scrolls by itself, with the keyboard too.
    region = '<div class="scroll" role="region" aria-label="Table" tabindex="0"><table>'
    return Markup(html.replace("<table>", region).replace("</table>", "</table></div>"))  # noqa: S704


def _followable(tokens: Sequence[Token]) -> list[Token]:
    """The tokens of a paragraph without pictures and without the links that lead nowhere; their words stay."""
    kept: list[Token] = []
    open_links: list[bool] = []
    for token in tokens:
        if token.type == "link_open":
            address = str(token.attrGet("href") or "")
            open_links.append(address in _BOARD or address.startswith("https://"))
            token.attrs = {"href": _BOARD.get(address, address)}
            if address not in _BOARD:
                token.attrSet("rel", "noopener noreferrer")
            if not open_links[-1]:
                continue
        elif token.type == "link_close" and not open_links.pop():
            continue
        elif token.type == "image":
            token = Token("text", "", 0, content=token.content)
        kept.append(token)
    return kept
