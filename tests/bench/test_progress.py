import io
import itertools
import time

import pytest
from rich.console import Console

from bench.progress import PlainReporter, Reporter, RichReporter, reporter_for

# Everything that rich or a terminal would make something else of.
HOSTILE = "[red]a[/] [link=http://x.y]b[/link] :smile: [/] \\[c] 8/255 {d} %s"


def plain(seconds_between: float = 5.0) -> tuple[PlainReporter, io.StringIO]:
    written = io.StringIO()
    return PlainReporter(Console(file=written, width=30), seconds_between), written


def test_notes_and_warnings_are_lines_of_any_length() -> None:
    reporter, written = plain()
    reporter.note("x" * 100)
    reporter.warn("y" * 100)
    assert written.getvalue() == f"{'x' * 100}\nwarning: {'y' * 100}\n"


def test_a_task_is_a_line_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(step=1)
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    reporter, written = plain()
    with reporter.task("certify", 4) as task:
        for _ in range(4):
            task.advance(1, "3 entries")
    assert written.getvalue() == "certify: 4/4, 4.0 s, 3 entries\n"


def test_a_long_task_is_a_line_every_few_seconds_with_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(step=3)
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    reporter, written = plain()
    with reporter.task("certify", 60) as task:
        for _ in range(6):
            task.advance(10)
    # Steps end at 3, 6, 9, ... seconds; 20 of 60 in 6 seconds leave 12.
    assert written.getvalue().splitlines() == [
        "certify: 20/60, 12 s left",
        "certify: 40/60, 6 s left",
        "certify: 60/60, 18.0 s",
    ]


@pytest.mark.parametrize("force_terminal", [False, True])
def test_a_reporter_for_a_terminal_has_bars_and_for_a_file_lines(force_terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=force_terminal, _environ={})
    assert type(reporter_for(console)) is (RichReporter if force_terminal else PlainReporter)


@pytest.mark.parametrize("kind", [PlainReporter, RichReporter])
def test_names_are_text_and_never_markup(kind: type[Reporter]) -> None:
    written = io.StringIO()
    reporter = kind(Console(file=written, force_terminal=kind is RichReporter, width=500, no_color=True, _environ={}))  # type: ignore[call-arg]
    reporter.note(f"note {HOSTILE}")
    reporter.warn(f"warn {HOSTILE}")
    with reporter.task(f"task {HOSTILE}", 1) as task:
        task.advance(1, f"detail {HOSTILE}")
    text = written.getvalue()
    for word in ("note", "warn", "task", "detail"):
        assert f"{word} {HOSTILE}" in text
    assert "warning: " in text
    assert "1/1" in text


def test_a_bar_ends_when_its_work_raises() -> None:
    reporter = RichReporter(Console(file=io.StringIO(), force_terminal=True, _environ={}))
    with pytest.raises(KeyboardInterrupt), reporter.task("train", 3):
        raise KeyboardInterrupt
    with reporter.task("train again", 1) as task:  # a live display that was left open would refuse a second
        task.advance(1)
