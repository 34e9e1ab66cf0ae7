"""An independent truth: the linear pieces of small ReLU networks, found one activation pattern after the other."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor, nn

Piece = tuple[np.ndarray, np.ndarray]


def mlp(*sizes: int, seed: int, gain: float = 1.5) -> nn.Sequential:
    """A random ReLU network."""
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layer = nn.Linear(inputs, outputs)
        layer.weight.data = torch.randn(outputs, inputs, generator=generator) * gain / inputs**0.5
        layer.bias.data = torch.randn(outputs, generator=generator) * 0.3
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1]).eval()


@dataclass
class Truth:
    """The pieces of some members over a ball: `A (x, t) <= b`, and each member's logits `W x + c`."""

    members: Sequence[nn.Sequential]
    center: np.ndarray
    radius: float
    norm: str

    def _ball(self) -> tuple[np.ndarray, np.ndarray, list[tuple[float, float]]]:
        n = len(self.center)
        if self.norm == "linf":
            low, high = np.maximum(self.center - self.radius, 0), np.minimum(self.center + self.radius, 1)
            return np.zeros((0, n)), np.zeros(0), list(zip(low, high, strict=True))
        eye = np.eye(n)
        rows = np.block([[eye, -eye], [-eye, -eye], [np.zeros((1, n)), np.ones((1, n))]])
        limit = np.concatenate([self.center, -self.center, [self.radius]])
        return rows, limit, [(0.0, 1.0)] * n + [(0.0, self.radius)] * n

    def minimum(self, cost: np.ndarray, rows: np.ndarray, limit: np.ndarray) -> float | None:
        """`min cost . x` in the ball where `rows x <= limit`; None where there is no such x."""
        own, own_limit, bounds = self._ball()
        wide = np.hstack([rows, np.zeros((len(rows), len(bounds) - rows.shape[1]))])
        found = linprog(
            np.concatenate([cost, np.zeros(len(bounds) - len(cost))]),
            np.vstack([own, wide]),
            np.concatenate([own_limit, limit]),
            bounds=bounds,
        )
        assert found.status in (0, 2), found.message
        return float(found.fun) if found.status == 0 else None

    def pieces(self) -> Iterator[tuple[np.ndarray, np.ndarray, list[Piece]]]:
        n = len(self.center)
        units = [layer for member in self.members for layer in member]
        ends = list(itertools.accumulate(len(member) for member in self.members))
        yield from self._walk(units, ends, 0, np.zeros((0, n)), np.zeros(0), (np.eye(n), np.zeros(n)), [])

    def _walk(
        self,
        layers: list[nn.Module],
        ends: list[int],
        at: int,
        a: np.ndarray,
        b: np.ndarray,
        now: Piece,
        done: list[Piece],
    ) -> Iterator[tuple[np.ndarray, np.ndarray, list[Piece]]]:
        if at in ends:
            done, now = [*done, now], (np.eye(len(self.center)), np.zeros(len(self.center)))
        if at == len(layers):
            yield a, b, done
        elif isinstance(layer := layers[at], nn.Linear):
            w, c = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
            yield from self._walk(layers, ends, at + 1, a, b, (w @ now[0], w @ now[1] + c), done)
        else:
            assert isinstance(layer, nn.ReLU)
            for a2, b2, on in self._patterns(now, 0, a, b, []):
                yield from self._walk(layers, ends, at + 1, a2, b2, (now[0] * on[:, None], now[1] * on), done)

    def _patterns(
        self, z: Piece, unit: int, a: np.ndarray, b: np.ndarray, signs: list[float]
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        if self.minimum(np.zeros(len(self.center)), a, b) is None:
            return
        if unit == len(z[1]):
            yield a, b, np.array(signs)
            return
        for on in (1.0, 0.0):
            side = -1.0 if on else 1.0  # on: z >= 0, written -z <= 0
            yield from self._patterns(
                z, unit + 1, np.vstack([a, side * z[0][unit]]), np.append(b, -side * z[1][unit]), [*signs, on]
            )

    def margin(self, specifications: Sequence[Tensor]) -> float:
        """The least `sum_i specifications[i] . logits_i`."""
        found = []
        for a, b, logits in self.pieces():
            cost, constant = np.zeros(len(self.center)), 0.0
            for specification, (w, c) in zip(specifications, logits, strict=True):
                s = specification.double().numpy()
                cost, constant = cost + s @ w, constant + float(s @ c)
            least = self.minimum(cost, a, b)
            if least is not None:
                found.append(least + constant)
        return min(found)

    def max_margin_escape(self, prediction: int) -> float:
        """By how much a member that answers otherwise can have the largest gap of logits; -inf if none ever does."""
        best = -np.inf
        for a, b, logits in self.pieces():
            classes = len(logits[0][1])
            orders = list(itertools.permutations(range(classes), 2))
            for tops in itertools.product(orders, repeat=len(logits)):
                rows, limit = [a], [b]
                for (w, c), (first, second) in zip(logits, tops, strict=True):
                    for other in range(classes):
                        lead = (first, second) if other == second else (second, other)
                        if other != first:
                            rows.append((w[lead[1]] - w[lead[0]])[None])
                            limit.append(np.array([c[lead[0]] - c[lead[1]]]))
                gaps = [(w[f] - w[s], c[f] - c[s]) for (w, c), (f, s) in zip(logits, tops, strict=True)]
                nothing = (np.zeros(len(self.center)), 0.0)
                for leader, (first, _) in enumerate(tops):
                    if first == prediction:
                        continue
                    rivals = [g for k, g in enumerate(gaps) if k != leader] or [nothing]
                    for slope, constant in rivals:
                        difference = (gaps[leader][0] - slope, gaps[leader][1] - constant)
                        others = [g for g in rivals if g[0] is not slope]
                        more = [np.array([g[0] - gaps[leader][0]]) for g in others]
                        most = [np.array([gaps[leader][1] - g[1]]) for g in others]
                        least = self.minimum(-difference[0], np.vstack([*rows, *more]), np.concatenate([*limit, *most]))
                        if least is not None:
                            best = max(best, -least + difference[1])
        return best


@pytest.fixture(name="mlp")
def mlp_fixture():
    return mlp


@pytest.fixture(name="truth")
def truth_fixture():
    return Truth
