from collections.abc import Sequence
from copy import deepcopy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from certifiers import KeyedRandomness
from certifiers.smoothing import GaussianNoise, count_votes
from certifiers.smoothing import votes as votes_module
from certifiers.smoothing.ballots import Ballots
from certifiers.smoothing.early_exit import LARGEST_INPUT, EarlyExit, is_decided
from certifiers.smoothing.noise import ESTIMATION
from ensembles import Ensemble, MaxMargin, Single, WeightedAverage, architectures, shared_scores
from ensembles.architectures import Classifier

SHAPE = (1, 10, 10)


def members(count: int, spread: float = 0.4, dtype: torch.dtype = torch.float64) -> list[Classifier]:
    """Members that often, and not always, agree: one network, and some noise on its weights for each."""
    generator = torch.Generator().manual_seed(3)
    base = architectures.create("conv_small", input_shape=SHAPE, classes=5, seed=0).eval()
    for parameter in base.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    found = [deepcopy(base) for _ in range(count)]
    for parameter in (each for member in found for each in member.parameters()):
        parameter.data += spread * 0.3 * torch.randn(parameter.shape, generator=generator)
    return [member.to(dtype) for member in found]


def inputs(count: int = 400, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(SHAPE, generator=generator) + 0.5 * torch.randn(count, *SHAPE, generator=generator)).to(dtype)


@torch.no_grad()
def both(classifiers: Sequence[nn.Module], x: Tensor) -> tuple[list[Tensor], list[Tensor], float]:
    """The choices without early exit and with it, and the share of evaluations that was left out."""
    early = EarlyExit.of(classifiers)
    assert early is not None
    found, asked = early.ballots(x)
    every = len(early.always) + len(early.sometimes)
    plain = [Ballots.of(scores, len(x)) for scores in shared_scores(classifiers, x)]
    assert [own.classes for own in found] == [own.classes for own in plain]
    return [own.choices for own in plain], [own.choices for own in found], 1 - asked / (every * len(x))


@pytest.mark.parametrize("weights", [None, (0.2, 0.5, 0.3), (1.0, 1.0, 2.5), (0.0, 2.0, 1.0)], ids=str)
def test_votes_are_those_of_asking_everybody(weights: tuple[float, ...] | None) -> None:
    plain, found, skipped = both([Ensemble(members(3, spread=0.2), WeightedAverage(weights=weights))], inputs())
    assert torch.equal(plain[0], found[0])
    assert len(plain[0].unique()) > 1, "a test of nothing"
    assert 0.02 < skipped < 2 / 3


def test_more_members_leave_more_out() -> None:
    shares = [both([Ensemble(members(count, spread=0.1))], inputs())[2] for count in (3, 5, 9)]
    assert shares == sorted(shares)
    assert shares[-1] > 0.2


def test_several_classifiers_keep_what_any_of_them_needs() -> None:
    found = members(5)
    ensemble = Ensemble(found)
    classifiers = [
        ensemble,
        Ensemble(found[:3]),
        ensemble.with_aggregation(WeightedAverage(weights=(1.0, 2.0, 3.0, 1.0, 1.0))),
        ensemble.with_aggregation(Single(member=3)),
        Ensemble([found[3], found[1]], MaxMargin()),
        Ensemble([found[3], found[1]], WeightedAverage(of="logit")),
        found[1],
    ]
    early = EarlyExit.of(classifiers)
    assert early is not None
    assert set(early.always) == {found[1], found[3]}
    plain, exited, skipped = both(classifiers, inputs())
    assert skipped > 0.02
    for own, other in zip(plain, exited, strict=True):
        assert torch.equal(own, other)


def test_members_left_out_are_not_evaluated() -> None:
    class Counting(nn.Linear):
        rows = 0

        def forward(self, x: Tensor) -> Tensor:
            Counting.rows += len(x)
            return super().forward(x)

    found = members(3, spread=0.1)
    early = EarlyExit.of([Ensemble(found)])
    assert early is not None
    last = early.sometimes[-1]
    head = Counting(100, 5).double().eval()
    head.load_state_dict(last.head.state_dict())  # type: ignore[union-attr]
    last.head = head
    with torch.no_grad():
        _, asked = early.ballots(inputs())
    assert Counting.rows + 2 * 400 == asked < 3 * 400


