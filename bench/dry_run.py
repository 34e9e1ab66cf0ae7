"""What a run would do, without doing it."""

import math
from collections.abc import Callable, Collection, Mapping

from bench.calibration import Estimate
from bench.fitting import needs_fit
from bench.keys import digest
from bench.options import Options
from bench.plan import Cell, Plan
from bench.store import Store
from bench.training import stored_members
from leaderboards.metrics import CONFIDENCE, binomial_interval
from leaderboards.radii import ceil_float, parse_radius

#: Estimates of the cells of these names.
Measure = Callable[[Collection[str]], Mapping[str, Estimate]]


def describe_plan(plan: Plan, options: Options, measure: Measure | None = None) -> list[str]:
    """Lines that say, for each training job and each cell, what is stored and what is still to be computed.

    With a measure, how long that will take; and always how far the certifiers can reach, and how wide the intervals of
    the board will be.

    Writes nothing: damaged files are left for the run to set aside.

    Raises:
        CheckpointError: a stored checkpoint was altered.
    """
    store = Store(options.output)
    images, chosen = plan.images, plan.spec.data.answered_rightly
    count = f"{len(images)}" if chosen is None else f"{chosen} of {len(images)}"
    lines = [
        f"{plan.name}: {count} {plan.spec.data.split} images of {plan.dataset.name}, norm {plan.spec.threat.norm}, "
        f"radii {', '.join(plan.spec.threat.radii)}; store {options.output}",
        "training:",
    ]
    weights = {}
    for job in plan.jobs():
        path = store.checkpoint(job.digest)
        if path.is_file():
            weights[job.digest] = stored_members(job, path).digest
        needed = "to build" if job.planted else f"to train, {job.schedule.epochs} epochs"
        lines.append(f"  {job.label}: {'stored' if job.digest in weights else needed}")
    for label, table in plan.spec.ensembles.items():
        if table.grid:
            lines.append(f"  {label}: one of {len(table.candidates())} candidates, chosen on validation images first")
    states = [(cell, *_state_of(cell, plan, weights, store)) for cell in plan.cells]
    estimates = measure({cell.name for cell, _, todo in states if todo}) if measure else {}
    lines.append("cells:")
    seconds = 0.0
    for cell, state, todo in states:
        estimate = estimates.get(cell.name) if todo else None
        lines.append(f"  {cell.name}: {state}" + (f"; {_time_of(estimate, todo)}" if estimate else ""))
        seconds += (estimate.seconds or 0.0) * todo / estimate.shared if estimate else 0.0
    if seconds:
        lines.append(f"certifying takes about {_duration(seconds)}, if cells are done one after the other")
    return [*lines, *_reach(plan), _precision(plan)]


def _state_of(cell: Cell, plan: Plan, weights: Mapping[str, str], store: Store) -> tuple[str, int]:
    """What is to be done for a cell, in words, and for how many images; `weights` has those stored, by job."""
    images, chosen = plan.images, plan.spec.data.answered_rightly
    todo = len(images) if chosen is None else chosen
    if cell.reason:
        return f"unsupported: {cell.reason}", 0
    if (own := plan.spec.ensembles.get(cell.ensemble)) is not None and own.grid:
        return f"to certify: {len(images)} images, after the choice of its hyper-parameters", todo
    if needs_fit(cell):
        return f"to certify: {len(images)} images, after its weights are fitted", todo
    if chosen is not None:
        return f"to certify: {chosen} images that all members answer rightly, chosen after training", todo
    if any(job.digest not in weights for job in cell.jobs):
        return f"to certify: {len(images)} images, after training", todo
    key = digest(cell.key_fields([weights[job.digest] for job in cell.jobs], plan.spec, images))
    missing = len(images) - len(store.stored_images(key, set_aside=False)[0])
    return f"{'stored' if not missing else f'to certify: {missing} of {len(images)} images'}, key {key[:12]}", missing


def _time_of(estimate: Estimate, images: int) -> str:
    if estimate.seconds is None:
        return "time not measured"
    others = f", in a pass with {estimate.shared - 1} other{'s' * (estimate.shared > 2)}" if estimate.shared > 1 else ""
    return f"about {_duration(estimate.seconds * images)} ({estimate.seconds:.2g} s an image{others})"


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{max(seconds, 0.1):.1f} s"


def _reach(plan: Plan) -> list[str]:
    """How far certifiers whose parameters limit the radius can reach, and which radii of the spec lie beyond."""
    found: dict[str, str] = {}
    for cell in plan.cells:
        limit = cell.certifier.largest_radius(cell.threat, math.prod(plan.dataset.input_shape))
        if cell.reason or math.isinf(limit):
            continue
        beyond = [radius for radius in plan.spec.threat.radii if ceil_float(parse_radius(radius)) > limit]
        told = f"; {', '.join(beyond)} beyond: nothing can be certified there" if beyond else ""
        name = cell.labels[1] or cell.certifier.name
        found.setdefault(name, f"  {name}: radii up to {limit:.4g} in {cell.threat.norm.value}{told}")
    return ["reach:", *found.values()] if found else []


def _precision(plan: Plan) -> str:
    """How wide the intervals of certified accuracies will be at most."""
    chosen = plan.spec.data.answered_rightly
    images = len(plan.images) if chosen is None else chosen
    low, high = binomial_interval(images // 2, images)
    return (
        f"{CONFIDENCE:.0%} intervals of certified accuracies over {images} images: up to {100 * (high - low):.1f} "
        "points wide"
    )
