"""What certifiers say of ensembles that vote: proofs refuse them, smoothing certifies them, attacks find their way."""

from importlib.util import find_spec

import pytest
import torch
from torch import nn

import certifiers
from certifiers import Guarantee, ThreatModel, Verdict
from certifiers.conformance import attack
from ensembles import Aggregation, Ensemble, KConsensus, MajorityVote, architectures

NAMES = [name for name in certifiers.names() if certifiers.get(name).guarantee is Guarantee.DETERMINISTIC]
LIRPA = {"ibp", "crown-ibp", "crown", "alpha-crown"}


def voting(aggregation: Aggregation) -> Ensemble:
    """Three networks, none of which answers one class everywhere."""
    points = torch.rand(64, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    members = []
    for seed in range(3):
        member = architectures.create("mlp", input_shape=(1, 2, 2), classes=3, seed=seed, hidden=(4,))
        with torch.no_grad():
            list(member.parameters())[-1].sub_(member(points).mean(0))
        members.append(member)
    return Ensemble(members, aggregation).eval()


def linear(aggregation: Aggregation) -> Ensemble:
    """Three linear classifiers."""
    return Ensemble([nn.Sequential(nn.Flatten(), nn.Linear(4, 3)) for _ in range(3)], aggregation).eval()


@pytest.mark.parametrize("aggregation", [MajorityVote(), KConsensus()], ids=lambda one: one.name)
@pytest.mark.parametrize("name", NAMES)
def test_proofs_refuse_them_and_say_what_would_do(name: str, aggregation: Aggregation) -> None:
    if name in LIRPA and find_spec("auto_LiRPA") is None:
        pytest.skip("auto_LiRPA is not installed")
    certifier = certifiers.create(name, **certifiers.get(name).example)
    for norm in sorted(certifier.norms):
        x = torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(1))
        ensemble = linear(aggregation) if name.startswith("closed-form") else voting(aggregation)
        found = certifier.certify(ensemble, x, ThreatModel(norm), radii=(0.01,))
        assert set(found.verdict.tolist()) == {int(Verdict.UNSUPPORTED)}
        assert aggregation.name in found.reason[0]
        assert "weighted-average" in found.reason[0]


@pytest.mark.parametrize("aggregation", [MajorityVote(), KConsensus(k=2)], ids=lambda one: one.name)
def test_smoothing_certifies_them(aggregation: Aggregation) -> None:
    x = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(2))
    certifier = certifiers.create("smoothing", sigma=0.1, n=500, alpha=0.01)
    ensemble = voting(aggregation)
    found = certifier.certify(ensemble, x, ThreatModel("l2"))
    assert bool(found.certified.any())
    for row in found.certified.nonzero()[:, 0].tolist():
        noisy = x[row] + 0.1 * torch.randn(2000, 1, 2, 2, generator=torch.Generator().manual_seed(3))
        votes = torch.bincount(ensemble(noisy).argmax(1), minlength=3)
        assert int(votes.argmax()) == int(found.prediction[row])


@pytest.mark.parametrize("aggregation", [MajorityVote(), KConsensus(k=2)], ids=lambda one: one.name)
def test_attacks_find_another_answer_though_votes_have_no_gradient(aggregation: Aggregation) -> None:
    ensemble = voting(aggregation)
    x = torch.rand(8, 1, 2, 2, generator=torch.Generator().manual_seed(4))
    prediction = ensemble(x).argmax(1)
    anywhere = ensemble(torch.rand(4000, 1, 2, 2, generator=torch.Generator().manual_seed(5))).argmax(1)
    assert len(anywhere.unique()) > 1, "a test of nothing"
    found = attack(ensemble, x, prediction, torch.ones(8, dtype=torch.float64), ThreatModel("linf"))
    assert bool(found.found.all())
    answers = ensemble(found.witness).argmax(1)
    assert bool((answers != prediction).all())
