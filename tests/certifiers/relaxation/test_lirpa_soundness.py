"""Bounds by auto_LiRPA are below what is there, as far as an attack finds it, and not far below."""

from typing import Any

import torch

import certifiers
from certifiers import Norm, ThreatModel, Verdict
from certifiers.conformance import attack
from certifiers.relaxation import LirpaBounds
from certifiers.relaxation.ensemble_margins import pairs
from tests.certifiers.relaxation.awkward_networks import AWKWARD
from tests.certifiers.relaxation.lirpa_under_test import (
    METHODS,
    around,
    every_method,
    every_norm,
    lowest,
    margins,
    read,
)


@every_norm
def test_bounds_are_below_what_an_attack_finds(models: Any, norm: Norm) -> None:
    radii = {Norm.LINF: (0.005, 0.05), Norm.L2: (0.03, 0.3), Norm.L1: (0.1, 1.0)}[norm]
    named = [(kind, models.network(kind, 3)) for kind in models.KINDS]
    x = models.images(2, 11)
    named += [(name, read(model, x)) for name, model in AWKWARD.items()]
    gaps = []
    for name, network in named:
        specification = pairs(network(x).argmax(1), 3)
        for radius in radii:
            ball = around(x, radius, norm)
            least = lowest(network, specification, ball)
            for method in METHODS:
                found = LirpaBounds(ball, method).lower([network], [specification])
                assert bool((found <= least).all()), (name, method, radius, float((found - least).max()))
            gaps.append(float((least - found).amax() / (1 + least.abs().max())))
    assert sorted(gaps)[len(gaps) // 4] < 0.02, "the attack is strong and the bounds are tight"


@every_method
def test_no_attack_succeeds_within_a_certified_radius(models: Any, method: str) -> None:
    certified = 0
    for number, kind in enumerate(models.KINDS):
        threat = ThreatModel(list(Norm)[number % 3])
        classifier, x = models.model(kind, 7), models.images(3, 7)
        found = certifiers.create(method).certify(classifier, x, threat, radii=[0.002, 0.01, 0.05, 0.2])
        assert not any(verdict == Verdict.UNSUPPORTED for verdict in found.verdict), found.reason
        certified += int(found.certified.sum())
        result = attack(classifier, x, found.prediction.clamp(min=0), found.radius, threat, restarts=3)
        assert not bool((result.found & found.certified).any()), kind
    assert certified >= 6


@every_method
def test_a_ball_without_radius_is_the_classifier(models: Any, method: str) -> None:
    for kind in models.KINDS:
        network, x = models.network(kind, 20), models.images(3, 1)
        wanted = torch.einsum("brc,bc->br", pairs(network(x).argmax(1), 3), network(x))
        for norm in Norm:
            found = margins(network, LirpaBounds(around(x, 0.0, norm), method), x)
            torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
            assert bool((found <= wanted).all())


@every_norm
def test_optimised_bounds_are_never_below_crown(models: Any, norm: Norm) -> None:
    gained = []
    for kind in models.KINDS:
        network, x = models.network(kind, 4), models.images(2, 2)
        ball = around(x, {Norm.LINF: 0.05, Norm.L2: 0.3, Norm.L1: 1.0}[norm], norm)
        crown, optimised = (margins(network, LirpaBounds(ball, method), x) for method in ("crown", "alpha-crown"))
        assert bool((optimised >= crown).all()), kind
        gained.append(float((optimised - crown).max()))
        one = margins(network, LirpaBounds(ball, "alpha-crown", steps=1), x)
        assert bool((optimised >= one - 1e-6).all())
    assert sum(gain > 1e-3 for gain in gained) >= 4