# What could never leave anybody out is evaluated as before.
@torch.no_grad()
@pytest.mark.parametrize(
    "classifiers",
    [
        [Ensemble(members(2))],
        [Ensemble(members(3), WeightedAverage(weights=(1.0, 1.0, 2.0)))],
        [Ensemble(members(3), WeightedAverage(of="logit"))],
        [Ensemble(members(3), MaxMargin())],
        [Ensemble(members(3)).with_aggregation(Single())],
        members(1),
        [Ensemble([nn.Flatten(), nn.Flatten(), nn.Flatten()])],
        [Ensemble([architectures.create("mlp", input_shape=SHAPE, classes=5, seed=s).eval() for s in range(3)])],
    ],
    ids=["two", "half of the weight", "logits", "max-margin", "single", "no ensemble", "unknown members", "cheap ones"],
)
def test_no_early_exit(classifiers: list[nn.Module]) -> None:
    early = EarlyExit.of(classifiers)
    assert early is None or early.ballots(inputs(50))[1] == 50 * len(early.always + early.sometimes)


def test_all_members_needed_by_somebody_else() -> None:
    ensemble = Ensemble(members(3))
    assert EarlyExit.of([ensemble, ensemble.with_aggregation(MaxMargin())]) is None


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_samples_of_a_member_that_is_not_finite_are_votes_for_nobody(wrong: float) -> None:
    found = members(4, spread=0.1)
    found[3].body[0].weight.data[0, 0, 0, 0] = wrong  # type: ignore[index, union-attr]
    plain, exited, skipped = both([Ensemble(found)], inputs())
    assert skipped == 0
    assert torch.equal(plain[0], exited[0])
    assert int((exited[0] == 5).sum()) > 300


def test_a_member_that_is_not_proved_to_be_finite_is_always_asked() -> None:
    found = members(4, spread=0.1)
    found[3].body[0].weight.data[0, 0, 0, 0] = 1e290  # type: ignore[index, union-attr]
    found[3].head.weight.data *= 1e14
    early = EarlyExit.of([Ensemble(found)])
    assert early is not None
    assert found[3] in early.always
    plain, exited, skipped = both([Ensemble(found)], inputs())
    assert skipped > 0
    assert torch.equal(plain[0], exited[0])


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, 2 * LARGEST_INPUT])
def test_inputs_that_are_not_finite_or_large_are_given_to_all(wrong: float) -> None:
    x = inputs()
    x[7, 0, 2, 2] = wrong
    plain, exited, skipped = both([Ensemble(members(3, spread=0.1))], x)
    assert skipped == 0
    assert torch.equal(plain[0], exited[0])
    assert (int(plain[0][7]) == 5) == (wrong != 2 * LARGEST_INPUT)


@given(
    members=st.integers(2, 9),
    asked=st.integers(1, 8),
    seed=st.integers(0, 2**20),
    sharpness=st.sampled_from([0.3, 1.0, 4.0, 30.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_what_is_decided_stays_so_whatever_the_others_answer(
    members: int, asked: int, seed: int, sharpness: float, dtype: torch.dtype
) -> None:
    asked = min(asked, members - 1)
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(members, generator=generator).double() + 0.01
    weights[:asked] *= 5
    average = WeightedAverage(weights=tuple(weights.tolist()))
    logits = (sharpness * torch.randn(members, 64, 4, generator=generator)).to(dtype)
    share = weights / weights.sum()
    partial = torch.zeros(64, 4, dtype=dtype)
    for number in range(asked):
        partial += float(share[number]) * logits[number].softmax(-1)
    decided, top = is_decided(partial, float(share[asked:].sum()), members)
    for rival in range(4):  # the worst that can come: all the others are sure of one and the same class
        logits[asked:] = 0
        logits[asked:, :, rival] = 1000
        assert torch.equal(average.scores(logits).argmax(1)[decided], top[decided])


def test_a_lead_as_large_as_what_remains_decides_nothing() -> None:
    partial = torch.tensor([[0.5, 0.0], [0.5 + 1e-3, 0.0], [torch.nan, 0.0], [0.5, torch.inf]])
    assert is_decided(partial, 0.5, 3)[0].tolist() == [False, True, False, True]


@torch.no_grad()
def test_counts_with_early_exit_are_those_without(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = GaussianNoise(0.5, KeyedRandomness(0, (4,)))
    for dtype, allowed in ((torch.float64, 0), (torch.float32, 2)):
        ensemble = Ensemble(members(5, dtype=dtype))
        image = inputs(1, dtype)[0].clamp(0, 1)
        early = count_votes([ensemble], image, noise, 0, ESTIMATION, 1203)[0]
        with monkeypatch.context() as patch:
            patch.setattr(votes_module.EarlyExit, "of", lambda classifiers: None)
            plain = count_votes([ensemble], image, noise, 0, ESTIMATION, 1203)[0]
        # In float32 a smaller batch may be added up in another order: a vote in the balance can flip.
        assert int((early - plain).abs().sum()) <= allowed
        assert int(early.max()) < 1203
