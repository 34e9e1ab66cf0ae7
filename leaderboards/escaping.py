"""Foreign text (names, reasons) made harmless for one target: it is shown as it is and never interpreted."""

import re
import unicodedata

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}


def visible(text: str) -> str:
    """One line without control or direction-changing characters, which no target can show."""
    return " ".join(visible_lines(text).split())


def visible_lines(text: str) -> str:
    """`visible` with the spaces and line breaks as they are, for texts of several lines."""
    # Cc and Cf: terminal escapes, NUL (illegal in XML), right-to-left overrides; Cs: lone surrogates.
    return "".join(
        character if character.isspace() or unicodedata.category(character) not in {"Cc", "Cf", "Cs"} else "\ufffd"
        for character in text
    )


def markdown(text: str) -> str:
    r"""Text for a table cell, or inside a line, of GitHub's Markdown: no markup, no HTML, no links, no cell ends.

    Entities for `& < >`, and for the colon of `://` and the dot of `www.`, which would become links; a backslash before
    other markup. Addresses of mail are looked for when entities are characters again, and so are mentions: an invisible
    word joiner parts `@` from what follows.

    Source: GitHub Flavored Markdown 0.29, section 6.9, and what its cmark-gfm does.
    """
    entities = visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    marked = re.sub(r"([\\`*_\[\]|~$!])", r"\\\1", entities).replace("://", "&#58;//")
    return re.sub(r"@(?=[^ ])", "@&#8288;", re.sub(r"(?i)(www)\.", r"\1&#46;", marked))


def markdown_line(text: str) -> str:
    """`markdown` for text that begins a paragraph or an item of a list: no heading, list, rule or underline either.

    A backslash before a first `# + - =`, and before the dot or bracket after a first number; `markdown` sees to the
    other signs that blocks begin with.

    Source: CommonMark 0.31, sections 4 and 5.
    """
    return re.sub(r"^([0-9]{1,9}(?=[.)](?: |$))|(?=[#+=-]))", r"\1\\", markdown(text))


def markdown_fence(text: str, language: str = "") -> str:
    """A code block of any text; its fence is longer than every run of backticks inside."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def latex(text: str) -> str:
    """Text for a LaTeX paragraph or cell; needs no package."""
    return "".join(_LATEX.get(character, character) for character in visible(text))


def shortened(text: str, length: int) -> str:
    """At most `length` characters; of a longer text the middle is left out, as names differ at their ends."""
    if len(text) <= length:
        return text
    head = (length - 1) // 2
    return f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"
