"""Aggregations whose weights are fitted on the validation split before anything is certified."""

import numpy as np
import torch

from bench.plan import Cell, Plan, certification_seed
from ensembles import Aggregation, Ensemble, Sween, seeded_generator


def needs_fit(cell: Cell) -> bool:
    """Whether the aggregation of a cell is fitted on validation images."""
    return isinstance(cell.aggregation, Sween)


@torch.no_grad()
def fitted(cell: Cell, ensemble: Ensemble, plan: Plan, device: str) -> Aggregation:
    """The aggregation of a cell with its weights; one that needs no fit as it is.

    The noise is that of the certifier (its sigma), or of the training where the certifier has none.
    """
    if not isinstance(cell.aggregation, Sween):
        return cell.aggregation
    sigma = float(getattr(cell.certifier, "sigma", cell.jobs[0].objective.sigma))
    examples = plan.dataset.validation
    noise = seeded_generator(certification_seed(plan.spec), "sween")
    parts = []
    for first in range(0, len(examples), 500):
        images = examples.images(np.arange(first, min(first + 500, len(examples))))
        for _ in range(cell.aggregation.draws):
            noisy = images + sigma * torch.randn(images.shape, generator=noise)
            parts.append(ensemble.confidences(noisy.to(device)).cpu())
    labels = [
        examples.labels[first : first + 500].repeat(cell.aggregation.draws) for first in range(0, len(examples), 500)
    ]
    return cell.aggregation.fit(torch.cat(parts, dim=1), torch.cat(labels))
