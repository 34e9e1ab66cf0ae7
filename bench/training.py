"""Trained members: loaded where they are stored, trained and stored where they are not."""

from pathlib import Path

import torch

from bench.datasets import Dataset
from bench.plan import TrainJob
from bench.progress import Reporter
from bench.store import Store, write_file
from ensembles import Ensemble, architectures, checkpoint, derive_seed
from ensembles.checkpoint import Checkpoint, CheckpointError
from ensembles.registry import RegistryError
from ensembles.training import EpochReport, train


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


def members_for(job: TrainJob, dataset: Dataset, store: Store, device: str, reporter: Reporter) -> Checkpoint:
    """The members of a job, in eval mode, on the CPU.

    Raises:
        TrainingError: a loss was not finite.
        CheckpointError: a stored checkpoint was altered; it is refused, not replaced.
        StoreError: the checkpoint cannot be written.
    """
    path = store.checkpoint(job.digest)
    if path.is_file():
        return stored_members(job, path)
    recipe = job.recipe
    members = [
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
    ensemble = Ensemble(members).to(torch.device(device))
    with reporter.task(f"train {job.label}", job.schedule.epochs) as task:

        def report(epoch: EpochReport) -> None:
            task.advance(1, f"loss {epoch.loss:.4f}, noisy validation accuracy {epoch.validation_accuracy:.1%}")

        history = train(
            ensemble, job.objective, job.schedule, dataset.train, dataset.validation, recipe["seed"], report
        )
    header = {
        "architecture": recipe["architecture"],
        "input_shape": recipe["input_shape"],
        "classes": recipe["classes"],
        "options": recipe["options"],
        "recipe": recipe,
        "recipe_digest": job.digest,
        "validation_accuracy": history[-1].validation_accuracy,
    }
    ensemble.to("cpu")
    write_file(path, checkpoint.serialize(members, header))
    return checkpoint.load(path)
