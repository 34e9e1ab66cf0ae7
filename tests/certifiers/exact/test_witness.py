from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from certifiers import ThreatModel
from certifiers.exact import replayed
from certifiers.relaxation import Ball


class Above(nn.Module):
    """Answers 1 where the inputs' sum exceeds a threshold."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold, self.seen = threshold, []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return torch.stack([torch.full((len(x),), self.threshold), x.flatten(1).sum(1)], 1)


def replay(model: nn.Module, candidate: list[float], norm: str = "linf", radius: float = 0.25) -> Any:
    image = torch.tensor([0.5, 0.9])
    ball = Ball.around(image[None].double(), torch.tensor([radius], dtype=torch.float64), ThreatModel(norm))
    return replayed(model, image, 0, ball, np.array(candidate))


def test_input_that_changes_the_answer_is_a_witness() -> None:
    found = replay(Above(1.5), [0.7, 1.0])
    assert found.x.tolist() == pytest.approx([0.7, 1.0])
    assert found.distance == pytest.approx(0.2)
    assert found.x.dtype == torch.float32


def test_input_that_does_not_is_none() -> None:
    assert replay(Above(1.8), [0.7, 1.0]) is None


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_candidate_just_outside_is_moved_into_ball_and_box(norm: str) -> None:
    radius = 0.3
    length = {"l1": 2.0, "l2": 2**0.5, "linf": 1.0}[norm]
    candidate = [0.5 - (radius + 1e-7) / length, 0.9 - (radius + 1e-7) / length]
    model = Above(-9.0)
    found = replay(model, candidate, norm, radius)
    assert found.distance <= radius
    assert found.distance > radius * 0.999
    order = {"l1": 1.0, "l2": 2.0, "linf": float("inf")}[norm]
    move = found.x.double() - torch.tensor([0.5, 0.9]).double()
    assert float(torch.linalg.vector_norm(move, ord=order)) == found.distance
    assert torch.equal(model.seen[0][0], found.x), "what is measured is what was shown"


def test_box_holds() -> None:
    found = replay(Above(1.0), [0.7, 1.2])
    assert float(found.x[1]) <= 1.0


def test_candidate_far_outside_is_not_shown() -> None:
    model = Above(-9.0)
    assert replay(model, [0.5, 0.0], "l1", 0.25) is None
    assert not model.seen


def test_answer_that_is_not_finite_is_none() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full((len(x), 2), torch.nan)

    assert replay(Broken(), [0.6, 0.9]) is None
