import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import ndtri

from certifiers import Norm
from certifiers.certificate import Certificates, Verdict
from certifiers.conformance.smoothed_truth import Recorder, Slabs, tight_direction
from certifiers.sanitize import refused

AXIS = torch.tensor([0.0, 2.0, 0.0])


def claims(*pairs: tuple[int, float]) -> Certificates:
    predictions, radii = zip(*pairs, strict=True)
    return replace(
        refused(len(pairs), Verdict.UNKNOWN, ""),
        prediction=torch.tensor(predictions),
        radius=torch.tensor(radii, dtype=torch.float64),
        verdict=torch.full((len(pairs),), int(Verdict.CERTIFIED), dtype=torch.int8),
    )


@pytest.mark.parametrize("invalid", ["", "nan", "nan in class 0", "infinity in class 0"])
def test_probabilities_are_the_shares_of_votes(invalid: str) -> None:
    slabs = Slabs(torch.randn(3, generator=torch.Generator().manual_seed(0)), (-0.5, 0.25, 1.0), 0.3, invalid)
    noise = 0.3 * torch.randn(200_000, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    shift = 0.3 * 0.4 * slabs.direction  # t = .4
    recorder = Recorder(slabs)
    recorder(0.5 + shift + noise)
    shares = np.array([(recorder.votes() == label).double().mean() for label in range(4)])
    np.testing.assert_allclose(shares, slabs.probabilities(0.4), atol=0.005)
    assert (shares[3] == 0) == bool(invalid)


def test_probabilities_far_out_are_not_differences_of_ones() -> None:
    slabs = Slabs(AXIS, (9.0,), 1.0)
    assert slabs.probabilities(0.0)[1] == pytest.approx(1.1285884059538e-19, rel=1e-6)
    assert Slabs(AXIS, (-9.0,), 1.0).probabilities(0.0)[0] == pytest.approx(1.1285884059538e-19, rel=1e-6)


def test_a_halfspace_refutes_what_exceeds_the_distance_to_it() -> None:
    slabs = Slabs(AXIS, (float(ndtri(0.8)),), 0.5)
    exact = 0.5 * float(ndtri(0.8))
    found = claims((0, exact * (1 - 1e-8)), (0, exact * (1 + 1e-8)), (1, 1e-9), (2, 1e-9), (0, 1e-9))
    assert slabs.false(found, Norm.L2).tolist() == [False, True, True, True, False]
    assert not bool(slabs.false(refused(3, Verdict.ABSTAINED, ""), Norm.L2).any())


@pytest.mark.parametrize("norm", list(Norm))
def test_tight_directions_are(norm: Norm) -> None:
    dimensions = 12
    direction = tight_direction(norm, (3, 2, 2), torch.Generator().manual_seed(3))
    slabs = Slabs(direction, (1.0,), 0.5)
    certified = 0.5 * (1 / math.sqrt(dimensions) if norm is Norm.LINF else 1.0)
    found = claims((0, certified * (1 - 1e-8)), (0, certified * (1 + 1e-8)))
    assert slabs.false(found, norm).tolist() == [False, True]


def test_a_third_class_between_refutes_a_bound_on_the_runner_up() -> None:
    # p = .4 and nine times .0667: the top class loses within .1, long before Phi^-1(1 - .0667) = 1.5.
    cuts = tuple(float(ndtri(0.4 + 0.6 * c / 9)) for c in range(9))
    slabs = Slabs(AXIS, cuts, 1.0)
    assert slabs.false(claims((0, 1.5), (0, 0.1)), Norm.L2).tolist() == [True, False]


def test_the_recorder_gives_the_noise_back_exactly() -> None:
    recorder = Recorder(Slabs(AXIS, (0.0,), 0.5))
    noise = torch.randn(50, 3, generator=torch.Generator().manual_seed(2))
    recorder(torch.full((1, 3), 0.5, dtype=torch.float64))
    recorder(0.5 + noise.double())
    assert torch.equal(recorder.noise(), noise.double())
    assert len(recorder.votes()) == 51
