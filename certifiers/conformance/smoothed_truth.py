"""Smoothed classifiers whose probabilities are known in closed form, and a recorder of what a certifier asked."""

import math
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor, nn

from certifiers.certificate import Certificates, Norm
from certifiers.conformance.noise_laws import Gaussian, Law

#: Where the images of these checks lie: all pixels in the middle of [0, 1].
CENTER = 0.5

#: What the last class of `Slabs` answers instead: NaN for all scores, NaN or infinity for the score of class 0.
Invalid = Literal["", "nan", "nan in class 0", "infinity in class 0"]

_DUAL_ORDER = {Norm.L1: math.inf, Norm.L2: 2.0, Norm.LINF: 1.0}

#: Probabilities nearer than this are a tie, which refutes nothing: the error of a distribution is far below it.
_TIE = 1e-10

#: Places between the ends of a claimed range at which other classes are compared with the one it names.
_PLACES = 201


class Slabs(nn.Module):
    """A linear classifier whose smoothed version is known: classes are slabs across one direction.

    With `t(x) = w . (x - center) / sigma` and ascending cuts, class c wins for `cut[c-1] < t < cut[c]`: the upper
    envelope of the linear scores `c t - cut[0] - ... - cut[c-1]`. Under noise N(0, sigma^2 I), for `||w||_2 = 1`,

        P[f(x + noise) = c]  =  Phi(cut[c] - t) - Phi(cut[c-1] - t),

    so that the smoothed classifier depends on t alone. Over a ball of radius r in a norm, t moves by at most
    `||w||_dual r / sigma`, and by all of that along one line. One cut makes a halfspace, whose smoothed radius is the
    distance to it, which no certificate from `p = Phi(cut)` can exceed (Cohen et al., ICML 2019, theorems 1 and 2).

    Args:
        direction: of the shape of an image; scaled to length 1.
        cuts: in standard deviations of the noise, from the center of the inputs; one fewer than classes.
        sigma: standard deviation of the noise.
        invalid: what the last class, where it wins, returns instead of scores; it then gets no votes.
        law: of the noise.
    """

    def __init__(
        self,
        direction: Tensor,
        cuts: tuple[float, ...],
        sigma: float,
        invalid: Invalid = "",
        law: Law | None = None,
    ) -> None:
        super().__init__()
        flat = direction.detach().double().flatten()
        self.direction = flat / torch.linalg.vector_norm(flat)
        self.cuts, self.sigma, self.invalid = np.asarray(cuts, dtype=np.float64), sigma, invalid
        self.law = law or Gaussian()
        if not self.law.all_directions and len(cuts) > 1 and int((self.direction != 0).sum()) > 1:
            raise ValueError("Only of Gaussian noise are several slabs known across a direction that is not one input.")

    def forward(self, x: Float[Tensor, "batch *shape"]) -> Float64[Tensor, "batch classes"]:
        """The scores."""
        t = (x.double().flatten(1) - CENTER) @ self.direction / self.sigma
        levels = torch.from_numpy(np.concatenate([[0.0], np.cumsum(self.cuts)]))
        scores = t[:, None] * torch.arange(len(levels)) - levels
        if self.invalid:
            beyond = t > float(self.cuts[-1])
            if self.invalid == "nan":
                scores[beyond] = torch.nan
            else:
                scores[beyond, 0] = torch.nan if self.invalid.startswith("nan") else torch.inf
        return torch.as_tensor(scores)

    def probabilities(self, t: float | npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """`P[f = c]` at inputs of these t, classes last; votes for no class are left out."""
        edges = np.concatenate([[-np.inf], self.cuts, [np.inf]]) - np.asarray(t, dtype=np.float64)[..., None]
        # Differences of the smaller tails: 1 - 1e-17 would be 1.
        upper = edges[..., :-1] > 0
        found = np.where(
            upper,
            self.law.cdf(-edges[..., :-1]) - self.law.cdf(-edges[..., 1:]),
            self.law.cdf(edges[..., 1:]) - self.law.cdf(edges[..., :-1]),
        )
        if self.invalid:
            found[..., -1] = 0.0
        return np.asarray(found, dtype=np.float64)

    def reach(self, radius: float, norm: Norm) -> float:
        """How far t moves over a ball of this radius."""
        dual = torch.linalg.vector_norm(self.direction, ord=_DUAL_ORDER[norm])
        return radius * float(dual) / self.sigma

    def false(self, found: Certificates, norm: Norm) -> Bool[Tensor, "batch"]:
        """Which certificates of the center are wrong: in the claimed ball some class has more of the votes.

        Looked for at the ends of what t can reach and in between, so that a wrong one may be missed where the classes
        are many, but a true one is never accused.
        """
        claims = torch.stack([found.prediction.double(), found.radius], dim=1)
        distinct, places = torch.unique(claims[found.certified], dim=0, return_inverse=True)
        wrong = torch.tensor([self._refuted(int(label), float(radius), norm) for label, radius in distinct])
        result = torch.zeros(len(found), dtype=torch.bool)
        if len(distinct):
            result[found.certified] = wrong[places]
        return result

    def _refuted(self, prediction: int, radius: float, norm: Norm) -> bool:
        chances = self.probabilities(np.linspace(-1.0, 1.0, _PLACES) * self.reach(radius, norm))
        if not 0 <= prediction < chances.shape[-1]:
            return True
        return bool((chances[:, prediction] < chances.max(-1) - _TIE).any())


def tight_direction(norm: Norm, shape: tuple[int, ...], generator: torch.Generator) -> Float[Tensor, "*shape"]:
    """A direction along which a smoothed certificate of a norm is tight: no ball of the claimed radius moves t less.

    Certificates of l1 and linf follow from one in l2; the balls touch along one axis, and along the diagonal.
    """
    if norm is Norm.L2:
        return torch.randn(shape, generator=generator, dtype=torch.float64)
    if norm is Norm.LINF:
        signs = torch.randint(0, 2, shape, generator=generator)
        return signs.double() * 2 - 1
    axis = torch.zeros(math.prod(shape), dtype=torch.float64)
    axis[int(torch.randint(0, len(axis), (), generator=generator))] = 1.0
    return axis.reshape(shape)


class Recorder(nn.Module):
    """A classifier that keeps the inputs it was asked, and what it answered."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier
        self.inputs: list[Tensor] = []
        self.answers: list[Tensor] = []

    def forward(self, x: Float[Tensor, "batch *shape"]) -> Tensor:
        """The classifier's scores."""
        scores: Tensor = self.classifier(x)
        finite = torch.isfinite(scores).all(1)
        self.inputs.append(x.detach().double().flatten(1).cpu().clone())
        self.answers.append(torch.where(finite, scores.argmax(1), -1).cpu())
        return scores

    def noise(self) -> Float64[Tensor, "rows features"]:
        """The noise of all noisy inputs of images at the center, in the order in which they came."""
        rows = torch.cat(self.inputs) - CENTER
        return rows[(rows != 0).any(1)]

    def votes(self) -> Int64[Tensor, "rows"]:
        """The answers to all inputs; -1 where the scores were not finite."""
        return torch.cat(self.answers)
