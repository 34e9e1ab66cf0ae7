"""Smoothing in looks: samples until they suffice, image by image. The loop that its methods share."""

import functools
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from certifiers.certificate import Findings, Guarantee, Norm, ThreatModel, Verdict
from certifiers.certifier import Certifier, RadiusCertifier
from certifiers.randomness import KeyedRandomness
from certifiers.smoothing.gaussian_radius import gaussian_radius
from certifiers.smoothing.neyman_pearson import Smoothed, Smoothing
from certifiers.smoothing.noise import CHUNK, ESTIMATION, SELECTION, GaussianNoise
from certifiers.smoothing.rehearsal import fewer_samples
from certifiers.smoothing.sample_stream import SampleStream
from certifiers.smoothing.stopping import Rule, Stop, stop_rule
from certifiers.smoothing.votes import evaluation_of, tally
from ensembles.ensemble import members_of
from ensembles.parameters import NonNegativeFloat, PositiveFloat, PositiveInt, Probability, execution_field


@dataclass(frozen=True)
class Bound:
    """A lower bound on p_A, and the count it is from: `votes` for A among `samples`."""

    p_a: float = 0.0
    votes: int = 0
    samples: int = 0


@dataclass
class Votes:
    """What is known of one image and one classifier: the votes at its looks so far.

    Attributes:
        selection: votes of the n0 samples that chose the class.
        looks: total samples and votes for the class at each look, cumulatively.
    """

    selection: Tensor
    looks: list[tuple[int, int]] = field(default_factory=list)
    invalid: int = 0
    best: Bound = Bound()
    stopped: Stop | None = None

    @property
    def top(self) -> int:
        """The class A."""
        return int(self.selection[:-1].argmax())

    @property
    def samples(self) -> int:
        """Estimation samples drawn."""
        return self.looks[-1][0] if self.looks else 0


