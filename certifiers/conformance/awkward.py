"""Classifiers that give no answer, or none in time: nothing about them is to be certified."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from jaxtyping import Float
from torch import Tensor, nn

from certifiers.conformance.truth import linear_layer

#: Shape of the images; their values are all one half.
SHAPE = (1, 2, 2)
INPUTS = 4


def image(dtype: torch.dtype = torch.float32) -> Tensor:
    """One image in the middle of the box."""
    return torch.full((1, *SHAPE), 0.5, dtype=dtype)


def unanswering() -> Iterator[tuple[str, nn.Module, Tensor, bool]]:
    """Classifiers without an answer: their name, themselves, an image, and whether only ties keep them from one.

    NaN or infinite scores of one class or all, whatever the input, a ReLU before them or not; two or all classes tied.
    """
    zeros = torch.zeros(3, INPUTS)
    nan, inf = float("nan"), float("inf")
    biases = {
        "one score is NaN": [1.0, nan, 0.0],
        "the top score is NaN": [nan, 1.0, 0.0],
        "all scores are NaN": [nan, nan, nan],
        "the top score is infinite": [inf, 1.0, 0.0],
        "a score is minus infinity": [1.0, 0.0, -inf],
        "the top two are tied": [1.0, 1.0, 0.0],
        "all are tied": [0.0, 0.0, 0.0],
    }
    for name, bias in biases.items():
        layers: list[nn.Module] = [nn.Flatten(), linear_layer(zeros, torch.tensor(bias))]
        yield name, nn.Sequential(*layers).eval(), image(), "tied" in name
        layers.insert(1, nn.Sequential(linear_layer(torch.eye(INPUTS), torch.zeros(INPUTS)), nn.ReLU()))
        yield f"{name}, behind a ReLU", nn.Sequential(*layers).eval(), image(), "tied" in name
    yield "a tie of large numbers", _tied_at_the_image(2.0**40), image(), True


def overflowing() -> Iterator[tuple[str, nn.Module, Tensor]]:
    """Networks whose scores overflow as soon as the input moves, and in exact arithmetic change their answer.

        z_0 = 1,   z_1 = s^2 relu(x_0 - c),   and   z_1 = s^2 relu(x_0 - c) - s^2 / 2 relu(x_0 - c)

    with s^2 beyond the largest number: infinite, or the difference of two infinities. No positive radius is true.
    """
    for dtype, size in ((torch.float32, 1e30), (torch.float64, 1e200)):
        first = torch.zeros(1, INPUTS, dtype=dtype)
        first[0, 0] = size
        moved = linear_layer(first, torch.tensor([-0.5 * size], dtype=dtype))
        plain = linear_layer(torch.tensor([[0.0], [size]], dtype=dtype), torch.tensor([1.0, 0.0], dtype=dtype))
        yield "infinite", nn.Sequential(nn.Flatten(), moved, nn.ReLU(), plain).eval(), image(dtype)
        twice = linear_layer(torch.tensor([[size], [size / 2]], dtype=dtype), torch.zeros(2, dtype=dtype))
        last = torch.tensor([[0.0, 0.0], [1.0, -1.0]], dtype=dtype)
        head = linear_layer(last, torch.tensor([1.0, 0.0], dtype=dtype))
        deep = nn.Sequential(nn.Flatten(), moved, nn.ReLU(), twice, nn.ReLU(), head).eval()
        yield "a difference of infinities", deep, image(dtype)


class Interrupting(nn.Module):
    """A classifier that answers a few times and then raises.

    Attributes:
        answers: how many calls are answered.
        error: what is raised after that.
        raised: how often it was.
    """

    def __init__(self, answers: int, error: type[Exception]) -> None:
        super().__init__()
        self.answers, self.error = answers, error
        self.calls, self.raised = 0, 0

    def forward(self, x: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch 2"]:
        """Class 0 by a margin of one, whatever the input."""
        self.calls += 1
        if self.calls > self.answers:
            self.raised += 1
            raise self.error("interrupted by the conformance kit")
        first = torch.ones_like(x.flatten(1)[:, :1])
        return torch.cat([first, 0 * first], dim=1)


@contextmanager
def racing_clock() -> Iterator[None]:
    """The clocks of Python advance by 10^9 seconds each time that they are read: every deadline is over."""
    now = [0.0]

    def read() -> float:
        now[0] += 1e9
        return now[0]

    with mock.patch.multiple(time, time=read, monotonic=read, perf_counter=read, process_time=read):
        yield


def _tied_at_the_image(size: float) -> nn.Module:
    weight = torch.zeros(2, INPUTS)
    weight[1, 0] = size
    return nn.Sequential(nn.Flatten(), linear_layer(weight, torch.tensor([0.0, -0.5 * size]))).eval()
