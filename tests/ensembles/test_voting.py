"""Majority vote and k-consensus, against votes counted in Python."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ensembles import Ensemble, KConsensus, MajorityVote, ParameterError, WeightedAverage, aggregation
from tests.ensembles.test_aggregation import Logits, double, logits


def answer(row: list[float]) -> int:
    return max(range(len(row)), key=lambda label: (row[label], -label))


@given(logits())
def test_majority_vote_counts_the_answers_of_members(values: Logits) -> None:
    scores = MajorityVote().scores(double(values))
    for image in range(len(values[0])):
        votes = Counter(answer(member[image]) for member in values)
        assert [round(share * len(values)) for share in scores[image].tolist()] == [
            votes[label] for label in range(scores.shape[1])
        ]
        most = max(votes.values())
        assert int(scores[image].argmax()) == min(label for label, count in votes.items() if count == most)


@given(logits(), st.sampled_from(["logit", "confidence"]))
def test_k_consensus_is_the_mean_of_some_or_of_all(values: Logits, of: str) -> None:
    tensor = double(values)
    outputs = tensor.softmax(-1) if of == "confidence" else tensor
    if len(values) < 2:
        return
    for k in range(2, len(values) + 1):
        scores = KConsensus(k=k, of=of).scores(tensor)  # type: ignore[arg-type]
        for image in range(len(values[0])):
            first = {int(outputs[member, image].argmax()) for member in range(k)}
            mean = outputs[:k, image].mean(0) if len(first) == 1 else outputs[:, image].mean(0)
            assert torch.allclose(scores[image], mean, rtol=1e-12, atol=1e-14)
            if len(first) == 1:
                # The answer that they share, up to the rounding of a mean of ties.
                assert float(scores[image, next(iter(first))]) >= float(scores[image].max()) - 1e-12


def test_k_consensus_of_all_members_is_the_average_and_of_two_another_classifier() -> None:
    values = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 9.0]]])
    assert torch.equal(KConsensus(k=3).scores(values), WeightedAverage(of="logit").scores(values))
    assert int(KConsensus(k=2).scores(values).argmax()) == 0
    assert int(WeightedAverage(of="logit").scores(values).argmax()) == 1
    assert int(MajorityVote().scores(values).argmax()) == 0


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_members_that_are_asked_must_be_finite(bad: float) -> None:
    values = torch.tensor([[[1.0, 0.0]] * 2, [[1.0, 0.0]] * 2, [[0.0, 9.0]] * 2])
    values[2, 0, 0] = bad
    assert torch.isnan(MajorityVote().scores(values)[0]).all()
    assert torch.isfinite(MajorityVote().scores(values)[1]).all()
    assert torch.isfinite(KConsensus(k=2).scores(values)).all(), "the third is not asked where two agree"
    values[1, 0] = torch.tensor([0.0, 1.0])
    assert not torch.isfinite(KConsensus(k=2).scores(values)[0]).all()
    values[0, 1, 1] = bad
    assert not torch.isfinite(KConsensus(k=2).scores(values)[1]).all()


def test_names_and_parameters() -> None:
    assert aggregation.create("majority-vote") == MajorityVote()
    made = aggregation.create({"name": "k-consensus", "k": 3, "of": "confidence"})
    assert made == KConsensus(k=3, of="confidence")
    assert made.describe() == {"name": "k-consensus", "k": 3, "of": "confidence"}
    with pytest.raises(ParameterError, match=r"KConsensus: k = 3 of 2 members; k is at most how many there are\. Take"):
        Ensemble([torch.nn.Identity()] * 2, KConsensus(k=3))
    with pytest.raises(ParameterError, match=r"k = 1 is not allowed\. Input should be greater than or equal to 2"):
        KConsensus(k=1)
