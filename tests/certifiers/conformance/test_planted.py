"""Each planted classifier does what it says, shown without a certifier."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from certifiers import Norm, ThreatModel
from certifiers.conformance import Planted, attack, distance, planted, unanswered
from certifiers.conformance.planted import FAMILIES

every_family = pytest.mark.parametrize("build", FAMILIES.values(), ids=list(FAMILIES))
every_norm = pytest.mark.parametrize("threat", [ThreatModel(norm) for norm in Norm], ids=list(Norm))


def scores(case: Planted, x: Tensor) -> Tensor:
    mode = case.classifier.training
    with torch.no_grad():
        found: Tensor = case.classifier.eval()(x)
    case.classifier.train(mode)
    return found


@every_norm
@every_family
def test_the_witness_is_at_its_distance_and_contradicts(
    build: Callable[[ThreatModel], Planted], threat: ThreatModel
) -> None:
    case = build(threat)
    assert distance(case.x, case.witness, threat.norm).item() == case.distance
    assert bool(((case.witness >= 0) & (case.witness <= 1)).all())
    assert bool(unanswered(scores(case, case.witness), 0).all())
    for precision in (torch.float32, torch.float64):  # no rounding is involved
        copy = FAMILIES[case.name](threat).classifier.to(precision).eval()
        assert torch.equal(
            copy(case.witness.to(precision)).float().nan_to_num(), scores(case, case.witness).nan_to_num()
        )


@every_norm
@every_family
def test_nothing_within_the_safe_radius_contradicts(
    build: Callable[[ThreatModel], Planted], threat: ThreatModel
) -> None:
    case = build(threat)
    assert case.safe <= case.distance <= case.safe + 2**-7
    if not case.safe:
        return
    generator = torch.Generator().manual_seed(0)
    order = {Norm.L1: 1.0, Norm.L2: 2.0, Norm.LINF: float("inf")}[threat.norm]
    directions = torch.randn(4000, 4, generator=generator)
    directions = torch.cat([directions, torch.eye(4), torch.ones(1, 4), case.witness - case.x])
    lengths = torch.linalg.vector_norm(directions, ord=order, dim=1, keepdim=True)
    points = case.x + (case.safe - 1e-6) * directions / lengths
    assert not bool(unanswered(scores(case, points), 0).any())


@every_norm
def test_the_spike_is_where_nobody_looks(threat: ThreatModel) -> None:
    case = FAMILIES["spike"](threat)
    generator = torch.Generator().manual_seed(1)
    points = case.x + case.distance * (2 * torch.rand(100_000, 4, generator=generator) - 1)
    found = unanswered(scores(case, points), 0)
    assert int(found.sum()) <= 2
    result = attack(case.classifier, case.x, torch.tensor([0]), torch.tensor([0.2]).double(), threat)
    assert not bool(result.found.any())
    # The radius between safe and distance is the spike's own, to the last bit.
    edge = case.x.clone()
    edge[0, 0] += case.safe
    assert scores(case, edge)[0].tolist() == [0.5, 0.5]


def test_dropout_in_train_mode_answers_the_same_everywhere() -> None:
    case = FAMILIES["dropout"](ThreatModel("linf"))
    assert case.classifier.training
    points = torch.rand(1000, 4, generator=torch.Generator().manual_seed(2))
    assert not bool(unanswered(case.classifier(points), 0).any())
    assert bool(unanswered(scores(case, points), 0).any())


def test_unanswered_knows_ties_and_numbers_that_are_none() -> None:
    nan, inf = float("nan"), float("inf")
    rows = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [nan, 0.0], [1.0, nan], [inf, 0.0]])
    assert unanswered(rows, 0).tolist() == [False, True, True, True, True, True]
    assert len(planted(ThreatModel("l2"))) == len(FAMILIES) == 5
    assert all(isinstance(case.classifier, nn.Module) for case in planted(ThreatModel("l1")))
