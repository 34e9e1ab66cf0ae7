"""Replay: an input that a program found is shown to the classifier itself, in its own precision."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from certifiers.certificate import Norm
from certifiers.relaxation.ball import Ball


@dataclass(frozen=True, eq=False)
class Witness:
    """An image in the ball that the classifier answers otherwise, and its distance."""

    x: Float[Tensor, "*shape"]
    distance: float


def replayed(
    classifier: nn.Module,
    image: Float[Tensor, "*shape"],
    prediction: int,
    ball: Ball,
    candidate: Float64[np.ndarray, "inputs"],
) -> Witness | None:
    """The candidate, brought into the ball and the box in the image's precision, if it is answered otherwise.

    A candidate just outside, by the tolerance of a solver or by rounding, is moved towards the image until its
    distance, measured in float64, is at most the radius.
    """
    center = image.detach().double().cpu()
    move = torch.from_numpy(candidate).reshape(center.shape) - center
    radius = float(ball.radius)
    if ball.norm is Norm.LINF:
        move = move.clamp(-radius, radius)
    for shrink in (0.0, 2.0**-24, 2.0**-20, 2.0**-16, 2.0**-12):
        x = (center + (1 - shrink) * move).clamp(0, 1).to(image)
        distance = _length(x.double().cpu() - center, ball.norm)
        if distance <= radius:
            scores = classifier(x[None])[0]
            changed = bool(torch.isfinite(scores).all()) and int(scores.argmax()) != prediction
            return Witness(x, distance) if changed else None
    return None


def _length(move: Float64[Tensor, "*shape"], norm: Norm) -> float:
    order = {Norm.L1: 1.0, Norm.L2: 2.0, Norm.LINF: float("inf")}[norm]
    return float(torch.linalg.vector_norm(move.flatten(), ord=order))
