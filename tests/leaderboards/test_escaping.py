import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from leaderboards import escaping


def test_visible_text_is_one_line_without_controls() -> None:
    assert escaping.visible("a\n b\t\x1b[31mc\x00\u202ed\ud800") == "a b \ufffd[31mc\ufffd\ufffdd\ufffd"
    assert escaping.visible("ℓ∞ größe 集成") == "ℓ∞ größe 集成"


@pytest.mark.parametrize(
    ("raw", "written"),
    [
        ("a|b", r"a\|b"),
        ("<b>&", "&lt;b&gt;&amp;"),
        ("_a_ *b* `c`", r"\_a\_ \*b\* \`c\`"),
        ("![x](http://y)", r"\!\[x\](http&#58;//y)"),
        ("a\nb", "a b"),
        ("a\\|b", r"a\\\|b"),
        ("www.evil.example/x", "www&#46;evil.example/x"),
        ("evil@x.com, @team", "evil@&#8288;x.com, @&#8288;team"),
        # Ordinary text is as it was, also in the cells of a table.
        ("-3", "-3"),
        ("pdd+deg @ 1. x", "pdd+deg @ 1. x"),
    ],
)
def test_markdown_shows_the_text(raw: str, written: str) -> None:
    assert escaping.markdown(raw) == written


@pytest.mark.parametrize(
    ("raw", "written"),
    [
        ("# heading", r"\# heading"),
        ("- item", r"\- item"),
        ("---", r"\---"),
        ("+ item", r"\+ item"),
        ("=", r"\="),
        ("> quote", "&gt; quote"),
        ("* item", r"\* item"),
        ("1. item", r"1\. item"),
        ("12) item", r"12\) item"),
        ("1.", r"1\."),
        ("1.5 s", "1.5 s"),
        ("200 images - # = + 1. x", "200 images - # = + 1. x"),
        ("pdd+deg", "pdd+deg"),
        ("", ""),
    ],
)
def test_a_line_of_markdown_begins_no_block(raw: str, written: str) -> None:
    assert escaping.markdown_line(raw) == written


def shown_by(markdown: str, *around: str) -> str:
    """The text of a document that is one paragraph of nothing but text, within these blocks, as readers see it."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown)
    assert [token.type for token in tokens if token.nesting >= 0] == [*around, "paragraph_open", "inline"]
    children = next(token.children for token in tokens if token.type == "inline")
    assert children
    assert {child.type for child in children} <= {"text", "text_special"}
    return "".join(child.content for child in children).replace("\u2060", "")


MARKUP = st.text(alphabet="#+-=>*_`~|[](){}<!\\&;:.@$\"'/^ \n\ta1", min_size=1, max_size=12).filter(str.strip)


@given(MARKUP)
def test_any_text_is_one_paragraph_of_markdown_and_nothing_else(text: str) -> None:
    line = escaping.markdown_line(text)
    assert shown_by(line) == escaping.visible(text)
    assert shown_by(f"- {line}", "bullet_list_open", "list_item_open") == escaping.visible(text)


@given(st.text(alphabet="`ab\n", max_size=30))
def test_no_text_closes_its_fence(text: str) -> None:
    lines = escaping.markdown_fence(text).split("\n")
    assert lines[0] == lines[-1] == "`" * len(lines[0])
    assert all(lines[0] not in line for line in lines[1:-1])


@pytest.mark.parametrize(
    ("raw", "written"),
    [
        (r"\input{x}", r"\textbackslash{}input\{x\}"),
        ("50% & $5 #1", r"50\% \& \$5 \#1"),
        ("a_b^c~d", r"a\_b\textasciicircum{}c\textasciitilde{}d"),
        ("a\nb", "a b"),
    ],
)
def test_latex_shows_the_text(raw: str, written: str) -> None:
    assert escaping.latex(raw) == written


@given(st.text(max_size=30), st.integers(3, 20))
def test_shortened_text_keeps_both_ends(text: str, length: int) -> None:
    short = escaping.shortened(text, length)
    assert len(short) <= length
    assert short == text or (len(short) == length and short[0] == text[0] and short[-1] == text[-1])
