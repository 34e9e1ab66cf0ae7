"""From what a method found to certificates: everything in doubt is refused here, in one place."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor, nn

from certifiers.certificate import Certificates, Cost, Findings, Guarantee, Verdict


@dataclass(frozen=True)
class CleanAnswer:
    """The classifier's own answer at each x, and whether it is one: scores finite and the top one alone."""

    prediction: Int64[Tensor, "batch"]
    sure: Bool[Tensor, "batch"]
    classes: int

    @classmethod
    def of(cls, classifier: nn.Module, x: Tensor) -> "CleanAnswer":
        """Ask the classifier.

        Raises:
            ValueError: it does not return scores [batch, classes] for at least two classes.
        """
        scores = checked_scores(classifier(x), len(x))
        top = scores.topk(2, dim=1)
        sure = torch.isfinite(scores).all(1) & (top.values[:, 0] > top.values[:, 1])
        return cls(top.indices[:, 0].cpu(), sure.cpu(), scores.shape[1])


def checked_scores(scores: Any, count: int) -> Tensor:
    """The scores of `count` inputs, if that is what they are.

    Raises:
        ValueError: they are not of shape [count, classes] for at least two classes. One class, the logit of a
            binary classifier, would win every vote.
    """
    shape = list(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
    if not isinstance(scores, Tensor) or scores.ndim != 2 or len(scores) != count or scores.shape[1] < 2:
        raise ValueError(
            f"The classifier must map {count} inputs to scores [{count}, classes] of two classes or more, got {shape}."
        )
    return scores


def refused(count: int, verdict: Verdict, why: str, seconds: float = 0.0) -> Certificates:
    """The same answer, without a certificate, for all images."""
    return Certificates(
        prediction=torch.full((count,), -1),
        radius=torch.zeros(count, dtype=torch.float64),
        verdict=torch.full((count,), int(verdict), dtype=torch.int8),
        failure_probability=torch.zeros(count, dtype=torch.float64),
        evidence={},
        reason=(why,) * count,
        cost=Cost(
            forward_passes=torch.zeros(count, dtype=torch.int64),
            bound_passes=torch.zeros(count, dtype=torch.int64),
            seconds=torch.full((count,), seconds, dtype=torch.float64),
        ),
    )


def sanitized(
    found: Findings, guarantee: Guarantee, count: int, clean: CleanAnswer | None, members: int, seconds: float
) -> Certificates:
    """Certificates from findings, fail-closed.

    An image is CERTIFIED only if all of this holds: its radius is finite and positive, its verdict was left to
    us or is CERTIFIED, it has a prediction, and for a deterministic guarantee that is the classifier's own
    answer, from finite scores without a tie. Radii are rounded down by one unit in the last place, in the
    precision in which they came. An UNKNOWN image of a deterministic certifier has the classifier's own answer.

    Raises:
        ValueError: the findings do not have one value an image, or their failure probability does not fit
            the guarantee; an author's mistake.
    """
    radius = _column(found.radius, count, "radius").double()
    given = None if found.prediction is None else _column(found.prediction, count, "prediction").long()
    marked = (
        torch.full((count,), int(Verdict.UNKNOWN))
        if found.verdict is None
        else _column(found.verdict, count, "verdict").long()
    )
    if strange := set(marked.tolist()) - {int(verdict) for verdict in Verdict}:
        raise ValueError(f"Findings.verdict must hold values of Verdict, got {sorted(strange)}.")
    reason = [""] * count if found.reason is None else list(found.reason)
    if len(reason) != count:
        raise ValueError(f"Findings.reason must have {count} entries, got {len(reason)}.")
    for name, values in found.evidence.items():
        if len(values) != count:
            raise ValueError(f"Findings.evidence[{name!r}] must have {count} entries, got {len(values)}.")
    if guarantee is Guarantee.DETERMINISTIC and found.failure_probability != 0:
        raise ValueError("A deterministic guarantee has failure probability 0; declare guarantee = PROBABILISTIC.")
    if guarantee is Guarantee.PROBABILISTIC and not 0 < found.failure_probability < 1:
        raise ValueError(f"A probabilistic guarantee states its alpha in (0, 1), got {found.failure_probability}.")

    if clean is None:
        if given is None:
            raise ValueError("A probabilistic certifier must return the predictions that its radii speak of.")
        prediction, doubt = given, torch.zeros(count, dtype=torch.bool)
    else:
        given = clean.prediction if given is None else given
        doubt = ~clean.sure | (given != clean.prediction)
        prediction = torch.where(given < 0, -1, clean.prediction)
    open_verdict = (marked == int(Verdict.UNKNOWN)) | (marked == int(Verdict.CERTIFIED))
    proved = torch.isfinite(radius) & (radius > 0) & open_verdict & ~doubt & (prediction >= 0)
    rounded = radius if found.rounded else _rounded_down(found.radius, radius)
    proved &= rounded > 0
    verdict = torch.where(proved, int(Verdict.CERTIFIED), torch.where(open_verdict, int(Verdict.UNKNOWN), marked))
    for row in range(count):
        if proved[row]:
            reason[row] = ""
        elif not reason[row]:
            reason[row] = _why(row, radius, clean, given, marked)
    no_answer = (prediction < 0) | ((verdict != int(Verdict.CERTIFIED)) & (verdict != int(Verdict.UNKNOWN)))
    if clean is not None:
        no_answer |= ~clean.sure
    own_passes = 0 if clean is None else members
    return Certificates(
        prediction=torch.where(no_answer, -1, prediction),
        radius=torch.where(proved, rounded, 0.0),
        verdict=verdict.to(torch.int8),
        failure_probability=found.failure_probability * proved.double(),
        evidence={
            name: values.detach().cpu() if isinstance(values, Tensor) else values
            for name, values in found.evidence.items()
        },
        reason=tuple(reason),
        cost=Cost(
            forward_passes=_counter(found.forward_passes, count, "forward_passes") + own_passes,
            bound_passes=_counter(found.bound_passes, count, "bound_passes"),
            seconds=torch.full((count,), seconds, dtype=torch.float64),
        ),
    )


def _column(values: Tensor, count: int, name: str) -> Tensor:
    if tuple(values.shape) != (count,):
        raise ValueError(f"Findings.{name} must have shape [{count}], one value an image, got {list(values.shape)}.")
    return values.detach().cpu()


def _counter(passes: Tensor | int, count: int, name: str) -> Tensor:
    return torch.full((count,), passes) if isinstance(passes, int) else _column(passes, count, name).long()


def _rounded_down(original: Tensor, radius: Tensor) -> Tensor:
    own = original.detach().cpu()
    own = own if own.is_floating_point() else own.double()
    return torch.nextafter(torch.nextafter(own, torch.zeros_like(own)).double(), torch.zeros_like(radius))


def _why(row: int, radius: Tensor, clean: CleanAnswer | None, given: Tensor, marked: Tensor) -> str:
    if int(marked[row]) not in (Verdict.UNKNOWN, Verdict.CERTIFIED):
        return Verdict(int(marked[row])).name.lower()
    if clean is not None and not clean.sure[row]:
        return "the classifier's scores are tied, NaN or infinite"
    if clean is not None and given[row] != clean.prediction[row]:
        return "the method's prediction is not the classifier's own answer"
    if not torch.isfinite(radius[row]):
        return f"the method's radius is {float(radius[row])}"
    return "no positive radius was proved"
