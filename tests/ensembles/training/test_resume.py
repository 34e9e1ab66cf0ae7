import dataclasses
import hashlib
import io
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ensembles.training.drt
import ensembles.training.priority_dropout  # noqa: F401  (each registers itself)
from ensembles import Ensemble, architectures, weights_digest
from ensembles.architectures import Classifier, Normalize
from ensembles.training import EpochReport, ResumeError, Schedule, TrainingState, create, train

SGD = Schedule(epochs=4, batch_size=8, learning_rate=0.05, momentum=0.9, weight_decay=1e-3, decay_every=2)
ADAM = Schedule(epochs=4, batch_size=8, optimizer="adam", learning_rate=0.01, weight_decay=1e-3)


def mlps(seed: int = 0, hidden: int = 8, members: int = 2) -> Ensemble:
    return Ensemble(
        [
            architectures.create("mlp", input_shape=(1, 4, 4), classes=3, seed=seed + number, hidden=(hidden,))
            for number in range(members)
        ]
    )


def convolutions() -> Ensemble:
    return Ensemble([architectures.create("conv_small", input_shape=(1, 4, 4), classes=3, seed=s) for s in (1, 2)])


def batch_norms() -> Ensemble:
    members = []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
            members.append(Classifier("norm", Normalize([0.0], [1.0], 3), body, nn.Linear(16, 3)))
    return Ensemble(members)


def digest(ensemble: Ensemble) -> str:
    return weights_digest(list(ensemble.members))


def timeless(reports: Any) -> list[EpochReport]:
    """Reports without what the clock says."""
    return [dataclasses.replace(report, seconds=0.0, seconds_left=0.0) for report in reports]


@pytest.mark.parametrize(
    ("build", "objective", "schedule", "interrupted_after"),
    [
        (mlps, {"name": "gaussian", "sigma": 0.5}, SGD, 2),
        (mlps, {"name": "gaussian", "sigma": 0.5}, ADAM, 1),
        (mlps, {"name": "drt", "sigma": 0.5}, SGD, 2),
        (mlps, {"name": "drt", "sigma": 0.5}, ADAM, 2),
        (mlps, {"name": "lpd", "sigma": 0.5}, SGD, 2),
        (mlps, {"name": "lpd", "sigma": 0.5}, ADAM, 3),
        (convolutions, {"name": "gaussian", "sigma": 0.5}, SGD, 2),
        (batch_norms, {"name": "drt", "sigma": 0.5, "form": "code"}, ADAM, 2),
        (mlps, {"name": "drt", "base": "smoothadv", "steps": 2, "warmup_epochs": 4}, SGD, 1),
    ],
    ids=["gaussian-sgd", "gaussian-adam", "drt-sgd", "drt-adam", "lpd-sgd", "lpd-adam", "convs", "norms", "warm-up"],
)
def test_an_interrupted_training_ends_with_the_weights_of_an_undisturbed_one(
    literal: Any, build: Callable[[], Ensemble], objective: dict[str, Any], schedule: Schedule, interrupted_after: int
) -> None:
    images, plain = literal.Images(), build()
    at_once = train(plain, create(**objective), schedule, images, images, seed=9)

    class KilledError(Exception):
        pass

    stored: list[bytes] = []

    def store(state: TrainingState) -> None:
        stored.append(state.to_bytes())
        if len(stored) == interrupted_after:
            raise KilledError

    with pytest.raises(KilledError):
        train(build(), create(**objective), schedule, images, images, seed=9, on_state=store)
    # A new process: another ensemble, whose weights do not matter, and the bytes.
    resumed, told = build(), []
    with torch.no_grad():
        for parameter in resumed.parameters():
            parameter.add_(1.0)
    later = train(
        resumed,
        create(**objective),
        schedule,
        images,
        images,
        seed=9,
        on_epoch=told.append,
        resume_from=TrainingState.from_bytes(stored[-1]),
    )
    assert digest(resumed) == digest(plain)
    assert timeless(later) == timeless(at_once)
    assert told == later[interrupted_after:], "epochs of before are not told again"


def states_of(literal: Any, ensemble: Ensemble | None = None, schedule: Schedule = SGD) -> list[TrainingState]:
    states: list[TrainingState] = []
    images = literal.Images()
    train(ensemble or mlps(), create("gaussian", sigma=0.5), schedule, images, images, seed=9, on_state=states.append)
    return states


