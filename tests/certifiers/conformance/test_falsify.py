from typing import Any

import pytest
import torch
from torch import nn

from certifiers import Norm, ThreatModel
from certifiers.conformance import attack, changed, distance, enumerated, planted
from ensembles import Ensemble, MaxMargin, Single, WeightedAverage, architectures

NORMS = [ThreatModel(norm) for norm in Norm]
AGGREGATIONS = [
    *(Single(), WeightedAverage(), WeightedAverage(of="logit")),
    *(MaxMargin(), MaxMargin(of="logit")),
]


def named(value: Any) -> str | None:
    if isinstance(value, ThreatModel):
        return str(value.norm)
    return f"{value.name}-{getattr(value, 'of', '')}" if hasattr(value, "name") else None


def ensemble(aggregation: Any, sharpness: float = 1.0) -> Ensemble:
    members = [
        architectures.create("mlp", input_shape=(1, 4, 4), classes=3, seed=seed, hidden=(12,)) for seed in range(3)
    ]
    with torch.no_grad():
        for member in members:
            member.head.weight *= sharpness
            member.head.bias *= sharpness
    return Ensemble(members, aggregation)


@pytest.mark.parametrize("aggregation", AGGREGATIONS, ids=named)
@pytest.mark.parametrize("threat", NORMS, ids=named)
def test_witnesses_are_inside_and_answered_otherwise(threat: ThreatModel, aggregation: Any) -> None:
    classifier = ensemble(aggregation)
    x = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    x[0, 0, 0] = torch.tensor([0.0, 1.0, 0.0, 1.0])
    with torch.no_grad():
        prediction = classifier(x).argmax(1)
    reach = {Norm.LINF: 0.5, Norm.L2: 1.5, Norm.L1: 5.0}[threat.norm]
    radius = torch.linspace(0, reach, 12, dtype=torch.float64)
    found, witness, _ = attack(classifier, x, prediction, radius, threat)
    assert bool(found.any())
    assert not bool(found[0])  # its radius is zero
    assert witness.dtype == x.dtype
    assert bool((distance(x, witness, threat.norm) <= radius).all())
    assert bool(((witness >= 0) & (witness <= 1)).all())
    with torch.no_grad():
        answers = classifier.eval()(witness).argmax(1)
    assert torch.equal(answers != prediction, found)
    assert torch.equal(witness[~found], x[~found])
    # An image alone fares as in the batch.
    for image in range(12):
        part = slice(image, image + 1)
        alone = attack(classifier, x[part], prediction[part], radius[part], threat)
        assert bool(alone.found[0]) == bool(found[image])


@pytest.mark.parametrize("aggregation", [None, WeightedAverage(of="logit"), MaxMargin(of="logit")], ids=named)
@pytest.mark.parametrize("threat", [ThreatModel("linf"), ThreatModel("l1")], ids=named)
def test_beside_the_exact_radius(threat: ThreatModel, aggregation: Any) -> None:
    hits = asked = 0
    for seed in range(4):
        truth = enumerated(seed, threat, aggregation, hidden=(3,))
        near = attack(truth.classifier, truth.x, truth.prediction, truth.radius - 1e-7, threat)
        assert not bool(near.found.any())
        far = attack(truth.classifier, truth.x, truth.prediction, 1.05 * truth.radius + 0.01, threat, restarts=4)
        hits, asked = hits + int(far.found.sum()), asked + len(truth.x)
    assert hits >= 0.75 * asked


def test_vanishing_gradients_of_sure_confidences_are_no_shelter() -> None:
    classifier = Ensemble([ensemble(Single(), sharpness=3e3).members[1]], WeightedAverage())
    x = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        scores = classifier(x)
    sure = scores.amax(1) == 1
    assert int(sure.sum()) >= 4
    result = attack(
        classifier, x[sure], scores.argmax(1)[sure], torch.full((int(sure.sum()),), 0.5).double(), ThreatModel("linf")
    )
    assert bool(result.found.any())


@pytest.mark.parametrize("threat", NORMS, ids=named)
def test_planted_planes_are_found_just_beyond_them_and_ties_and_nan_are_not(threat: ThreatModel) -> None:
    for case in planted(threat):
        radius = torch.tensor([case.distance if case.distance else 0.1], dtype=torch.float64)
        found = attack(case.classifier, case.x, torch.tensor([0]), radius, threat).found.item()
        assert found == (case.name in ("halfspace", "dropout", "tie"))  # the tie opens into another answer
        safe = torch.tensor([case.safe], dtype=torch.float64)
        assert not attack(case.classifier, case.x, torch.tensor([0]), safe, threat).found.item()
    tied = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    nn.init.zeros_(tied[1].weight)
    nn.init.zeros_(tied[1].bias)
    x = torch.full((1, 4), 0.5)
    assert not attack(tied, x, torch.tensor([0]), torch.tensor([0.2]).double(), threat).found.item()


def test_the_classifier_and_the_generators_are_left_as_they_were() -> None:
    classifier = ensemble(MaxMargin()).train()
    classifier.members[0].body.eval()
    classifier.members[1].head.bias.requires_grad_(False)
    gradient = torch.ones_like(classifier.members[0].head.bias)
    classifier.members[0].head.bias.grad = gradient
    modes = [module.training for module in classifier.modules()]
    weights = [parameter.clone() for parameter in classifier.parameters()]
    torch.manual_seed(3)
    state = torch.get_rng_state()
    x = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    first = attack(classifier, x, torch.tensor([0, 1, 2]), torch.full((3,), 0.1).double(), ThreatModel("l2"))
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in classifier.modules()] == modes
    assert all(torch.equal(a, b) for a, b in zip(weights, classifier.parameters(), strict=True))
    assert classifier.members[0].head.bias.grad is gradient
    assert torch.equal(gradient, torch.ones_like(gradient))
    assert not classifier.members[1].head.bias.requires_grad
    assert classifier.members[1].head.weight.requires_grad
    assert torch.is_grad_enabled()
    assert torch.equal(x, before)
    again = attack(classifier, x, torch.tensor([0, 1, 2]), torch.full((3,), 0.1).double(), ThreatModel("l2"))
    assert torch.equal(first.witness, again.witness)


def test_a_classifier_without_gradients_is_answered() -> None:
    class Steps(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first = (x.flatten(1)[:, :1] > 0.52).to(x)
            return torch.cat([1 - first, first], 1)

    x = torch.full((1, 4), 0.5)
    found = attack(Steps(), x, torch.tensor([0]), torch.tensor([0.2]).double(), ThreatModel("linf"), restarts=8)
    assert bool(found.found[0])  # by the random starts
    with pytest.raises(ValueError, match=r"at least one step and one restart, got 0 and 2"):
        attack(Steps(), x, torch.tensor([0]), torch.tensor([0.2]).double(), ThreatModel("linf"), steps=0)


def test_changed_wants_strictly_more() -> None:
    rows = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, float("nan")], [0.0, float("inf")]])
    assert changed(rows, torch.zeros(5).long()).tolist() == [False, False, True, False, False]
