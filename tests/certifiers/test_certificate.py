import dataclasses
import itertools
import math

import pytest
import torch

from certifiers import Norm, ThreatModel, Verdict
from certifiers.certificate import Cost
from certifiers.sanitize import refused


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_threat_model_takes_a_norm_or_its_name(norm: str) -> None:
    assert ThreatModel(norm) == ThreatModel(Norm(norm)) == ThreatModel(norm=norm)
    assert ThreatModel(norm).norm is Norm(norm)
    assert str(ThreatModel(norm).norm) == norm


def test_unknown_norm_says_the_nearest_and_the_list() -> None:
    with pytest.raises(ValueError, match=r"^Unknown norm 'linff'\. Did you mean 'linf'\? Allowed: l1, l2, linf\.$"):
        ThreatModel("linff")
    with pytest.raises(ValueError, match=r"^Unknown norm 'max'\. Allowed: l1, l2, linf\.$"):
        ThreatModel("max")


@pytest.mark.parametrize("d", [1, 2, 3])
def test_diameter_of_the_box_is_its_longest_diagonal(d: int) -> None:
    corners = [torch.tensor(corner) for corner in itertools.product([0.0, 1.0], repeat=d)]
    for norm, order in ((Norm.L1, 1), (Norm.L2, 2), (Norm.LINF, math.inf)):
        longest = max(float(torch.linalg.vector_norm(a - b, ord=order)) for a in corners for b in corners)
        assert ThreatModel(norm).box_diameter(d) == pytest.approx(longest)


def test_verdicts_keep_their_numbers() -> None:
    # A golden: rows in stores hold these names, and int8 columns these numbers.
    names = ["CERTIFIED", "UNKNOWN", "ABSTAINED", "FALSIFIED", "UNSUPPORTED", "TIMEOUT", "ERROR"]
    assert [verdict.name for verdict in sorted(Verdict)] == names
    assert [int(verdict) for verdict in sorted(Verdict)] == list(range(7))


def test_certificates_have_a_length_a_mask_and_cannot_be_altered() -> None:
    found = refused(3, Verdict.TIMEOUT, "too slow")
    assert len(found) == 3
    assert found.certified.tolist() == [False] * 3
    assert isinstance(found.cost, Cost)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.radius = torch.ones(3)  # type: ignore[misc]
    certified = dataclasses.replace(found, verdict=torch.tensor([0, 1, 0], dtype=torch.int8))
    assert certified.certified.tolist() == [True, False, True]
