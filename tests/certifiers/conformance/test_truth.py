from typing import Any

import pytest
import torch

import certifiers
from certifiers import Norm, ThreatModel
from certifiers.conformance import attack, cancelling_pair, distance, enumerated, exact_radii, linear
from ensembles import MaxMargin, Single, WeightedAverage

NORMS = [ThreatModel(norm) for norm in Norm]


def named(value: Any) -> str | None:
    return str(value.norm) if isinstance(value, ThreatModel) else getattr(value, "name", None)


@pytest.mark.parametrize("aggregation", [None, Single(member=2), WeightedAverage(of="logit")], ids=named)
@pytest.mark.parametrize("threat", NORMS, ids=named)
def test_linear_radii_are_those_at_which_the_answer_changes(threat: ThreatModel, aggregation: Any) -> None:
    truth = linear(7, threat, aggregation)
    assert float(truth.radius.min()) > 1e-4
    assert float(truth.radius.max()) < 0.4  # in the box
    far = attack(truth.classifier, truth.x, truth.prediction, 1.001 * truth.radius, threat, steps=60, restarts=4).found
    near = attack(truth.classifier, truth.x, truth.prediction, 0.999 * truth.radius, threat, steps=60, restarts=4).found
    assert bool(far.all())
    assert not bool(near.any())
    found = certifiers.create("closed-form").certify(truth.classifier, truth.x, threat)
    torch.testing.assert_close(found.radius, truth.radius, atol=1e-12, rtol=1e-9)
    assert torch.equal(found.prediction, truth.prediction)


def test_linear_refuses_scores_that_are_not() -> None:
    with pytest.raises(ValueError, match=r"are not linear; use Single or a weighted average of logits"):
        linear(0, ThreatModel("l2"), MaxMargin())


@pytest.mark.parametrize("stable", [True, False])
@pytest.mark.parametrize("threat", [ThreatModel("linf"), ThreatModel("l1")], ids=named)
def test_members_of_a_cancelling_pair_average_to_the_network_alone(threat: ThreatModel, stable: bool) -> None:
    pair = cancelling_pair(3, threat, stable=stable)
    points = torch.rand(500, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(pair.classifier(points), pair.alone(points), atol=1e-12, rtol=0)
        first, second = pair.classifier.members[0](points), pair.classifier.members[1](points)
        inner = pair.classifier.members[0][1](points)[:, 3:]  # of the units of h
    assert float((first - second).abs().max()) > 1
    assert bool((inner > 0).all()) == stable
    torch.testing.assert_close(exact_radii(pair.alone, pair.x, threat), pair.radius)
    torch.testing.assert_close(exact_radii(pair.classifier, pair.x, threat), pair.radius, atol=1e-7, rtol=0)


def test_a_seed_names_one_truth() -> None:
    one, same, other = (enumerated(seed, ThreatModel("linf"), WeightedAverage(of="logit")) for seed in (1, 1, 2))
    assert torch.equal(one.x, same.x)
    assert torch.equal(one.radius, same.radius)
    assert not torch.equal(one.x, other.x)
    assert one.name == "enumerated weighted-average 1"
    assert bool((distance(one.x, one.x, Norm.L2) == 0).all())