def test_a_state_is_told_after_each_epoch_but_the_last(literal: Any) -> None:
    states = states_of(literal)
    assert [len(state.reports) for state in states] == [1, 2, 3]
    assert [state.reports[-1].epoch for state in states] == [1, 2, 3]


def test_the_clock_goes_on_where_it_stood(literal: Any) -> None:
    state, images = states_of(literal)[1], literal.Images()
    late = dataclasses.replace(state.reports[-1], seconds=1000.0)
    state = dataclasses.replace(state, reports=(*state.reports[:-1], late))
    reports = train(mlps(), create("gaussian", sigma=0.5), SGD, images, images, seed=9, resume_from=state)
    assert 1000 < reports[2].seconds < reports[3].seconds < 1100
    assert reports[2].seconds_left < 100
    assert reports[3].seconds_left == 0


def test_a_state_is_not_changed_by_what_follows(literal: Any) -> None:
    # It is a value: kept in memory while training goes on, and resumed from more than once.
    ensemble, images = mlps(), literal.Images()
    states, stored = [], []

    def keep(state: TrainingState) -> None:
        states.append(state)
        stored.append(state.to_bytes())

    objective = create("gaussian", sigma=0.5)
    train(ensemble, objective, SGD, images, images, seed=9, on_state=keep)
    for state, content in zip(states, stored, strict=True):
        then = TrainingState.from_bytes(content)
        assert all(torch.equal(state.weights[name], then.weights[name]) for name in then.weights)
    for _ in range(2):
        resumed = mlps()
        train(resumed, objective, SGD, images, images, seed=9, resume_from=states[0])
        assert digest(resumed) == digest(ensemble)


def test_bytes_and_back(literal: Any) -> None:
    for schedule in (SGD, ADAM):
        state = states_of(literal, schedule=schedule)[1]
        again = TrainingState.from_bytes(state.to_bytes())
        assert again.reports == state.reports
        assert isinstance(again.reports[0].member_accuracies, tuple)
        assert again.weights.keys() == state.weights.keys()
        assert all(torch.equal(again.weights[name], state.weights[name]) for name in state.weights)
        assert again.optimizer["param_groups"] == state.optimizer["param_groups"]
        assert again.optimizer["state"].keys() == state.optimizer["state"].keys()


# What is refused


def saved(document: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(document, buffer)
    return buffer.getvalue()


def sealed(content: bytes) -> bytes:
    """As a state is written: the digest of what follows, before it."""
    return hashlib.sha256(content).digest() + content


def test_a_flipped_bit_anywhere_is_refused(literal: Any) -> None:
    content = states_of(literal)[0].to_bytes()
    weights = content.index(next(iter(states_of(literal)[0].weights.values())).numpy().tobytes()[:8])
    for at in (0, 31, 32, weights + 3, len(content) - 1):
        damaged = bytearray(content)
        damaged[at] ^= 1
        with pytest.raises(ResumeError, match="its digest is that of other bytes: damaged, or written by an earlier"):
            TrainingState.from_bytes(bytes(damaged))


def test_damaged_bytes_are_refused(literal: Any) -> None:
    content = states_of(literal)[0].to_bytes()
    half = content[: len(content) // 2]
    for damaged in (b"", b"nonsense", half, content[:-30], content[100:], pickle.dumps({"weights": 1}, protocol=2)):
        with pytest.raises(
            ResumeError, match=r"^Not the state of a training \(\w+: .*\)\. Delete it to start anew\.$"
        ) as caught:
            TrainingState.from_bytes(damaged)
        assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    "document",
    [
        [1, 2, 3],
        {"weights": {}, "optimizer": {}},
        {"weights": {}, "reports": []},
        {"weights": {}, "optimizer": {}, "reports": [{"epoch": 1}]},
        {"weights": {}, "optimizer": {}, "reports": [{"epoch": 1, "surprise": 2}]},
        {"weights": {}, "optimizer": {}, "reports": 7},
    ],
)
def test_other_documents_are_refused(document: Any) -> None:
    with pytest.raises(ResumeError, match=r"^Not the state of a training \((KeyError|TypeError): "):
        TrainingState.from_bytes(sealed(saved(document)))


class Dangerous:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.write_text, (self.path, "run"))


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    document = {"weights": Dangerous(trap), "optimizer": {}, "reports": []}
    for content in (saved(document), pickle.dumps(document, protocol=2)):
        with pytest.raises(ResumeError, match=r"^Not the state of a training \(UnpicklingError: "):
            TrainingState.from_bytes(sealed(content))
        assert not trap.exists()
    # The trap is one: unpickled without care it snaps.
    torch.load(io.BytesIO(saved(document)), weights_only=False)
    assert trap.exists()


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (
            mlps(hidden=9),
            "weights differ in members.0.body.1.bias, members.0.body.1.weight, members.0.head.weight, ...",
        ),
        (mlps(members=3), "weights differ in members.2.body.1.bias, members.2.body.1.weight, members.2.head.bias, ..."),
        (mlps(members=1), "weights differ in members.1.body.1.bias, members.1.body.1.weight, members.1.head.bias, ..."),
        (convolutions(), "weights differ in members.0.body.0.bias"),
    ],
    ids=["width", "more", "fewer", "architecture"],
)
def test_the_state_of_another_ensemble_is_refused_and_changes_nothing(
    literal: Any, other: Ensemble, reason: str
) -> None:
    state, images = states_of(literal)[1], literal.Images()
    before = digest(other)
    objective = create("gaussian", sigma=0.5)
    with pytest.raises(ResumeError, match=f"^The stored state is of another training \\({re.escape(reason)}"):
        train(other, objective, SGD, images, images, seed=9, resume_from=state)
    assert digest(other) == before, "what was refused has not touched the weights"


