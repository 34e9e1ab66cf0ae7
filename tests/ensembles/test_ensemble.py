import pytest
import torch
from torch import Tensor, nn

from ensembles import (
    Aggregation,
    Ensemble,
    MaxMargin,
    ParameterError,
    Single,
    WeightedAverage,
    architectures,
    members_of,
    shared_scores,
)
from ensembles.ensemble import stack_logits


class Counted(nn.Module):
    """A linear member that counts how often it runs."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4)
        nn.init.normal_(self.layer.weight, generator=torch.Generator().manual_seed(seed))
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.layer(x.flatten(1))


@pytest.fixture
def members() -> list[Counted]:
    return [Counted(seed) for seed in range(3)]


@pytest.fixture
def x() -> Tensor:
    return torch.rand(5, 2, 3, generator=torch.Generator().manual_seed(9))


def test_confidences_are_members_by_batch_by_class_and_sum_to_one(members: list[Counted], x: Tensor) -> None:
    ensemble = Ensemble(members, aggregation=Single(member=1))
    confidences = ensemble.confidences(x)
    assert confidences.shape == (3, 5, 4)
    assert torch.allclose(confidences.sum(-1), torch.ones(3, 5))
    assert bool((confidences >= 0).all())
    assert [member.calls for member in members] == [1, 1, 1]
    for number, member in enumerate(members):
        assert torch.equal(ensemble.logits(x)[number], member(x))
        assert torch.equal(confidences[number], member(x).softmax(-1))


def test_default_is_the_average_of_confidences(members: list[Counted], x: Tensor) -> None:
    expected = sum(member(x).softmax(-1) for member in members) / 3
    assert torch.allclose(Ensemble(members)(x), expected)


@pytest.mark.parametrize("how", [WeightedAverage(weights=(1.0, 2.0, 3.0)), WeightedAverage(of="logit"), MaxMargin()])
def test_scores_are_those_of_the_aggregation(how: Aggregation, members: list[Counted], x: Tensor) -> None:
    scores = Ensemble(members, aggregation=how)(x)
    assert scores.shape == (5, 4)
    assert torch.equal(scores, how.scores(torch.stack([member(x) for member in members])))


def test_members_that_are_not_needed_are_not_evaluated(members: list[Counted], x: Tensor) -> None:
    single = Ensemble(members, aggregation=Single(member=2))
    expected = members[2].layer(x.flatten(1))
    assert torch.equal(single(x), expected)
    assert torch.equal(shared_scores([single], x)[0], expected)
    assert [member.calls for member in members] == [0, 0, 2]
    assert members_of(single) == [members[2]]
    assert single.used_members() == [members[2]]


def test_members_are_shared_not_copied_between_aggregations(members: list[Counted]) -> None:
    ensemble = Ensemble(members)
    other = ensemble.with_aggregation(MaxMargin())
    assert list(other.members) == members
    assert isinstance(other.aggregation, MaxMargin)
    assert isinstance(ensemble.aggregation, WeightedAverage)
    assert {name for name, _ in ensemble.named_parameters()} == {
        f"members.{i}.layer.{part}" for i in range(3) for part in ("weight", "bias")
    }


def test_shared_scores_equal_each_forward_bit_for_bit_and_run_each_member_once(
    members: list[Counted], x: Tensor
) -> None:
    average = Ensemble(members)
    classifiers = [
        average,
        average.with_aggregation(MaxMargin()),
        average.with_aggregation(Single(member=1)),
        members[0],
        Ensemble([members[2], members[0]], WeightedAverage(weights=(0.3, 0.7), of="logit")),
    ]
    together = shared_scores(classifiers, x)
    assert [member.calls for member in members] == [1, 1, 1]
    for scores, classifier in zip(together, classifiers, strict=True):
        assert torch.equal(scores, classifier(x))


def test_members_that_are_equal_but_not_the_same_object_run_each(x: Tensor) -> None:
    twins = [Counted(0), Counted(0)]
    shared_scores([Ensemble(twins)], x)
    assert [twin.calls for twin in twins] == [1, 1]


def test_shared_scores_believe_a_subclass_that_computes_in_its_own_way(members: list[Counted], x: Tensor) -> None:
    class Sharpened(Ensemble):
        def forward(self, x: Tensor) -> Tensor:
            return -super().forward(x)

    odd = Sharpened(members)
    assert torch.equal(shared_scores([odd], x)[0], odd(x))
    assert not torch.equal(shared_scores([odd], x)[0], Ensemble(members)(x))


def test_members_of_a_plain_module_is_itself(members: list[Counted]) -> None:
    assert members_of(members[0]) == [members[0]]
    assert members_of(Ensemble(members)) == members


def test_ensemble_checks_members() -> None:
    with pytest.raises(ValueError, match="An ensemble needs at least one member, got none"):
        Ensemble([])
    with pytest.raises(ParameterError, match="2 weights for 1 members"):
        Ensemble([nn.Identity()], WeightedAverage(weights=(1.0, 1.0)))


@pytest.mark.parametrize("shapes", [[(2, 3), (2, 4)], [(2, 3, 1)], [(6,)], [(2, 3), (3, 3)]])
def test_members_must_return_logits_of_one_shape(shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match=r"Members must return logits of one shape \[batch, classes\], got \[\("):
        stack_logits([torch.zeros(shape) for shape in shapes])


def test_gradients_flow_to_the_inputs_and_the_members(x: Tensor) -> None:
    members = [
        architectures.create("mlp", input_shape=(2, 3), classes=4, seed=seed, hidden=(5,)).eval() for seed in range(2)
    ]
    x.requires_grad_()
    Ensemble(members)(x)[:, 0].sum().backward()
    assert x.grad is not None
    assert float(x.grad.norm()) > 0
    assert all(float(member.head.weight.grad.norm()) > 0 for member in members)


def test_a_member_of_weight_zero_is_not_evaluated() -> None:
    def never(x: Tensor) -> Tensor:
        raise AssertionError("evaluated")

    found = Ensemble([nn.Flatten(), nn.Flatten(), nn.Flatten()], WeightedAverage(weights=(1.0, 1.0, 0.0)))
    found.members[2].forward = never
    x = torch.rand(3, 4)
    assert torch.equal(found(x), Ensemble([nn.Flatten(), nn.Flatten()], WeightedAverage(weights=(1.0, 1.0)))(x))
