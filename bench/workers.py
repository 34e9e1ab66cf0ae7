"""Worker processes: independent pieces of a run side by side, with their progress told in one place."""

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch

from bench.allocator import keep_memory
from bench.number_formats import full_float32
from bench.progress import Reporter, Task

#: Memory that one worker may be expected to need; fewer are started where there is less.
GIBIBYTES_EACH = 3


class WorkerError(RuntimeError):
    """A worker process ended without an answer."""


def jobs_for(device: str = "cpu") -> int:
    """How many workers this machine has room for: one a core, with `GIBIBYTES_EACH` of memory; 1 on an accelerator."""
    if device != "cpu":
        return 1
    cores = certification_threads(1)
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (ValueError, OSError, AttributeError):
        memory = GIBIBYTES_EACH * cores
    return max(1, min(cores, int(memory // GIBIBYTES_EACH)))


def certification_threads(jobs: int) -> int:
    """The threads of each of so many workers: the cores, shared."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // max(1, jobs))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run the body with so many threads of PyTorch; the pool is touched only where that is another number."""
    before = torch.get_num_threads()
    if count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


@dataclass(eq=False)
class Piece:
    """A piece of work: a function at the top of a module, its arguments, and the pieces that must be done before.

    `work(*arguments, reporter)` is called in a worker; arguments and answer are pickled. `prepare`, if given, makes
    the arguments when the piece is about to start, from what was done by then; None from it leaves the piece out.
    """

    work: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    after: Sequence["Piece"] = ()
    prepare: Callable[[], tuple[Any, ...] | None] | None = None
    done: Callable[[Any], None] = field(default=lambda answer: None)
    failed: Callable[[Exception], None] | None = None


class Workers:
    """Runs pieces of work, at most `jobs` at a time, each after those it names. A context: its end ends the processes.

    Processes are started when there are two pieces to run, and serve until the end: each takes seconds to start. With
    one job, or one piece, the work is done in this process.
    """

    def __init__(self, jobs: int, reporter: Reporter) -> None:
        self._jobs, self._reporter = jobs, reporter
        self._events: Any = None
        self._listener: _Listener | None = None
        self._executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._executor is not None and self._listener is not None:
            if error is not None:
                self._listener.end_workers()
            self._executor.shutdown(wait=True, cancel_futures=True)
            self._listener.close()

    def run(self, pieces: Sequence[Piece]) -> None:
        """Do all the pieces; answers are handed to `done` here. What a piece raises goes to its `failed`, or is raised.

        Raises:
            WorkerError: a worker was killed, by the system when memory ran out.
        """
        if self._jobs <= 1 or len(pieces) <= 1:
            for piece in pieces:
                _here(piece, self._reporter)
            return
        if self._executor is None:
            context = multiprocessing.get_context("spawn")
            events = context.SimpleQueue()
            self._listener = _Listener(events, self._reporter)
            threads_each = certification_threads(self._jobs)
            self._executor = ProcessPoolExecutor(self._jobs, context, _begin, (events, threads_each))
        try:
            _schedule(list(pieces), self._executor, self._jobs)
        except BrokenProcessPool as error:
            raise WorkerError(
                "A worker process was ended from outside, probably because memory ran out. What was finished is "
                f"stored; run again with fewer than {self._jobs} jobs (--jobs)."
            ) from error


def _here(piece: Piece, reporter: Reporter) -> None:
    arguments = piece.prepare() if piece.prepare else piece.arguments
    if arguments is None:
        return
    try:
        answer = piece.work(*arguments, reporter)
    except Exception as error:
        if piece.failed is None:
            raise
        piece.failed(error)
    else:
        piece.done(answer)


def _schedule(waiting: list[Piece], executor: ProcessPoolExecutor, workers: int) -> None:
    running: dict[Future[Any], Piece] = {}
    while waiting or running:
        for piece in list(waiting):
            if len(running) == workers:
                break
            if any(before in waiting or before in running.values() for before in piece.after):
                continue
            waiting.remove(piece)
            arguments = piece.prepare() if piece.prepare else piece.arguments
            if arguments is not None:
                # By value: tensors would be handed over as open files, of which there are only so many.
                running[executor.submit(_work, pickle.dumps((piece.work, arguments)))] = piece
        if not running:
            continue
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            piece = running.pop(future)
            error = future.exception()
            if isinstance(error, BrokenProcessPool) or (error is not None and not isinstance(error, Exception)):
                raise error
            if error is None:
                piece.done(future.result())
            elif piece.failed is not None and isinstance(error, Exception):
                piece.failed(error)
            else:
                raise error


_reporter: "_Remote | None" = None


def _begin(events: Any, threads_each: int) -> None:
    """What a worker does first."""
    global _reporter
    # Ctrl-C reaches all processes of a terminal; the parent ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def leave_with_the_parent() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=leave_with_the_parent, daemon=True).start()
    torch.set_num_threads(threads_each)
    full_float32()
    keep_memory()
    _reporter = _Remote(events)
    events.put(("worker", os.getpid()))


def _work(pickled: bytes) -> Any:
    assert _reporter is not None, "set when the worker began"  # noqa: S101
    work, arguments = pickle.loads(pickled)  # noqa: S301  (written a moment ago by the parent process)
    return work(*arguments, _reporter)


class _Remote(Reporter):
    """Tells the parent process."""

    def __init__(self, events: Any) -> None:
        self._events = events
        self._tasks = 0

    def note(self, text: str) -> None:
        self._events.put(("note", text))

    def warn(self, text: str) -> None:
        self._events.put(("warn", text))

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Task]:
        self._tasks += 1
        identity = (os.getpid(), self._tasks)
        self._events.put(("open", identity, label, total))
        try:
            yield _RemoteTask(self._events, identity)
        finally:
            self._events.put(("close", identity))


class _RemoteTask(Task):
    def __init__(self, events: Any, identity: tuple[int, int]) -> None:
        self._events, self._identity = events, identity

    def advance(self, steps: int, detail: str = "") -> None:
        self._events.put(("advance", self._identity, steps, detail))


class _Listener:
    """A thread that hands what workers tell to the reporter."""

    def __init__(self, events: Any, reporter: Reporter) -> None:
        self._events, self._reporter = events, reporter
        self._workers: list[int] = []
        self._open: dict[tuple[int, int], tuple[Any, Task]] = {}
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def end_workers(self) -> None:
        """End the workers now; what they stored stays."""
        for worker in self._workers:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGTERM)

    def close(self) -> None:
        self._events.put(None)
        self._thread.join()
        for context, _ in self._open.values():
            context.__exit__(None, None, None)

    def _listen(self) -> None:
        while (event := self._events.get()) is not None:
            kind, *rest = event
            if kind == "worker":
                self._workers.append(rest[0])
            elif kind == "open":
                identity, label, total = rest
                context = self._reporter.task(label, total)
                self._open[identity] = (context, context.__enter__())
            elif kind == "advance":
                self._open[rest[0]][1].advance(*rest[1:])
            elif kind == "close":
                self._open.pop(rest[0])[0].__exit__(None, None, None)
            else:
                getattr(self._reporter, kind)(*rest)
