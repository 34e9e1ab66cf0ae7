import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    ],
)
def test_markdown_shows_the_text(raw: str, written: str) -> None:
    assert escaping.markdown(raw) == written


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