@dataclass(frozen=True, kw_only=True)
class LookingSmoothing(RadiusCertifier):
    """Smoothing that looks at its counts and stops: what the bounds of its subclasses are made for.

    An image stops at the first look where every radius asked for is decided: certified, or out of reach even if the
    samples to come turn out as good as they may, but for a chance of `futility`. With `stop = "tolerance"`, and where
    no radii are asked for, it stops where what is within reach lies at most `tolerance` sigmas above the certified
    radius. Both rules only lose radius: alpha does not depend on them (`stopping`).

    n0 samples of a stream of their own choose the class. The samples that estimate are the first ones of those that
    `smoothing` meets under the same seed, each drawn and counted when it is needed and not before: a look ends a
    batch, so none is wasted, and images come one after another, so that one that stops makes room for the next.

    Attributes:
        sigma: standard deviation of the noise, in input units; noisy inputs are not clipped.
        n0: samples that choose the class.
        n: estimation samples that are planned for an image.
        alpha: failure probability of each image, at whatever look it stops.
        stop: "grid": when the radii asked for are decided. "tolerance": by the tolerance, whatever was asked for.
        tolerance: in multiples of sigma, in l2.
        futility: the chance at which a radius counts as out of reach; not a probability of error.
        batch_size: inputs a forward pass. It does not change the noise.
        compile_members: compile networks first, by `torch.compile`.
    """

    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L1, Norm.L2, Norm.LINF})
    guarantee: ClassVar[Guarantee] = Guarantee.PROBABILISTIC
    uses_radii: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = MappingProxyType({"sigma": 0.25, "n": 1_000})

    sigma: PositiveFloat
    n0: PositiveInt = 100
    n: PositiveInt = 100_000
    alpha: Probability = 0.001
    stop: Literal["grid", "tolerance"] = "grid"
    tolerance: NonNegativeFloat = 0.05
    futility: Probability = 0.01
    batch_size: PositiveInt = execution_field(CHUNK)
    compile_members: bool = execution_field(False)

    @abstractmethod
    def look_times(self) -> tuple[int, ...]:
        """The total samples of all looks, ascending."""

    @abstractmethod
    def lower_bound(self, looks: Sequence[tuple[int, int]]) -> Bound:
        """The bound of the last of these looks; the largest of all looks so far holds."""

    @abstractmethod
    def reachable(self, looks: Sequence[tuple[int, int]]) -> float:
        """The p_A that looks to come may prove, but for a chance of `futility`."""

    @abstractmethod
    def spent(self, samples: int) -> float:
        """How much of alpha the looks up to this number of samples have."""

    @property
    @abstractmethod
    def form(self) -> str:
        """What the evidence calls its bound."""

    def target(self, classifier: nn.Module) -> Smoothed:
        """The smoothed classifier."""
        return Smoothed(classifier, self.sigma)

    def largest_radius(self, threat: ThreatModel, dimensions: int) -> float:
        """The radius if all samples are for one class, at the best of the looks."""
        looks = [(time, time) for time in self.look_times()]
        best = max(self.lower_bound(looks[: number + 1]).p_a for number in range(len(looks)))
        scale = 1 / math.sqrt(dimensions) if threat.norm is Norm.LINF else 1.0
        return gaussian_radius(best, self.sigma) * scale

    def rehearsal(self) -> tuple[Certifier, float]:
        """A few chunks at a fixed number; the time of all samples is the most that an image can take."""
        shorter, _ = fewer_samples(Smoothing(sigma=self.sigma, n0=self.n0, n=self.n, batch_size=self.batch_size))
        return shorter, (self.n0 + self.look_times()[-1]) / (shorter.n0 + shorter.n)

    @final
    def radii(
        self, classifier: nn.Module, x: Float[Tensor, "batch *shape"], threat: ThreatModel, rng: KeyedRandomness
    ) -> Findings:
        """The radii of one classifier, by the tolerance."""
        return self._run([classifier], x, threat, None, rng)[0]

    def radii_asked(
        self,
        classifiers: Sequence[nn.Module],
        x: Tensor,
        threat: ThreatModel,
        wanted: Sequence[float] | None,
        rng: KeyedRandomness,
    ) -> list[Findings | tuple[Verdict, str]]:
        """The radii of several classifiers, which share the forward passes of members that both still need."""
        return [*self._run(classifiers, x, threat, wanted, rng)]

    def _run(
        self,
        classifiers: Sequence[nn.Module],
        x: Tensor,
        threat: ThreatModel,
        wanted: Sequence[float] | None,
        rng: KeyedRandomness,
    ) -> list[Findings]:
        scale = 1 / math.sqrt(x[0].numel()) if threat.norm is Norm.LINF else 1.0
        noise = GaussianNoise(self.sigma, rng)
        rule = stop_rule(wanted, self.tolerance * self.sigma * scale, by_tolerance=self.stop == "tolerance")
        times = self.look_times()
        compiled_size = self.batch_size if self.compile_members else None
        # How those still open are evaluated together: looks are many, and most have the same ones open.
        evaluation = functools.cache(
            lambda going: evaluation_of([classifiers[number] for number in going], compiled_size)
        )
        runs: list[list[Votes]] = []
        for row, image in enumerate(x):
            selection, estimation = (SampleStream(image, noise, row, stream) for stream in (SELECTION, ESTIMATION))
            chosen = tally(evaluation(tuple(range(len(classifiers)))), selection.take(self.n0, self.batch_size))
            votes = [Votes(own, invalid=int(own[-1])) for own in chosen]
            for before, time in zip((0, *times), times, strict=False):
                going = tuple(number for number, own in enumerate(votes) if own.stopped is None)
                if not going:
                    break
                counts = tally(evaluation(going), estimation.take(time - before, self.batch_size))
                for number, count in zip(going, counts, strict=True):
                    self._look(votes[number], time, count)
                    self._judge(votes[number], scale, rule, last=time == times[-1])
            runs.append(votes)
        return [
            self._findings([votes[number] for votes in runs], x, scale, rng.seed, len(members_of(classifier)))
            for number, classifier in enumerate(classifiers)
        ]

    def _look(self, votes: Votes, time: int, count: Tensor) -> None:
        so_far = votes.looks[-1][1] if votes.looks else 0
        votes.looks.append((time, so_far + int(count[votes.top])))
        votes.invalid += int(count[-1])
        votes.best = max(self.lower_bound(votes.looks), votes.best, key=lambda bound: bound.p_a)

    def _judge(self, votes: Votes, scale: float, rule: Rule, *, last: bool) -> None:
        if votes.invalid:
            votes.stopped = Stop.INVALID
        elif last:
            votes.stopped = Stop.CEILING
        else:
            reachable = max(votes.best.p_a, self.reachable(votes.looks))
            votes.stopped = rule(
                gaussian_radius(votes.best.p_a, self.sigma) * scale, gaussian_radius(reachable, self.sigma) * scale
            )

    def _findings(self, runs: Sequence[Votes], x: Tensor, scale: float, seed: int, members: int) -> Findings:
        count = len(runs)
        radii = [gaussian_radius(own.best.p_a, self.sigma) * scale for own in runs]
        answers = [self._answer(own, radius) for own, radius in zip(runs, radii, strict=True)]
        certified = [verdict is Verdict.CERTIFIED for verdict, _ in answers]
        samples = torch.tensor([own.samples for own in runs])
        return Findings(
            radius=torch.tensor(radii, dtype=torch.float64),
            prediction=torch.tensor([own.top if sure else -1 for own, sure in zip(runs, certified, strict=True)]),
            verdict=torch.tensor([int(verdict) for verdict, _ in answers]),
            failure_probability=self.alpha,
            reason=[reason for _, reason in answers],
            forward_passes=(self.n0 + samples) * members,
            evidence={
                "n0": torch.full((count,), self.n0),
                "n0_top": torch.tensor([int(own.selection[own.top]) for own in runs]),
                "n": torch.tensor([own.best.samples for own in runs]),
                "n_A": torch.tensor([own.best.votes for own in runs]),
                "samples": samples,
                "looks": [" ".join(f"{time}:{hits}" for time, hits in own.looks) for own in runs],
                "stopped": [str(own.stopped) for own in runs],
                "invalid": torch.tensor([own.invalid for own in runs]),
                "p_A": torch.tensor([own.best.p_a for own in runs], dtype=torch.float64),
                "bound": [self.form] * count,
                "alpha": torch.full((count,), self.alpha, dtype=torch.float64),
                "alpha_spent": torch.tensor([self.spent(own.samples) for own in runs], dtype=torch.float64),
                "side": ["one-sided"] * count,
                "sigma": torch.full((count,), self.sigma, dtype=torch.float64),
                "seed": torch.full((count,), seed),
                "dtype": [str(x.dtype).removeprefix("torch.")] * count,
            },
        )

    def _answer(self, own: Votes, radius: float) -> tuple[Verdict, str]:
        if own.invalid:
            drawn = self.n0 + own.samples
            return Verdict.ERROR, f"the classifier returned NaN or infinity on {own.invalid} of {drawn} noisy inputs"
        if radius <= 0:
            return Verdict.ABSTAINED, f"no class is proved to win: p_A = {own.best.p_a:.4f}"
        return Verdict.CERTIFIED, ""
