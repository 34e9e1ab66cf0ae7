"""Smoothing with numbers of samples that are fixed in advance: votes are counted, bounded, and made a radius."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, NoReturn

import torch
from jaxtyping import Float
from torch import Tensor, nn

from certifiers.certificate import Findings, Guarantee, Norm, ThreatModel, Unsupported, Verdict
from certifiers.certifier import RadiusCertifier
from certifiers.randomness import KeyedRandomness
from certifiers.smoothing.confidence import clopper_pearson_lower
from certifiers.smoothing.noise import CHUNK, ESTIMATION, SELECTION, Noise
from certifiers.smoothing.rehearsal import fewer_samples
from certifiers.smoothing.votes import count_votes
from ensembles.ensemble import members_of
from ensembles.parameters import PositiveFloat, PositiveInt, Probability, execution_field


@dataclass(frozen=True, kw_only=True)
class FixedSamples(RadiusCertifier, ABC):
    """`n0` samples choose the class A; `n` fresh ones count its votes `n_A`, and a theorem makes a radius of p_A.

        p_A = the one-sided Clopper-Pearson lower bound for the probability of A, at `alpha`

    Each image's certificate is wrong with probability at most alpha. A classifier that returns NaN or infinity on any
    noisy input is an ERROR. Subclasses name the noise and the theorem.

    Attributes:
        sigma: standard deviation of the noise, in input units; noisy inputs are not clipped.
        n0: samples that choose the class.
        n: samples that estimate its probability; it caps the radius at that of `p_A = alpha^(1/n)`.
        alpha: failure probability of each image.
        batch_size: inputs a forward pass. It does not change the noise.
        compile_members: compile networks first, by `torch.compile`.
    """

    guarantee: ClassVar[Guarantee] = Guarantee.PROBABILISTIC
    example: ClassVar[Any] = MappingProxyType({"sigma": 0.25, "n": 1_000})

    sigma: PositiveFloat
    n0: PositiveInt = 100
    n: PositiveInt = 100_000
    alpha: Probability = 0.001
    batch_size: PositiveInt = execution_field(CHUNK)
    compile_members: bool = execution_field(False)

    @abstractmethod
    def noise(self, rng: KeyedRandomness) -> Noise:
        """The noise that is added."""

    @abstractmethod
    def radius_of(self, p_a: float) -> float:
        """The radius that follows from the class's probability being at least `p_a > 1/2`, rounded down."""

    def scale(self, norm: Norm, dimensions: int) -> float:
        """The radius in a norm, over that of `radius_of`."""
        return 1.0

    def lost(self, dimensions: int) -> float:
        """By how much a probability under the noise of the theorem may be below that under the noise drawn."""
        return 0.0

    def images(self, x: Float[Tensor, "batch *shape"]) -> tuple[Tensor, list[str]]:
        """The images to which noise is added, and why one is unsupported; empty where it is not."""
        return x, [""] * len(x)

    def offsets(self, x: Float[Tensor, "batch *shape"], norm: Norm) -> Float[Tensor, "batch"]:
        """By how much the images that were counted differ from x, which the radius loses."""
        return torch.zeros(len(x))

    def more_evidence(self) -> dict[str, float | int | str]:
        """Further columns of the evidence, the same for all images."""
        return {}

    def certificate_of_counts(self, n_a: int) -> tuple[float, float]:
        """`(p_A, radius)` from the votes for A among the `n` estimation samples, rounded down; 0 abstains."""
        p_a = clopper_pearson_lower(n_a, self.n, self.alpha)
        return p_a, self.radius_of(p_a) if p_a > 0.5 else 0.0

    def largest_radius(self, threat: ThreatModel, dimensions: int) -> float:
        """The radius if all `n` votes are for one class, at `p_A = alpha^(1/n)`."""
        return self.certificate_of_counts(self.n)[1] * self.scale(threat.norm, dimensions)

    def poll(self) -> Hashable:
        """The noise but for its key, the numbers of samples, and how they are evaluated; see `VoteCounting`."""
        noise = self.noise(KeyedRandomness(0, ()))
        return noise, self.n0, self.n, self.batch_size, self.compile_members

    def voters(self, classifier: nn.Module) -> list[nn.Module]:
        """The classifier itself."""
        return [classifier]

    def rehearsal(self) -> "tuple[FixedSamples, float]":
        """A few chunks of samples; time grows with their number."""
        return fewer_samples(self)

    def extended(self, n: int) -> NoReturn:
        """Refused: the bound holds at one n, fixed beforehand.

        Raises:
            Unsupported: always; names the certifier whose runs can be extended.
        """
        raise Unsupported(
            f"a run of {self.name} with n = {self.n} cannot be extended to {n}: its bound holds at one number of "
            "samples that was fixed before looking. Use smoothing-adaptive, whose bounds hold at every look, or run "
            "again with another seed and forget the first result."
        )

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
        try:
            return [*self._count_and_certify(classifiers, x, threat, rng)]
        except Unsupported as reason:
            return [(Verdict.UNSUPPORTED, str(reason)) for _ in classifiers]

    def _count_and_certify(
        self, classifiers: Sequence[nn.Module], x: Tensor, threat: ThreatModel, rng: KeyedRandomness
    ) -> list[Findings]:
        noise = self.noise(rng)
        count = functools.partial(count_votes, compile_members=self.compile_members)
        images, refusals = self.images(x)
        votes: list[list[tuple[Tensor, Tensor] | str]] = [[] for _ in classifiers]
        for row, image in enumerate(images):
            if refusals[row]:
                for mine in votes:
                    mine.append(refusals[row])
                continue
            selection = count(classifiers, image, noise, row, SELECTION, self.n0, self.batch_size)
            estimation = count(classifiers, image, noise, row, ESTIMATION, self.n, self.batch_size)
            for mine, pair in zip(votes, zip(selection, estimation, strict=True), strict=True):
                mine.append(pair)
        return [
            self._findings(mine, x, threat.norm, rng.seed, len(members_of(classifier)))
            for mine, classifier in zip(votes, classifiers, strict=True)
        ]

    def _findings(
        self, votes: Sequence[tuple[Tensor, Tensor] | str], x: Tensor, norm: Norm, seed: int, members: int
    ) -> Findings:
        dimensions = x[0].numel()
        scale, lost = self.scale(norm, dimensions), self.lost(dimensions)
        offsets = self.offsets(x, norm).tolist()
        predictions, radii, verdicts, reasons, top0, n_as, p_as, invalids = [], [], [], [], [], [], [], []
        for counted, offset in zip(votes, offsets, strict=True):
            top, n_a, invalid, p_a, radius, selected = 0, 0, 0, 0.0, 0.0, 0
            if isinstance(counted, str):
                verdict, reason = Verdict.UNSUPPORTED, counted
            else:
                selection, estimation = counted
                top = int(selection[:-1].argmax())
                selected, n_a, invalid = int(selection[top]), int(estimation[top]), int(selection[-1] + estimation[-1])
                p_a, radius = self.certificate_of_counts(n_a)
                if lost:
                    # One unit for the subtraction.
                    p_a = max(0.0, (p_a - lost) * (1 - 2**-52))
                    radius = self.radius_of(p_a) if p_a > 0.5 else 0.0
                radius = radius * scale
                if offset:
                    radius = (radius - offset) * (1 - 2**-52)
                if invalid:
                    verdict = Verdict.ERROR
                    reason = f"the classifier returned NaN or infinity on {invalid} of {self.n0 + self.n} noisy inputs"
                elif radius <= 0:
                    verdict, reason = Verdict.ABSTAINED, f"no class is proved to win: p_A = {p_a:.4f}"
                else:
                    verdict, reason = Verdict.CERTIFIED, ""
            predictions.append(top if verdict is Verdict.CERTIFIED else -1)
            radii.append(radius)
            verdicts.append(int(verdict))
            reasons.append(reason)
            top0.append(selected)
            n_as.append(n_a)
            p_as.append(p_a)
            invalids.append(invalid)
        count = len(votes)
        answered = torch.tensor([not isinstance(counted, str) for counted in votes])
        evidence: dict[str, Tensor | Sequence[str]] = {
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
        }
        return Findings(
            radius=torch.tensor(radii, dtype=torch.float64),
            prediction=torch.tensor(predictions),
            verdict=torch.tensor(verdicts),
            failure_probability=self.alpha,
            reason=reasons,
            forward_passes=answered.long() * (self.n0 + self.n) * members,
            evidence=evidence | {name: _column(value, count) for name, value in self.more_evidence().items()},
        )


def _column(value: float | int | str, count: int) -> Tensor | Sequence[str]:
    if isinstance(value, str):
        return [value] * count
    return torch.full((count,), value, dtype=torch.float64 if isinstance(value, float) else torch.int64)
