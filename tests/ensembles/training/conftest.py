"""Small ensembles in float64, and literal pieces that objectives are compared with: loops, a sample at a time."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ensembles import Ensemble, architectures
from ensembles.architectures import Classifier, Normalize

Scalar = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Problem:
    """An ensemble and a batch that some members answer rightly and some wrongly."""

    ensemble: Ensemble
    x: Tensor
    y: Tensor

    def right(self, x: Tensor) -> Tensor:
        """[member, batch]: whether a member answers a sample rightly."""
        return self.ensemble.logits(x).argmax(-1) == self.y


def build_ensemble(
    members: int = 3,
    classes: int = 4,
    shape: tuple[int, ...] = (1, 4, 4),
    hidden: int = 6,
    seed: int = 0,
    sharpness: float = 3.0,
    alike: float = 0.6,
    smooth: bool = False,
) -> Ensemble:
    """Freshly initialised one-layer networks in float64 whose logits are `sharpness` times larger than usual.

    `alike` is the share of the first member's weights in the others, so that they agree at times; `smooth` has tanh
    for ReLU, for finite differences.
    """
    built = []
    for number in range(members):
        member = architectures.create(
            "mlp", input_shape=shape, classes=classes, seed=97 * seed + number, hidden=(hidden,)
        )
        if smooth:
            body = nn.Sequential(*(nn.Tanh() if isinstance(layer, nn.ReLU) else layer for layer in member.body))
            member = Classifier("smooth", Normalize([0.0], [1.0], len(shape)), body, member.head)
        with torch.no_grad():
            member.head.weight *= sharpness
            member.head.bias *= sharpness
        built.append(member.double())
    with torch.no_grad():
        for member in built[1:]:
            for own, first in zip(member.parameters(), built[0].parameters(), strict=True):
                own.lerp_(first, alike)
    return Ensemble(built)


def build_problem(batch: int = 5, seed: int = 0, **options: Any) -> Problem:
    """Labels are answers of members in turn, the first one of all members where they agree, the last one wrong."""
    ensemble = build_ensemble(seed=seed, **options)
    generator = torch.Generator().manual_seed(seed)
    shape = options.get("shape", (1, 4, 4))
    x = torch.rand((batch, *shape), generator=generator, dtype=torch.float64)
    with torch.no_grad():
        answers = ensemble.logits(x).argmax(-1)
    y = answers[torch.arange(batch) % len(answers), torch.arange(batch)].clone()
    y[-1] = (y[-1] + 1) % options.get("classes", 4)
    return Problem(ensemble, x, y)


class LinearClassifier(nn.Module):
    """`W x + b` with the weights given: what is true of it is worked out by hand."""

    def __init__(self, weight: Sequence[Sequence[float]], bias: Sequence[float] | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float64))
        self.bias = nn.Parameter(torch.tensor(bias or [0.0] * len(weight), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        return x.flatten(1) @ self.weight.T + self.bias


class Spy(nn.Module):
    """A member that records the inputs it is asked about."""

    def __init__(self, member: nn.Module) -> None:
        super().__init__()
        self.member = member
        self.inputs: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """The member's logits."""
        self.inputs.append(x.detach().clone())
        return self.member(x)


