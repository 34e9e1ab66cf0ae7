"""Text files of others, read so that nothing is guessed: what is not plain UTF-8 in whole lines is refused.

A log that was cut off, edited on another system or saved by a spreadsheet still looks like a log. Each of these
leaves a trace in the bytes, and each is named with its line.
"""

import re
from pathlib import Path

from leaderboards.verified_files import StoredDataError

_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")
_UTF8_MARK, _UTF16_MARKS = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")


class LogError(StoredDataError):
    """A published log cannot be read as what it claims to be."""


def lines_of(path: Path) -> list[str]:
    r"""The lines of a text file, without their ends.

    Raises:
        FileNotFoundError: there is no such file.
        LogError: it is empty, begins with a byte order mark, is not UTF-8, has lines that do not end in `\n` alone, an
            empty line or a control character; names the line.
    """
    content = path.read_bytes()
    if not content:
        raise LogError(f"{path}: the file is empty. Get the log again from its source.")
    if content.startswith((_UTF8_MARK, *_UTF16_MARKS)):
        raise LogError(f"{path}:1: begins with a byte order mark. Save the file as UTF-8 without one.")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        wrong = content[error.start]
        raise LogError(
            f"{path}:{number}: not UTF-8 (byte 0x{wrong:02x}). A log is plain text; save it as UTF-8, or get it again."
        ) from None
    for number, line in enumerate(text.split("\n"), start=1):
        if "\r" in line:
            raise LogError(
                f"{path}:{number}: the line ends in a carriage return (CRLF). Lines end in a line feed alone: "
                "tr -d '\\r' < FILE > NEW."
            )
        # A tab parts the columns; other control characters do not belong, and some are taken for line ends.
        strange = next((character for character in line if not character.isprintable() and character != "\t"), None)
        if strange is not None:
            raise LogError(f"{path}:{number}: holds the character {strange!r}. A log has printable characters only.")
    lines = text.split("\n")
    if lines.pop():
        raise LogError(
            f"{path}:{len(lines) + 1}: the last line does not end in a line feed, so the file may have been cut off. "
            "Get it again, or end the line if it is whole."
        )
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            raise LogError(f"{path}:{number}: the line is empty. Every line holds one image; remove it.")
    return lines


def whole(column: str, text: str) -> int:
    """A whole number below 10^18 in its usual spelling, or ValueError."""
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{column} is {text!r}, not a whole number.")
    return int(text)


def refuse_repeated(path: Path, found: dict[int, list[int]]) -> None:
    """Refuse a log in which an image occurs twice; `found` has the lines of each image.

    Which of two rows is the result of the method cannot be told from the log.

    Raises:
        LogError: with the images and their lines.
    """
    repeated = {image: lines for image, lines in found.items() if len(lines) > 1}
    if repeated:
        shown = [f"{image} (lines {', '.join(map(str, lines))})" for image, lines in list(repeated.items())[:10]]
        more = f" and {len(repeated) - 10} more" if len(repeated) > 10 else ""
        raise LogError(
            f"{path}: {len(repeated)} of {len(found)} images occur more than once: {', '.join(shown)}{more}. Nothing "
            "says which row holds; get the log again from its source."
        )
