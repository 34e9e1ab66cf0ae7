"""Progress on stderr: bars on a terminal, plain lines elsewhere. Data goes to stdout, never here."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text


class Reporter(ABC):
    """Tells a person what a run is doing."""

    @abstractmethod
    def note(self, text: str) -> None:
        """A line worth keeping."""

    @abstractmethod
    def warn(self, text: str) -> None:
        """A line about something that went wrong and was dealt with, or was not."""

    @abstractmethod
    @contextmanager
    def task(self, label: str, total: int) -> Iterator["Task"]:
        """A piece of work of `total` steps; ends with the block."""
        yield NotImplemented


class Task(ABC):
    """One piece of work in progress."""

    @abstractmethod
    def advance(self, steps: int, detail: str = "") -> None:
        """So many more steps are done; `detail` replaces the text behind the count."""


class PlainReporter(Reporter):
    """Lines of text, at most one every few seconds a task, and one at its end."""

    def __init__(self, console: Console, seconds_between: float = 5.0) -> None:
        self._console = console
        self._seconds_between = seconds_between

    def note(self, text: str) -> None:
        """Print the line."""
        self._print(text)

    def warn(self, text: str) -> None:
        """Print the line, marked."""
        self._print(f"warning: {text}")

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Task]:
        """Report a piece of work in lines."""
        yield _PlainTask(self, label, total, self._seconds_between)

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)


class _PlainTask(Task):
    def __init__(self, reporter: PlainReporter, label: str, total: int, seconds_between: float) -> None:
        self._reporter, self._label, self._total = reporter, label, total
        self._seconds_between = seconds_between
        self._done = 0
        self._started = self._last = time.monotonic()

    def advance(self, steps: int, detail: str = "") -> None:
        self._done += steps
        now = time.monotonic()
        if self._done < self._total and now - self._last < self._seconds_between:
            return
        self._last = now
        left = (now - self._started) / self._done * (self._total - self._done) if self._done else 0.0
        timing = f"{left:.0f} s left" if self._done < self._total else f"{now - self._started:.1f} s"
        self._reporter.note(f"{self._label}: {self._done}/{self._total}, {timing}{', ' + detail if detail else ''}")


class RichReporter(Reporter):
    """Bars with count, time spent and time left; pieces of work that overlap share one display."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._display: Progress | None = None
        self._open = 0

    def note(self, text: str) -> None:
        """Print the line above the bars."""
        self._console.print(Text(text))

    def warn(self, text: str) -> None:
        """Print the line above the bars, coloured."""
        self._console.print(Text.assemble(("warning:", "yellow"), f" {text}"))

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Task]:
        """Show a piece of work as a bar."""
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(elapsed_when_finished=False),
            TextColumn("{task.fields[detail]}", markup=False),
        )
        if self._display is None:
            self._display = Progress(*columns, console=self._console)
            self._display.start()
        self._open += 1
        display = self._display
        try:
            yield _RichTask(display, display.add_task(label, total=total, detail=""))
        finally:
            self._open -= 1
            if not self._open:
                display.stop()
                self._display = None


class _RichTask(Task):
    def __init__(self, progress: Progress, identity: object) -> None:
        self._progress, self._identity = progress, identity

    def advance(self, steps: int, detail: str = "") -> None:
        self._progress.update(self._identity, advance=steps, detail=detail)  # type: ignore[arg-type]


def reporter_for(console: Console) -> Reporter:
    """Bars where a person looks at a terminal, lines elsewhere."""
    return RichReporter(console) if console.is_terminal else PlainReporter(console)
