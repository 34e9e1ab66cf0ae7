import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.plan import Plan
from bench.store import Store
from bench.training import members_for, stored_members
from ensembles import checkpoint
from ensembles.checkpoint import CheckpointError
from ensembles.training import TrainingError

Train = Callable[..., checkpoint.Checkpoint]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def test_a_job_is_trained_once_and_then_loaded(
    plan_of: Callable[..., Plan], store: Store, reporter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of()
    job = plan.jobs()[1]
    first = members_for(job, plan.dataset, store, "cpu", reporter)
    assert reporter.tasks == [("train three member 2 of 3", 3)]
    assert reporter.steps == [1, 1, 1]
    path = store.checkpoint(job.digest)
    content = path.read_bytes()

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("bench.training.train", refuse)
    again = members_for(job, plan.dataset, store, "cpu", reporter)
    assert again.digest == first.digest == checkpoint.weights_digest(again.members)
    assert path.read_bytes() == content
    assert len(reporter.tasks) == 1
    assert [member.training for member in again.members] == [False]


def test_the_same_job_gives_the_same_weights_and_another_seed_others(
    plan_of: Callable[..., Plan], store: Store, tmp_path: Path, reporter: Any
) -> None:
    plan = plan_of()
    one, other = plan.jobs()[:2]
    digests = [
        members_for(job, plan.dataset, Store(tmp_path / str(number)), "cpu", reporter).digest
        for number, job in enumerate((one, one, other))
    ]
    assert digests[0] == digests[1] != digests[2]


def test_the_header_says_what_was_trained_and_how_well(
    finished: tuple[Path, Any], plan_of: Callable[..., Plan]
) -> None:
    plan = plan_of()
    for job in plan.jobs():
        header = checkpoint.load(Store(finished[0]).checkpoint(job.digest)).header
        assert header["recipe"] == job.recipe
        assert header["recipe_digest"] == job.digest
        assert (header["architecture"], header["options"]) == ("mlp", {"hidden": [16]})
        assert 0.5 < header["validation_accuracy"] <= 1
    normalize = checkpoint.load(Store(finished[0]).checkpoint(plan.jobs()[0].digest)).members[0].normalize
    assert float(normalize.mean) == pytest.approx(plan.dataset.mean[0])  # type: ignore[arg-type]
    assert float(normalize.std) == pytest.approx(plan.dataset.std[0])  # type: ignore[arg-type]


def test_a_training_that_diverges_stores_nothing(
    plan_of: Callable[..., Plan], edited: Callable[..., str], store: Store, reporter: Any
) -> None:
    plan = plan_of(edited(('"adam"', '"sgd"'), ("0.005", "1e30")))
    with pytest.raises(TrainingError, match=r"^Training with 'gaussian' stopped: .* Lower the learning rate"):
        members_for(plan.jobs()[0], plan.dataset, store, "cpu", reporter)
    assert not list(store.root.rglob("*.safetensors"))


def test_a_training_that_diverges_is_exit_3(
    edited: Callable[..., str], tmp_path: Path, certbench: Callable[..., Any]
) -> None:
    (tmp_path / "tiny.toml").write_text(edited(('"adam"', '"sgd"'), ("0.005", "1e30")))
    result = certbench("run", tmp_path / "tiny.toml", "--output", tmp_path / "results")
    assert result.exit_code == 3
    assert "warning: three member 1 of 3: Training with 'gaussian' stopped: " in result.stderr
    # The board says so too, and has no number of it.
    board = json.loads((tmp_path / "results" / "boards" / "tiny" / "board.json").read_text())
    assert {(entry["status"], entry["scores"]) for entry in board["entries"]} == {("failed", None)}
    assert all("stopped: the term" in entry["reason"] or "gradient" in entry["reason"] for entry in board["entries"])


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")  # widths that damage made zero
def test_a_checkpoint_that_is_damaged_anywhere_is_refused_or_says_the_same(
    copied: Path, plan_of: Callable[..., Plan]
) -> None:
    job = plan_of().jobs()[0]
    path = Store(copied).checkpoint(job.digest)
    content = path.read_bytes()
    sound = stored_members(job, path)
    header = int.from_bytes(content[:8], "little")
    refused = 0
    # The header is where damage can look like anything; of the weights a few bytes will do.
    for position in [*range(0, header, 37), *range(header, len(content), 499)]:
        damaged = bytearray(content)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        try:
            found = stored_members(job, path)
        except CheckpointError:
            refused += 1
        else:
            assert found.digest == sound.digest
            assert checkpoint.weights_digest(found.members) == sound.digest
            assert position < header
    assert refused > 30


def test_a_checkpoint_of_another_job_is_refused(copied: Path, plan_of: Callable[..., Plan]) -> None:
    plan = plan_of()
    first, second, _ = plan.jobs()
    path = Store(copied).checkpoint(first.digest)
    with pytest.raises(CheckpointError, match=r"holds other members than its name says\. Delete the file to train ag"):
        stored_members(second, path)
    assert len(stored_members(first, path).members) == 1


def test_a_header_that_is_not_one_is_refused(copied: Path, plan_of: Callable[..., Plan]) -> None:
    job = plan_of().jobs()[0]
    path = Store(copied).checkpoint(job.digest)
    content = path.read_bytes()
    path.write_bytes(content.replace(b'\\"architecture\\"', b'\\"architectura\\"', 1))
    with pytest.raises(CheckpointError, match=r"Delete the file to train again\.|Delete it to train again\."):
        stored_members(job, path)


def test_training_leaves_the_global_generator_alone(plan_of: Callable[..., Plan], store: Store, reporter: Any) -> None:
    plan = plan_of()
    before = torch.get_rng_state()
    members_for(dataclasses.replace(plan.jobs()[0]), plan.dataset, store, "cpu", reporter)
    assert torch.equal(torch.get_rng_state(), before)
