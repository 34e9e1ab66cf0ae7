"""What a run would do, without doing it."""

from bench.fitting import needs_fit
from bench.keys import digest
from bench.options import Options
from bench.plan import Plan
from bench.store import Store
from bench.training import stored_members


def describe_plan(plan: Plan, options: Options) -> list[str]:
    """Lines that say, for each training job and each cell, what is stored and what is still to be computed.

    Writes nothing: damaged files are left for the run to set aside.

    Raises:
        CheckpointError: a stored checkpoint was altered.
    """
    store = Store(options.output)
    images = plan.images
    chosen = plan.spec.data.answered_rightly
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
        todo = "to build" if job.planted else f"to train, {job.schedule.epochs} epochs"
        lines.append(f"  {job.label}: {'stored' if job.digest in weights else todo}")
    for label, table in plan.spec.ensembles.items():
        if table.grid:
            lines.append(f"  {label}: one of {len(table.candidates())} candidates, chosen on validation images first")
    lines.append("cells:")
    for cell in plan.cells:
        if cell.reason:
            state = f"unsupported: {cell.reason}"
        elif (own := plan.spec.ensembles.get(cell.ensemble)) is not None and own.grid:
            state = f"to certify: {len(images)} images, after the choice of its hyper-parameters"
        elif needs_fit(cell):
            state = f"to certify: {len(images)} images, after its weights are fitted"
        elif chosen is not None:
            state = f"to certify: {chosen} images that all members answer rightly, chosen after training"
        elif any(job.digest not in weights for job in cell.jobs):
            state = f"to certify: {len(images)} images, after training"
        else:
            names = [weights[job.digest] for job in cell.jobs]
            key = digest(cell.key_fields(names, plan.spec, images))
            missing = len(images) - len(store.stored_images(key, set_aside=False)[0])
            state = f"{'stored' if not missing else f'to certify: {missing} of {len(images)} images'}, key {key[:12]}"
        lines.append(f"  {cell.name}: {state}")
    return lines
