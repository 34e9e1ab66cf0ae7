"""Each ambush lies where it says, shown without a certifier: along its direction, by sampling, and by exact search."""

from typing import Any

import pytest
import torch
from torch import Tensor

import certifiers
from certifiers import Norm, ThreatModel
from certifiers.conformance import Truth, attack, unanswered
from certifiers.conformance.ambushes import INPUTS, corner, needle
from certifiers.conformance.planted_checks import AGGREGATIONS
from ensembles import MaxMargin

ORDER = {Norm.L1: 1.0, Norm.L2: 2.0, Norm.LINF: float("inf")}
PLACES = [("alone", None), *((where, kind) for where in ("one", "all", "sum") for kind in AGGREGATIONS)]
every_norm = pytest.mark.parametrize("norm", list(Norm))
every_place = pytest.mark.parametrize(("where", "kind"), PLACES, ids=str)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def wrong(truth: Truth, points: Tensor) -> Tensor:
    with torch.no_grad():
        return unanswered(truth.classifier(points), 0)


def signs_of(truth: Truth) -> Tensor:
    """The direction of the corner, read off its hidden unit."""
    for parameter in truth.classifier.parameters():
        if parameter.ndim == 2 and parameter.shape[1] == INPUTS and bool(parameter.any()):
            return parameter[0].sign().detach()
    raise AssertionError


@every_norm
@every_place
def test_the_corner_is_at_its_radius(where: Any, kind: Any, norm: Norm) -> None:
    for seed, place in enumerate(("inside", "edge")):
        truth = corner(generator(seed), ThreatModel(norm), where, kind, place)
        signs, radius = signs_of(truth), float(truth.radius)
        rho = radius / {Norm.LINF: 1.0, Norm.L2: INPUTS**0.5, Norm.L1: INPUTS}[norm]
        along = truth.x + rho * signs
        assert torch.linalg.vector_norm(rho * signs, ord=ORDER[norm]).item() == pytest.approx(radius)
        assert bool(((along >= 0) & (along <= 1)).all())
        assert bool(((along == 0) | (along == 1)).all()) is (place == "edge")
        # Of equal gaps the first member's counts.
        beyond = along + 2**-12 * signs if isinstance(kind, MaxMargin) else along
        assert wrong(truth, beyond).tolist() == [True]
        assert wrong(truth, truth.x + (rho - 2**-12) * signs).tolist() == [False]
        # No other direction comes as far.
        directions = torch.cat([torch.randn(20_000, INPUTS, generator=generator(1)), torch.eye(INPUTS), signs[None]])
        lengths = torch.linalg.vector_norm(directions, ord=ORDER[norm], dim=1, keepdim=True)
        assert not bool(wrong(truth, truth.x + (radius - 1e-4) * directions / lengths).any())


def test_no_corner_outside_of_the_box() -> None:
    truth = corner(generator(0), ThreatModel("linf"), place="outside")
    signs = signs_of(truth)
    assert truth.radius.tolist() == [float("inf")]
    far = torch.where(signs > 0, 1.0, 0.0)[None]
    assert wrong(truth, far).tolist() == [False]
    assert wrong(truth, far + signs / 64).tolist() == [True]


@every_norm
@every_place
def test_the_needle_is_at_its_radius(where: Any, kind: Any, norm: Norm) -> None:
    truth = needle(generator(3), ThreatModel(norm), where, kind)
    identity = next(parameter for parameter in truth.classifier.parameters() if parameter.shape == (2 * INPUTS, INPUTS))
    biases = next(parameter for parameter in truth.classifier.parameters() if parameter.shape == (2 * INPUTS,))
    assert torch.equal(identity[:INPUTS].detach(), torch.eye(INPUTS))
    point = biases[INPUTS:].detach()
    away = point - truth.x[0]
    assert bool(((point >= 0) & (point <= 1)).all())
    assert wrong(truth, point[None]).tolist() == [True]
    first = int(away.abs().argmax())
    reach = 1 / 128 if where == "sum" else 1 / 64
    nearest = away.clone()
    nearest[first] -= reach * away[first].sign()
    assert torch.linalg.vector_norm(nearest.double(), ord=ORDER[norm]).item() == pytest.approx(float(truth.radius))
    beyond = nearest.clone()
    beyond[first] += (2**-12 if isinstance(kind, MaxMargin) else 0.0) * away[first].sign()
    assert wrong(truth, truth.x + beyond).tolist() == [True]
    before = away.clone()
    before[first] -= (reach + 2**-10) * away[first].sign()
    assert wrong(truth, truth.x + before).tolist() == [False]
    # Nothing about the needle that is nearer to the image than the radius.
    spread = point + 0.02 * (2 * torch.rand(20_000, INPUTS, generator=generator(4)) - 1)
    inside = spread[torch.linalg.vector_norm(spread - truth.x, ord=ORDER[norm], dim=1) < float(truth.radius)]
    assert len(inside) > 0
    assert not bool(wrong(truth, inside).any())


@every_place
def test_no_member_changes_its_answer_where_only_the_sum_does(where: Any, kind: Any) -> None:
    for build in (corner, needle):
        truth = build(generator(5), ThreatModel("linf"), where, kind)
        if where == "alone":
            continue
        near = truth.x + 0.3 * (2 * torch.rand(5_000, INPUTS, generator=generator(6)) - 1)
        points = torch.cat([near, truth.x + 0.2 * signs_of(truth)])
        answers = [len(set(member(points).argmax(1).tolist())) for member in truth.classifier.members]  # type: ignore[union-attr]
        if where == "sum":
            assert answers == [1, 1]


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L1])
@every_place
def test_exact_search_finds_the_same_radius(where: Any, kind: Any, norm: Norm) -> None:
    for build in (corner, needle):
        truth = build(generator(7), ThreatModel(norm), where, kind)
        radii = [share * float(truth.radius) for share in (0.99, 1.001)]
        found = certifiers.create("milp").certify(truth.classifier, truth.x, truth.threat, radii=radii)
        assert found.radius.tolist() == [radii[0]]


@every_norm
def test_no_gradient_finds_them(norm: Norm) -> None:
    for build in (corner, needle):
        truth = build(generator(8), ThreatModel(norm))
        radius = 1.05 * truth.radius
        found = attack(truth.classifier, truth.x, truth.prediction, radius, truth.threat, steps=50, restarts=5)
        assert not bool(found.found.any())
