"""Truths that are worked out once: the same as alone, of nobody's, and only where they are asked for."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from certifiers import Norm, ThreatModel, conformance
from certifiers.conformance import Status, Subject, shared_truths
from certifiers.conformance.enumeration import answer_regions, exact_radii
from certifiers.conformance.shared_truths import shared_classifier, shared_truth
from certifiers.conformance.truth import random_networks
from ensembles import Ensemble, MaxMargin, WeightedAverage
from tests.certifiers.conformance.mutants import Intervals

KINDS = (None, WeightedAverage(of="logit"), MaxMargin(of="logit"))


@pytest.mark.parametrize("norm", Norm)
@pytest.mark.parametrize("aggregation", KINDS, ids=str)
def test_regions_that_are_left_out_are_not_the_nearest(norm: Norm, aggregation: Any) -> None:
    classifier, x = random_networks(11, aggregation, hidden=(3,), batch=4)
    regions = answer_regions(classifier, x)
    answers = classifier(x).argmax(1).tolist()
    every = [
        min(region.distance(image.numpy(), norm) for other, region in regions if other != answer)
        for image, answer in zip(x, answers, strict=True)
    ]
    assert exact_radii(classifier, x, ThreatModel(norm)).tolist() == every
    assert exact_radii(classifier, x, ThreatModel(norm), regions).tolist() == every
    for other, region in regions:
        for image in x:
            assert region.least_distance(image.numpy(), norm) <= region.distance(image.numpy(), norm) + 1e-9, other


def test_a_truth_that_was_spoiled_is_as_it_was_the_next_time() -> None:
    first = shared_truth(5, Norm.L1, KINDS[1], quick=True)
    before = [parameter.clone() for parameter in first.classifier.parameters()]
    with torch.no_grad():
        for parameter in first.classifier.parameters():
            parameter.zero_()
        first.x.zero_()
    second = shared_truth(5, Norm.L1, KINDS[1], quick=True)
    assert all(map(torch.equal, before, second.classifier.parameters()))
    assert float(second.x.abs().sum()) > 0
    assert first.radius.tolist() == second.radius.tolist()
    assert all(map(torch.equal, before, shared_classifier(5, KINDS[1], quick=True).parameters()))


def test_what_a_smoothed_target_makes_no_use_of_is_not_worked_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def unwanted(*_: Any) -> Any:
        raise AssertionError("enumerated in vain")

    monkeypatch.setattr(shared_truths, "_regions", unwanted)
    subject = Subject(conformance.resolve("smoothing"), seed=1234, quick=True)
    for kind in ("network", "average", "max-margin"):
        found = conformance.run(conformance.named(f"enumerated-{kind}"), subject)
        assert found.status is Status.NOT_APPLICABLE, found
        assert found.message == "what is known is not true of its target, Smoothed"


@dataclass(frozen=True, kw_only=True)
class OfEnsembles(Intervals):
    """Of an ensemble it certifies the ensemble itself, and of anything else another function; it certifies too much."""

    def target(self, classifier: nn.Module) -> Any:
        return classifier if isinstance(classifier, Ensemble) else object()

    def finished(self, bounds: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(bounds)


def test_whom_a_truth_concerns_is_asked_of_its_own_classifier() -> None:
    subject = Subject(OfEnsembles(), quick=True)
    alone = conformance.run(conformance.named("enumerated-network"), subject)
    assert alone.status is Status.NOT_APPLICABLE
    assert conformance.run(conformance.named("enumerated-average"), subject).status is Status.FAILED
