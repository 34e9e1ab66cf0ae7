"""Randomized smoothing with the Neyman-Pearson certificate."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, NoReturn

import torch
from jaxtyping import Float
from torch import Tensor, nn

from certifiers.certificate import Findings, Guarantee, Norm, ThreatModel, Unsupported, Verdict
from certifiers.certifier import RadiusCertifier
from certifiers.randomness import KeyedRandomness
from certifiers.registry import register
from certifiers.smoothing.confidence import clopper_pearson_lower
from certifiers.smoothing.gaussian_radius import gaussian_radius
from certifiers.smoothing.noise import CHUNK, ESTIMATION, SELECTION, GaussianNoise
from certifiers.smoothing.votes import count_votes
from ensembles.ensemble import members_of
from ensembles.parameters import PositiveFloat, PositiveInt, Probability, execution_field


@dataclass(frozen=True)
class Smoothed:
    """`g(x) = argmax_c P[f(x + N(0, sigma^2 I)) = c]`: the smoothed version of a classifier `f`.

    A vote for no class, where `f` returned NaN or infinity, counts against all classes.
    """

    classifier: nn.Module
    sigma: float


@register("smoothing")
@dataclass(frozen=True, kw_only=True)
class Smoothing(RadiusCertifier):
    """Randomized smoothing, certified by the Neyman-Pearson lemma (Cohen et al., ICML 2019, Thm 1 and CERTIFY).

    `n0` samples choose the class A; `n` *fresh* samples count its votes `n_A`; with the one-sided
    Clopper-Pearson bound `p_A` at `alpha`, the smoothed classifier answers A within

        radius = sigma * Phi^-1(p_A)   in l2, if p_A > 1/2; else it abstains.

    In d dimensions the l2 ball of that radius holds the l1 ball of the same radius and the linf ball of
    radius / sqrt(d), which are certified so. Each image's certificate is wrong with probability at most alpha.

    Attributes:
        sigma: standard deviation of the noise, in input units; noisy inputs are not clipped.
        n0: samples that choose the class.
        n: samples that estimate its probability; it caps the radius at `sigma * Phi^-1(alpha^(1/n))`.
        alpha: failure probability of each image.
        batch_size: inputs a forward pass. It does not change the noise.
    """

    version: ClassVar[int] = 1
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L1, Norm.L2, Norm.LINF})
    guarantee: ClassVar[Guarantee] = Guarantee.PROBABILISTIC
    example: ClassVar[Mapping[str, Any]] = MappingProxyType({"sigma": 0.25, "n": 1_000})

    sigma: PositiveFloat
    n0: PositiveInt = 100
    n: PositiveInt = 100_000
    alpha: Probability = 0.001
    batch_size: PositiveInt = execution_field(CHUNK)

    def target(self, classifier: nn.Module) -> Smoothed:
        """The smoothed classifier."""
        return Smoothed(classifier, self.sigma)

    def radii(
        self,
        classifier: nn.Module,
        x: Float[Tensor, "batch *shape"],
        threat: ThreatModel,
        rng: KeyedRandomness,
    ) -> Findings:
        """The radii of one classifier."""
        return self._count_and_certify([classifier], x, threat, rng)[0]

    def radii_together(
        self, classifiers: Sequence[nn.Module], x: Tensor, threat: ThreatModel, rng: KeyedRandomness
    ) -> list[Findings | tuple[Verdict, str]]:
        """The radii of several classifiers, from the votes of one pass over the same noise."""
        return [*self._count_and_certify(classifiers, x, threat, rng)]

    def _count_and_certify(
        self, classifiers: Sequence[nn.Module], x: Tensor, threat: ThreatModel, rng: KeyedRandomness
    ) -> list[Findings]:
        noise = GaussianNoise(self.sigma, rng)
        votes: list[list[tuple[Tensor, Tensor]]] = [[] for _ in classifiers]
        for row, image in enumerate(x):
            selection = count_votes(classifiers, image, noise, row, SELECTION, self.n0, self.batch_size)
            estimation = count_votes(classifiers, image, noise, row, ESTIMATION, self.n, self.batch_size)
            for mine, pair in zip(votes, zip(selection, estimation, strict=True), strict=True):
                mine.append(pair)
        return [
            self._findings(mine, x, threat.norm, rng.seed, len(members_of(classifier)))
            for mine, classifier in zip(votes, classifiers, strict=True)
        ]

    def certificate_of_counts(self, n_a: int) -> tuple[float, float]:
        """`(p_A, radius)` in l2 from the votes for A among the `n` estimation samples, rounded down; 0 abstains."""
        p_a = clopper_pearson_lower(n_a, self.n, self.alpha)
        return p_a, gaussian_radius(p_a, self.sigma)

    def extended(self, n: int) -> NoReturn:
        """Refused: the bound holds at one n, fixed beforehand.

        Raises:
            Unsupported: always; names the certifier whose runs can be extended.
        """
        raise Unsupported(
            f"a run of smoothing with n = {self.n} cannot be extended to {n}: its bound holds at one number of samples "
            "that was fixed before looking. Use smoothing-adaptive, whose bounds hold at every look, or run again "
            "with another seed and forget the first result."
        )

    def _findings(
        self, votes: Sequence[tuple[Tensor, Tensor]], x: Tensor, norm: Norm, seed: int, members: int
    ) -> Findings:
        scale = 1 / math.sqrt(x[0].numel()) if norm is Norm.LINF else 1.0
        predictions, radii, verdicts, reasons, top0, n_as, p_as, invalids = [], [], [], [], [], [], [], []
        for selection, estimation in votes:
            top = int(selection[:-1].argmax())
            n_a, invalid = int(estimation[top]), int(selection[-1] + estimation[-1])
            p_a, radius = self.certificate_of_counts(n_a)
            if invalid:
                verdict = Verdict.ERROR
                reason = f"the classifier returned NaN or infinity on {invalid} of {self.n0 + self.n} noisy inputs"
            elif radius <= 0:
                verdict, reason = Verdict.ABSTAINED, f"no class is proved to win: p_A = {p_a:.4f}"
            else:
                verdict, reason = Verdict.CERTIFIED, ""
            predictions.append(top if verdict is Verdict.CERTIFIED else -1)
            radii.append(radius * scale)
            verdicts.append(int(verdict))
            reasons.append(reason)
            top0.append(int(selection[top]))
            n_as.append(n_a)
            p_as.append(p_a)
            invalids.append(invalid)
        count = len(votes)
        return Findings(
            radius=torch.tensor(radii, dtype=torch.float64),
            prediction=torch.tensor(predictions),
            verdict=torch.tensor(verdicts),
            failure_probability=self.alpha,
            reason=reasons,
            forward_passes=(self.n0 + self.n) * members,
            evidence={
                "n0": torch.full((count,), self.n0),
                "n0_top": torch.tensor(top0),
                "n": torch.full((count,), self.n),
                "n_A": torch.tensor(n_as),
                "invalid": torch.tensor(invalids),
                "p_A": torch.tensor(p_as, dtype=torch.float64),
                "alpha": torch.full((count,), self.alpha, dtype=torch.float64),
                "side": ["one-sided"] * count,
                "sigma": torch.full((count,), self.sigma, dtype=torch.float64),
                "seed": torch.full((count,), seed),
                "dtype": [str(x.dtype).removeprefix("torch.")] * count,
            },
        )
