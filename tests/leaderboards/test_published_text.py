from pathlib import Path

import pytest

from leaderboards.published_text import LogError, lines_of, refuse_repeated, whole


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes("a\tb\nσ = 1\n".encode())
    assert lines_of(tmp_path / "log") == ["a\tb", "σ = 1"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"log: the file is empty\. Get the log again from its source"),
        (b"\xef\xbb\xbfa\n", r"log:1: begins with a byte order mark\. Save the file as UTF-8 without one"),
        ("a\n".encode("utf-16"), r"log:1: begins with a byte order mark"),
        (b"a\nb\xe9c\nd\n", r"log:2: not UTF-8 \(byte 0xe9\)\. A log is plain text"),
        (b"a\nb\r\nc\n", r"log:2: the line ends in a carriage return \(CRLF\)\. Lines end in a line feed alone"),
        (b"a\rb\n", r"log:1: the line ends in a carriage return"),
        (b"a\n\nb\n", r"log:2: the line is empty\. Every line holds one image; remove it"),
        (b"a\nb\n \t\n", r"log:3: the line is empty"),
        (b"a\nb", r"log:2: the last line does not end in a line feed, so the file may have been cut off"),
        (b"a\nb\x00\n", r"log:2: holds the character '\\x00'\. A log has printable characters only"),
        (b"a\x0bb\n", r"log:1: holds the character '\\x0b'"),
        ("a\u2028b\n".encode(), r"log:1: holds the character '\\u2028'"),
        ("1\u202e2\n".encode(), r"log:1: holds the character '\\u202e'"),
    ],
)
def test_what_is_no_plain_text_is_refused_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "log").write_bytes(content)
    with pytest.raises(LogError, match=message):
        lines_of(tmp_path / "log")


@pytest.mark.parametrize("text", ["", "+1", "-0", "01", "1.0", "1e3", "1_0", " 1", "１", "9" * 19])
def test_what_is_no_plain_whole_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"idx is .*, not a whole number"):
        whole("idx", text)


def test_repeated_images_are_refused_with_all_their_lines() -> None:
    refuse_repeated(Path("log"), {7: [2], 8: [3]})
    with pytest.raises(
        LogError, match=r"log: 2 of 3 images occur more than once: 7 \(lines 2, 5\), 9 \(lines 4, 6, 7\)"
    ):
        refuse_repeated(Path("log"), {7: [2, 5], 8: [3], 9: [4, 6, 7]})
    with pytest.raises(LogError, match=r"12 of 12 images .* and 2 more\. Nothing says which row holds"):
        refuse_repeated(Path("log"), {image: [image, image + 50] for image in range(12)})
