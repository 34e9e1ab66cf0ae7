"""Images chosen by the trained members: the first that all of them answer rightly."""

from collections.abc import Mapping
from dataclasses import replace

import torch

from bench.plan import Plan
from ensembles.checkpoint import Checkpoint

#: Images looked at together.
_AT_ONCE = 500


class ChoosingError(RuntimeError):
    """There are fewer images of the kind than were asked for."""


def answered_rightly(plan: Plan, trained: Mapping[str, Checkpoint]) -> Plan:
    """The plan with the first `data.answered_rightly` of its images that every trained member answers rightly.

    Members are those of all entries that could be trained; planted ones, which answer at random, take no part. A
    certificate of another image counts for nothing, so that certified accuracies of such a board are shares of the
    images that could have been certified at all.

    Raises:
        ChoosingError: there are not so many.
    """
    wanted = plan.spec.data.answered_rightly
    if wanted is None:
        return plan
    jobs = {job.digest: job for cell in plan.cells if not cell.reason for job in cell.jobs if not job.planted}
    members = [member for digest in jobs if digest in trained for member in trained[digest].members]
    found: list[int] = []
    with torch.no_grad():
        for first in range(0, len(plan.images), _AT_ONCE):
            positions = list(range(first, min(first + _AT_ONCE, len(plan.images))))
            x, y = plan.images.images(positions), plan.images.labels[positions]
            right = torch.ones(len(x), dtype=torch.bool)
            for member in members:
                right[right.clone()] = member(x[right]).argmax(1) == y[right]
            found += [positions[index] for index in right.nonzero()[:, 0].tolist()]
            if len(found) >= wanted:
                return replace(plan, images=plan.images.at(found[:wanted]))
    raise ChoosingError(
        f"data.answered_rightly = {wanted}, but all {len(members)} members are right on {len(found)} of the "
        f"{len(plan.images)} images only. Lower it, or choose from more images (every, limit)."
    )