class Images:
    """Examples in memory: `count` noisy stripes of `classes` kinds, one-channel images of side `side`."""

    def __init__(
        self, count: int = 24, classes: int = 3, side: int = 4, seed: int = 0, dtype: Any = torch.float32
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(count) % classes
        self.x = 0.3 * torch.rand((count, 1, side, side), generator=generator, dtype=dtype)
        for number, label in enumerate(self.labels.tolist()):
            self.x[number, :, label % side] += 0.6

    def images(self, positions: "np.ndarray[Any, Any]") -> Tensor:
        """The images at these positions."""
        return self.x[torch.from_numpy(positions)]


def softmax(logits: Sequence[float]) -> list[float]:
    """In Python floats."""
    top = max(logits)
    powers = [math.exp(value - top) for value in logits]
    return [power / sum(powers) for power in powers]


def cross_entropy(logits: Sequence[float], label: int) -> float:
    """`-log softmax(logits)_label`, in Python floats."""
    top = max(logits)
    return top + math.log(sum(math.exp(value - top) for value in logits)) - logits[label]


def logits_of(member: nn.Module, x: Tensor) -> list[list[float]]:
    """The logits, a sample at a time."""
    with torch.no_grad():
        return [member(sample[None])[0].tolist() for sample in x]


def input_gradient(member: nn.Module, sample: Tensor, scalar: Scalar) -> list[float]:
    """The gradient of `scalar(logits)` with respect to one sample, by `torch.autograd.grad`."""
    own = sample.detach().clone()[None].requires_grad_()
    (gradient,) = torch.autograd.grad(scalar(member(own)[0]), own)
    return gradient.flatten().tolist()


def negative_log_confidence(label: int) -> Scalar:
    """The cross-entropy of one sample as a tensor, spelled out."""
    return lambda logits: torch.log(torch.exp(logits - logits.max()).sum()) + logits.max() - logits[label]


def dot(one: Sequence[float], other: Sequence[float]) -> float:
    """The inner product."""
    return math.fsum(a * b for a, b in zip(one, other, strict=True))


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """The cosine of the angle."""
    return dot(one, other) / math.sqrt(dot(one, one) * dot(other, other))


def smoothadv_inputs(
    member: nn.Module, x: Tensor, y: Tensor, noise: Tensor, *, epsilon: float, steps: int
) -> list[list[float]]:
    """Salman et al., a sample at a time, in lists of floats: l2 PGD from x on -log of the mean confidence."""
    found = []
    for b, label in enumerate(y.tolist()):
        start = x[b].flatten().tolist()
        delta = [0.0] * len(start)
        for _ in range(steps):
            own = torch.tensor(delta, dtype=x.dtype).reshape(x[b].shape).requires_grad_()
            confidences = [
                torch.exp(-negative_log_confidence(label)(member((x[b] + own + e)[None])[0])) for e in noise[:, b]
            ]
            loss = -torch.log(sum(confidences, torch.zeros((), dtype=x.dtype)) / len(confidences) + 1e-10)
            gradient = torch.autograd.grad(loss, own)[0].flatten().tolist()
            length = math.sqrt(dot(gradient, gradient))
            delta = [d + 2 * epsilon / steps * g / length for d, g in zip(delta, gradient, strict=True)]
            length = math.sqrt(dot(delta, delta))
            if length > epsilon:
                delta = [d * epsilon / length for d in delta]
            delta = [min(max(s + d, 0.0), 1.0) - s for s, d in zip(start, delta, strict=True)]
        found.append([s + d for s, d in zip(start, delta, strict=True)])
    return found


def smoothadv_loss(ensemble: Ensemble, x: Tensor, y: Tensor, noise: Tensor, *, epsilon: float, steps: int) -> float:
    """The sum over members of the mean cross-entropy at their own adversarial inputs, under the same draws."""
    total = 0.0
    for member in ensemble.members:
        found = torch.tensor(smoothadv_inputs(member, x, y, noise, epsilon=epsilon, steps=steps), dtype=x.dtype)
        losses = [
            cross_entropy(logits_of(member, (found[b].reshape(x[b].shape) + noise[k, b])[None])[0], int(y[b]))
            for k, b in itertools.product(range(len(noise)), range(len(x)))
        ]
        total += math.fsum(losses) / len(losses)
    return total


class Literal:
    """The functions above, for test modules, which cannot import each other."""

    Images = Images
    LinearClassifier = LinearClassifier
    Spy = Spy
    build_ensemble = staticmethod(build_ensemble)
    build_problem = staticmethod(build_problem)
    cosine = staticmethod(cosine)
    cross_entropy = staticmethod(cross_entropy)
    dot = staticmethod(dot)
    input_gradient = staticmethod(input_gradient)
    logits_of = staticmethod(logits_of)
    negative_log_confidence = staticmethod(negative_log_confidence)
    smoothadv_inputs = staticmethod(smoothadv_inputs)
    smoothadv_loss = staticmethod(smoothadv_loss)
    softmax = staticmethod(softmax)

    @staticmethod
    def normal(seed: int, *shape: int) -> Tensor:
        """The first standard normal draw of a generator seeded so."""
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    @staticmethod
    def values(terms: dict[str, Tensor]) -> dict[str, float]:
        """The terms as numbers."""
        return {name: term.item() for name, term in terms.items()}

    @staticmethod
    def generator(seed: int) -> torch.Generator:
        """A seeded generator."""
        return torch.Generator().manual_seed(seed)


@pytest.fixture
def literal() -> type[Literal]:
    """Small ensembles and slow, plain computations."""
    return Literal
