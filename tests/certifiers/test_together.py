"""Several certifiers in one pass: the answers of each alone, from votes that are counted once."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from certifiers import Certificates, Certifier, ClassifierChangedError, ThreatModel, certify_jointly, create
from certifiers.smoothing import Smoothing
from certifiers.smoothing import votes as counting
from certifiers.smoothing.shared_votes import SharedVotes, counted_once
from certifiers.together import shared_measurement
from ensembles import Ensemble, MaxMargin, WeightedAverage, architectures

L2 = ThreatModel(norm="l2")


@pytest.fixture
def ensemble() -> Ensemble:
    return Ensemble(
        [architectures.create("lenet5", input_shape=(1, 28, 28), classes=10, seed=seed) for seed in range(3)]
    )


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(4))


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many classifiers each counting of votes was about."""
    asked: list[int] = []
    plain = counting.evaluation_of

    def counted(classifiers: Any, *rest: Any) -> Any:
        asked.append(len(classifiers))
        return plain(classifiers, *rest)

    monkeypatch.setattr(counting, "evaluation_of", counted)
    return asked


def smoothing(name: str = "smoothing", **changes: Any) -> Certifier:
    return create(name, **{"sigma": 0.25, "n0": 20, "n": 700, "alpha": 0.01, **changes})


def same(left: Certificates, right: Certificates) -> bool:
    evidence = left.evidence.keys() == right.evidence.keys() and all(
        torch.equal(value, right.evidence[name]) if isinstance(value, Tensor) else list(value) == right.evidence[name]
        for name, value in left.evidence.items()
    )
    tensors = ("prediction", "radius", "verdict", "failure_probability")
    return evidence and all(torch.equal(getattr(left, name), getattr(right, name)) for name in tensors)


def test_answers_are_those_of_each_alone(ensemble: Ensemble, images: Tensor, evaluated: list[int]) -> None:
    margin = ensemble.with_aggregation(MaxMargin())
    questions = [
        (smoothing(), ensemble.with_aggregation(WeightedAverage())),
        (smoothing("smoothing-eas"), margin),
        (smoothing(), margin),
        (smoothing(), ensemble.members[0]),
        (smoothing(sigma=0.5), margin),
    ]
    together = certify_jointly(questions, images, L2, seed=7, image_ids=[11, 12])
    # The two at sigma 0.25 ask of both images, in two streams, about three members, WE and MME; that of 0.5 about one.
    assert evaluated == [5, 5, 5, 5, 1, 1, 1, 1]
    alone = [certifier.certify(asked, images, L2, seed=7, image_ids=[11, 12]) for certifier, asked in questions]
    assert all(map(same, together, alone))
    assert any(float(each.radius.max()) > 0 for each in alone), "or nothing was compared"


def test_seconds_are_shared_equally(ensemble: Ensemble, images: Tensor) -> None:
    found = certify_jointly(
        [(smoothing(), ensemble), (smoothing("smoothing-eas"), ensemble.with_aggregation(MaxMargin()))], images, L2
    )
    assert torch.equal(found[0].cost.seconds, found[1].cost.seconds)
    assert float(found[0].cost.seconds.min()) > 0


def test_who_is_refused_asks_for_no_votes(ensemble: Ensemble, images: Tensor, evaluated: list[int]) -> None:
    refused, answered = certify_jointly(
        [(smoothing("smoothing-eas"), ensemble), (smoothing(), ensemble)], images[:1], L2
    )
    assert "max-margin" in refused.reason[0]
    assert not answered.reason[0] or "no class" in answered.reason[0]
    assert evaluated == [1, 1]


@pytest.mark.parametrize(
    ("changes", "equal"),
    [({}, True), ({"alpha": 0.05}, True), ({"sigma": 0.5}, False), ({"n": 701}, False), ({"n0": 21}, False)],
)
def test_what_shares_a_measurement(changes: dict[str, Any], equal: bool) -> None:
    assert (shared_measurement(smoothing()) == shared_measurement(smoothing("smoothing-eas", **changes))) is equal


def test_other_noise_and_other_methods_share_nothing() -> None:
    polls = [
        shared_measurement(each)
        for each in (smoothing(), smoothing("smoothing-l1"), smoothing("smoothing-integer", levels=255))
    ]
    assert len(set(polls)) == 3
    assert shared_measurement(create("lipschitz")) is None


def test_a_method_that_changes_weights_is_noticed(ensemble: Ensemble, images: Tensor) -> None:
    class Meddling(Smoothing):
        def radii(self, classifier: nn.Module, x: Tensor, threat: ThreatModel, rng: Any) -> Any:
            with torch.no_grad():
                next(classifier.parameters()).add_(1)
            return super().radii(classifier, x, threat, rng)

        def radii_together(self, classifiers: Any, x: Tensor, threat: ThreatModel, rng: Any) -> Any:
            return [self.radii(classifier, x, threat, rng) for classifier in classifiers]

    with pytest.raises(ClassifierChangedError):
        certify_jointly([(Meddling(sigma=0.25, n=100), ensemble), (smoothing(), ensemble)], images[:1], L2)


# ---- the memory of votes


def counter(calls: list[list[nn.Module]]) -> Callable[[Any], list[Tensor]]:
    def count(classifiers: Any) -> list[Tensor]:
        calls.append(list(classifiers))
        return [torch.tensor([number, 1]) for number in range(len(classifiers))]

    return count


def test_votes_are_remembered_for_one_image_and_question() -> None:
    first, second, stranger = nn.Identity(), nn.Identity(), nn.Identity()
    calls: list[list[nn.Module]] = []
    image, other = torch.zeros(2), torch.ones(2)
    shared = SharedVotes([first, second, first])
    with shared.in_use():
        counted_once([first], image, "selection", counter(calls))[0].add_(5)
        assert counted_once([second, first], image, "selection", counter(calls))[1].tolist() == [0, 1], "a copy"
        assert calls == [[first, second]]
        counted_once([first], image, "estimation", counter(calls))
        counted_once([first], other, "estimation", counter(calls))
        counted_once([first], image.double(), "estimation", counter(calls))
        assert len(calls) == 4, "another question, another image, another type"
        counted_once([first, stranger], image, "selection", counter(calls))
        assert calls[-1] == [first, stranger], "who is not known to vote is asked as ever"
    counted_once([first], image, "selection", counter(calls))
    assert calls[-1] == [first], "outside, nothing is remembered"


def test_certifiers_of_one_class_name_are_told_apart(ensemble: Ensemble, images: Tensor) -> None:
    """A plug-in may call its class `Smoothing`, too, and have another theorem."""
    halved = type("Smoothing", (Smoothing,), {"radius_of": lambda self, p_a: Smoothing.radius_of(self, p_a) / 2})
    own, other = Smoothing(sigma=0.25, n=700), halved(sigma=0.25, n=700)
    assert repr(own) == repr(other)
    for first, second in ((own, other), (other, own)):
        found = certify_jointly([(first, ensemble), (second, ensemble)], images, L2)
        for certifier, answer in zip((first, second), found, strict=True):
            assert same(answer, certifier.certify(ensemble, images, L2))
