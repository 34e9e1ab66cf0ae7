"""The runner: trains what is missing, certifies what is not stored, and writes down what it did."""

from pathlib import Path

import torch

from bench import provenance
from bench.certification import Asked, Certified, Task, certify, groups_of, parts_of, tasks_of
from bench.choosing import answered_rightly
from bench.datasets import DataError
from bench.jobs import TrainJob
from bench.manifest import Outcome, write_down
from bench.number_formats import full_float32
from bench.options import Options
from bench.plan import Plan
from bench.progress import Reporter
from bench.selection import select
from bench.store import Store, StoreError
from bench.training import stored_members, trained_alone
from bench.workers import Piece, Workers
from ensembles.checkpoint import Checkpoint, CheckpointError
from ensembles.training import TrainingError

__all__ = ["Options", "Outcome", "check_device", "run"]


def check_device(device: str) -> None:
    """Refuse a device that is not there.

    Raises:
        ValueError: says what was asked for and what there is.
    """
    there = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    if device not in there and not (device == "cuda" and len(there) > 1):
        raise ValueError(f"Device {device!r} is not here. Available: {', '.join(there)}.")


def run(plan: Plan, options: Options, reporter: Reporter) -> Outcome:
    """Execute a plan: resumes where an earlier run stopped, recomputes nothing that is stored.

    Blocks of images are stored as they are done. A method that raises costs the image, not the run.

    Raises:
        StoreError: the store is in use, full or not writable.
        SelectionError: no candidate of a grid could be scored.
        ClassifierChangedError: a method changed weights that other entries share.
        CheckpointError: a stored checkpoint was altered.
        ChoosingError: fewer images are answered rightly than the spec asks for.
        WorkerError: a worker process was killed.
        KeyboardInterrupt: the user stopped it; finished blocks are stored.
    """
    full_float32()
    store = Store(options.output)
    with store.locked(), Workers(options.jobs, reporter) as workers:

        def search(candidates: Plan) -> Path:
            return _execute(candidates, store, options, reporter, workers).manifest

        return _execute(select(plan, search, store.root / "boards", reporter), store, options, reporter, workers)


def _execute(plan: Plan, store: Store, options: Options, reporter: Reporter, workers: Workers) -> Outcome:
    trained, failures = _train(plan, store, options, reporter, workers)
    plan = answered_rightly(plan, trained)
    used = provenance.collect(options.device, options.jobs, options.batch_size)
    tasks = tasks_of(plan, store, trained, options, reporter)
    once = list({task.key: task for task in tasks.values()}.values())
    stored = sum(len(plan.images) - len(task.pending) for task in once)
    computed = _certify(plan, store, groups_of(once), options, workers)
    return write_down(plan, store, tasks, failures, used, computed, stored, options, reporter)


def _certify(plan: Plan, store: Store, groups: list[list[Task]], options: Options, workers: Workers) -> int:
    """Certify all groups, and return how many rows were computed."""
    computed: list[int] = []
    asked = Asked.by(plan)

    def pieces(group: list[Task]) -> list[Piece]:
        first, *later = parts_of(group, options.jobs, options.block_size)

        def piece(part: list[Task], *before: Piece) -> Piece:
            sent: list[Task] = []

            def prepare() -> tuple[object, ...] | None:
                for whole, own in zip(group, part, strict=True):
                    own.unsupported = whole.unsupported
                sent[:] = [whole for whole in group if not whole.unsupported]
                supported = [own for own in part if not own.unsupported]
                return (asked, store, supported, options) if supported else None

            def done(answer: Certified) -> None:
                computed.append(answer.rows)
                for task, (unsupported, errors) in zip(sent, answer.said, strict=True):
                    task.unsupported = unsupported
                    task.errors = [*task.errors, *errors]

            return Piece(certify, after=before, prepare=prepare, done=done)

        start = piece(first)
        return [start, *(piece(part, start) for part in later)]

    workers.run([piece for group in groups for piece in pieces(group)])
    return sum(computed)


def _train(
    plan: Plan, store: Store, options: Options, reporter: Reporter, workers: Workers
) -> tuple[dict[str, Checkpoint], dict[str, str]]:
    """The checkpoints of all jobs by digest, and why a training stopped where one did; the others go on."""
    trained: dict[str, Checkpoint] = {}
    failures: dict[str, str] = {}
    pieces: dict[str, Piece] = {}

    def failed(job: TrainJob, error: Exception) -> None:
        if isinstance(error, (StoreError, CheckpointError, DataError)) or not isinstance(
            error, (RuntimeError, ValueError)
        ):
            raise error
        kind = "" if isinstance(error, TrainingError) else f"{type(error).__name__}: "
        failures[job.digest] = f"{job.label}: {kind}{error}"
        reporter.warn(failures[job.digest])

    def piece(job: TrainJob) -> Piece:
        def prepare() -> tuple[object, ...] | None:
            stopped = [failures[start.digest] for start in job.starts if start.digest in failures]
            if stopped:
                failed(job, TrainingError(f"its start could not be trained: {stopped[0]}"))
                return None
            starts = {start.digest: trained[start.digest] for start in job.starts}
            return job, plan.dataset, store, options.device, starts

        def done(_: None) -> None:
            trained[job.digest] = stored_members(job, store.checkpoint(job.digest))

        return Piece(
            trained_alone,
            after=[pieces[start.digest] for start in job.starts if start.digest in pieces],
            prepare=prepare,
            done=done,
            failed=lambda error: failed(job, error),
        )

    for job in plan.jobs():
        if store.checkpoint(job.digest).is_file():
            trained[job.digest] = stored_members(job, store.checkpoint(job.digest))
        else:
            pieces[job.digest] = piece(job)
    workers.run(list(pieces.values()))
    return trained, failures
