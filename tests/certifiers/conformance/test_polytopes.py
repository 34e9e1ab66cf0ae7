"""Distances to polytopes in l2."""

import numpy as np
import pytest

from certifiers import ThreatModel
from certifiers.conformance import enumerated
from certifiers.conformance.polytopes import distance_to_polytope


def test_known_distances() -> None:
    corner = np.array([[-1.0, 0.0], [0.0, -1.0]])  # x >= 1, y >= 1
    limit = np.array([-1.0, -1.0])
    assert distance_to_polytope(np.zeros(2), corner, limit) == pytest.approx(2**0.5, abs=1e-12)
    assert distance_to_polytope(np.array([3.0, 0.0]), corner, limit) == pytest.approx(1.0, abs=1e-12)
    assert distance_to_polytope(np.array([1.0, 5.0]), corner, limit) == 0.0
    empty = np.array([[1.0, 0.0], [-1.0, 0.0]])  # x <= 0 and x >= 1
    assert distance_to_polytope(np.array([0.5, 0.5]), empty, np.array([0.0, -1.0])) == np.inf


def test_a_half_space_is_at_its_distance() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        normal, point = rng.normal(size=5), rng.normal(size=5)
        gap = rng.uniform(0.1, 2)
        found = distance_to_polytope(point, normal[None], np.array([normal @ point - gap]))
        assert found == pytest.approx(gap / np.linalg.norm(normal), rel=1e-9)


def test_enumerated_radii_in_l2_lie_between_those_of_the_other_norms() -> None:
    linf, l2, l1 = (enumerated(5, ThreatModel(norm), hidden=(3,), batch=2).radius for norm in ("linf", "l2", "l1"))
    assert bool(((linf <= l2) & (l2 <= l1)).all())
    assert bool((l2 <= linf * 2**0.5 + 1e-9).all())
    assert bool((l1 <= l2 * 2**0.5 + 1e-9).all())
    assert bool((linf > 0).all())
