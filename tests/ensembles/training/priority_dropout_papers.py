"""The papers on priority dropout, a unit at a time."""

import math
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from ensembles.training.priority_dropout import LPD, PDD, PriorityDropout


def lpd_keep(features: list[list[list[float]]], objective: LPD) -> list[list[list[float]]]:
    """Alg. 1 and Eq. 3 to 6 of Wu et al. for features[member][sample][unit]."""
    members, batch = len(features), len(features[0])
    s = objective.interval
    mu = [[[math.ceil(v / s) * s - s / 2 if v > 0 else None for v in row] for row in own] for own in features]
    keep: list[list[list[float]]] = [[[] for _ in range(batch)] for _ in range(members)]
    for b in range(batch):
        seen = [b] if objective.statistics == "sample" else range(batch)
        n = [Counter(round(m, 9) for b_ in seen for m in mu[k][b_] if m is not None) for k in range(members)]
        together = sum(n, Counter())
        ranked = sorted(together, key=lambda m: (-together[m], m))
        for k in range(members):
            active = sum(n[k].values())
            for m in mu[k][b]:
                if m is None:
                    keep[k][b].append(1.0)
                    continue
                priority = ranked[min(k, len(ranked) - 1)]
                z = objective.gamma * (n[k][round(m, 9)] / active) * (priority - m) ** 2
                laplace = math.exp(-z / objective.scale) / (2 * objective.scale)
                keep[k][b].append(objective.a * laplace + objective.b)
    return keep


def pdd_keep(features: list[list[list[float]]], objective: PDD) -> list[list[list[float]]]:
    """Eq. 2 of Wu et al. with METHODS section 3, for features[member][sample][unit]."""
    members, batch = len(features), len(features[0])
    keep: list[list[list[float]]] = [[[] for _ in range(batch)] for _ in range(members)]
    for b in range(batch):
        seen = [b] if objective.statistics == "sample" else range(batch)
        values = [v for own in features for b_ in seen for v in own[b_]]
        low, high = min(values), max(values)

        def bin_of(v: float, low: float = low, high: float = high) -> int:
            return min(int((v - low) / (high - low) * objective.bins), objective.bins - 1) if high > low else 0

        n = [
            Counter(bin_of(v) for b_ in seen for v in features[k][b_] if v > 0 or not objective.active_only)
            for k in range(members)
        ]
        together = sum(n, Counter())
        ranked = sorted(together, key=lambda m: (-together[m], m)) or [0]
        for k in range(members):
            for v in features[k][b]:
                if bin_of(v) == ranked[min(k, len(ranked) - 1)]:
                    keep[k][b].append(objective.high)
                else:
                    density = n[k][bin_of(v)] / max(sum(n[k].values()), 1)
                    keep[k][b].append(objective.low * (1 - density))
    return keep


def literal_keep(features: Tensor, objective: PriorityDropout) -> Tensor:
    nested = features.tolist()
    return torch.tensor(lpd_keep(nested, objective) if isinstance(objective, LPD) else pdd_keep(nested, objective))


def keep_of(objective: PriorityDropout, *rows: list[float]) -> list[list[float]]:
    """Keep probabilities of one sample, a row a member."""
    return objective.keep_probabilities(torch.tensor(rows)[:, None])[:, 0].tolist()


def close(*rows: list[float]) -> Any:
    return [pytest.approx(row, abs=1e-6) for row in rows]
