"""Trained members: loaded where they are stored, trained and stored where they are not."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import torch

from bench.datasets import Dataset
from bench.jobs import TrainJob
from bench.progress import Reporter
from bench.store import Store, write_file
from bench.workers import threads
from ensembles import Ensemble, WeightedAverage, architectures, checkpoint, derive_seed
from ensembles.architectures import Classifier
from ensembles.cancelling import cancelling_pair, hidden_widths
from ensembles.checkpoint import Checkpoint, CheckpointError
from ensembles.registry import RegistryError
from ensembles.training import EpochReport, ResumeError, TrainingState, noisy_accuracies, train


def stored_members(job: TrainJob, path: Path) -> Checkpoint:
    """The members of a job from its checkpoint.

    Raises:
        CheckpointError: it was altered, or holds the members of another job.
    """
    try:
        stored = checkpoint.load(path)
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, RegistryError) as error:
        raise CheckpointError(f"{path}: the header is damaged ({error}). Delete the file to train again.") from error
    if stored.header.get("recipe_digest") != job.digest:
        raise CheckpointError(f"{path}: holds other members than its name says. Delete the file to train again.")
    return stored


def members_for(
    job: TrainJob,
    dataset: Dataset,
    store: Store,
    device: str,
    reporter: Reporter,
    trained: Mapping[str, Checkpoint] = MappingProxyType({}),
) -> Checkpoint:
    """The members of a job, in eval mode, on the CPU; an interrupted training is continued after its last epoch.

    Planted members are built from those of their start.

    `trained` holds the checkpoints of the jobs that this one starts from, by digest. Beside the checkpoint a log
    is kept, one JSON object an epoch: `EpochReport`.

    Raises:
        TrainingError: a loss or a gradient was not finite.
        CheckpointError: a stored checkpoint was altered; it is refused, not replaced.
        StoreError: the checkpoint cannot be written.
    """
    path = store.checkpoint(job.digest)
    if path.is_file():
        return stored_members(job, path)
    if job.planted:
        write_file(path, _planted(job, dataset, trained))
        return checkpoint.load(path)
    recipe = job.recipe
    members = _fresh_members(job, trained)
    ensemble = Ensemble(members).to(torch.device(device))
    log, unfinished = path.with_suffix(".log.jsonl"), path.with_suffix(".training")
    resumed = _resumable(unfinished, job, reporter)
    reports = list(resumed.reports) if resumed else []

    def warn(epoch: EpochReport, number: int, what: str) -> None:
        accuracy = f"noisy validation accuracy {epoch.member_accuracies[number]:.1%}"
        reporter.warn(f"{job.label}: member {number + 1} of {len(members)} {what}: {accuracy}")

    with reporter.task(f"train {job.label}", job.schedule.epochs) as task:
        if resumed:
            task.advance(len(reports), "resumed")

        def report(epoch: EpochReport) -> None:
            before = reports[-1].collapsed if reports else ()
            reports.append(epoch)
            task.advance(1, f"loss {epoch.loss:.4f}, noisy validation accuracy {epoch.validation_accuracy:.1%}")
            # Once when it happens; a member may recover, so the end of the training says what came of it.
            for number in epoch.collapsed:
                if number not in before and epoch.epoch < job.schedule.epochs:
                    warn(epoch, number, f"has collapsed at epoch {epoch.epoch}")

        def keep(state: TrainingState) -> None:
            write_file(unfinished, state.to_bytes())
            write_file(log, _log_lines(reports))

        def learn(resume_from: TrainingState | None) -> None:
            train(
                *(ensemble, job.objective, job.schedule, dataset.train, dataset.validation, recipe["seed"], report),
                resume_from=resume_from,
                on_state=keep,
            )

        try:
            learn(resumed)
        except ResumeError as error:
            reporter.warn(f"{unfinished}: {error} {job.label} is trained from the start.")
            unfinished.unlink()
            for member, fresh in zip(members, _fresh_members(job, trained), strict=True):
                member.load_state_dict(fresh.state_dict())
            reports.clear()
            learn(None)
    last = reports[-1]
    for number in last.collapsed:
        warn(last, number, "is trained and collapsed")
    header = {
        "architecture": recipe["architecture"],
        "input_shape": recipe["input_shape"],
        "classes": recipe["classes"],
        "options": recipe["options"],
        "recipe": recipe,
        "recipe_digest": job.digest,
        "validation_accuracy": last.validation_accuracy,
        "member_accuracies": list(last.member_accuracies),
        "collapsed": list(last.collapsed),
        "training_seconds": last.seconds,
    }
    ensemble.to("cpu")
    write_file(log, _log_lines(reports))
    write_file(path, checkpoint.serialize(members, header))
    unfinished.unlink(missing_ok=True)
    return checkpoint.load(path)


def trained_alone(
    job: TrainJob,
    dataset: Dataset,
    store: Store,
    device: str,
    trained: Mapping[str, Checkpoint],
    reporter: Reporter,
) -> None:
    """`members_for` on one thread, into the store: the order in which threads add up changes last bits of the weights.

    So they do not depend on the number of cores, nor on how many trainings run side by side.
    """
    with threads(1):
        members_for(job, dataset, store, device, reporter, trained)


def _planted(job: TrainJob, dataset: Dataset, trained: Mapping[str, Checkpoint]) -> bytes:
    """The checkpoint of a cancelling pair. Its members answer at random by design, so none has collapsed."""
    alone = trained[job.starts[0].digest].members[0]
    assert isinstance(alone, Classifier)  # noqa: S101
    pair = cancelling_pair(alone, tuple(dataset.input_shape), job.recipe["seed"])
    ensemble = Ensemble(pair, WeightedAverage(of="logit"))
    accuracy, accuracies, _ = noisy_accuracies(ensemble, job.objective, dataset.validation, job.recipe["seed"])
    header = {
        "architecture": alone.architecture,
        "input_shape": job.recipe["input_shape"],
        "classes": dataset.classes,
        "options": {"hidden": hidden_widths(pair[0])},
        "recipe": job.recipe,
        "recipe_digest": job.digest,
        "validation_accuracy": accuracy,
        "member_accuracies": list(accuracies),
        "collapsed": [],
        "training_seconds": 0.0,
    }
    return checkpoint.serialize(pair, header)


def new_members(job: TrainJob) -> list[Classifier]:
    """Members with their first weights, before any training or start."""
    recipe = job.recipe
    return [
        architectures.create(
            recipe["architecture"],
            input_shape=tuple(recipe["input_shape"]),
            classes=recipe["classes"],
            seed=derive_seed(recipe["seed"], "weights", number),
            mean=recipe["mean"],
            std=recipe["std"],
            **recipe["options"],
        )
        for number in range(recipe["members"])
    ]


def _fresh_members(job: TrainJob, trained: Mapping[str, Checkpoint]) -> list[Classifier]:
    """New members, or copies of those that the job starts from."""
    members = new_members(job)
    lent = [member for start in job.starts for member in trained[start.digest].members]
    for member, start in zip(members, lent[job.first_start :], strict=False):
        member.load_state_dict(start.state_dict())
    return members


def _resumable(path: Path, job: TrainJob, reporter: Reporter) -> TrainingState | None:
    if not path.is_file():
        return None
    try:
        state = TrainingState.from_bytes(path.read_bytes())
    except ResumeError as error:
        reporter.warn(f"{path}: {error} Set aside; {job.label} is trained from the start.")
        path.rename(path.with_name(f"{path.name}.corrupt"))
        return None
    reporter.note(f"{job.label}: resumes after epoch {len(state.reports)} of {job.schedule.epochs}")
    return state


def _log_lines(reports: Sequence[EpochReport]) -> bytes:
    return "".join(json.dumps(dataclasses.asdict(report)) + "\n" for report in reports).encode()