@pytest.mark.parametrize(
    ("stored", "schedule"),
    [
        (SGD, ADAM),
        (ADAM, SGD),
        (dataclasses.replace(SGD, momentum=0.0), ADAM),
        (SGD, dataclasses.replace(SGD, momentum=0.5)),
        (SGD, dataclasses.replace(SGD, weight_decay=0.0)),
    ],
    ids=["sgd-adam", "adam-sgd", "plain-sgd-adam", "momentum", "weight-decay"],
)
def test_the_state_of_another_optimizer_is_refused(literal: Any, stored: Schedule, schedule: Schedule) -> None:
    state, images, ensemble = states_of(literal, schedule=stored)[0], literal.Images(), mlps(seed=5)
    before = digest(ensemble)
    message = "The stored state is of another training (the optimizer or its settings differ). Delete it to start anew."
    with pytest.raises(ResumeError, match=f"^{re.escape(message)}$"):
        train(ensemble, create("gaussian"), schedule, images, images, seed=9, resume_from=state)
    assert digest(ensemble) == before


def test_a_learning_rate_that_decayed_is_not_another_optimizer(literal: Any) -> None:
    # From epoch 3 on the rate of SGD above has dropped; the schedule says what it is, not the state.
    state, images, ensemble = states_of(literal)[2], literal.Images(), mlps()
    reports = train(ensemble, create("gaussian", sigma=0.5), SGD, images, images, seed=9, resume_from=state)
    assert len(reports) == 4


@pytest.mark.parametrize(
    ("weights", "optimizer"),
    [([], {}), ({}, []), ({"a": 1}, {"param_groups": []}), ({}, {"state": {}}), ({}, {"param_groups": 3, "state": {}})],
)
def test_states_of_the_wrong_kind_are_refused(weights: Any, optimizer: Any) -> None:
    ensemble = mlps()
    built = SGD.build(list(ensemble.parameters()))
    # Shapes of annotations are enforced in tests only: there from_bytes refuses already, elsewhere restore does.
    said = r"^(Not the state of a|The stored state is of another) training \(.*\)\. Delete it to start anew\.$"
    with pytest.raises(ResumeError, match=said):
        TrainingState.from_bytes(saved({"weights": weights, "optimizer": optimizer, "reports": []})).restore(
            ensemble, built
        )
    if weights == {}:
        own = {"weights": ensemble.state_dict(), "optimizer": optimizer, "reports": []}
        with pytest.raises(ResumeError, match=said):
            TrainingState.from_bytes(saved(own)).restore(ensemble, built)
