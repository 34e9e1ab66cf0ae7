"""Ensemble-after-smoothing: every member is smoothed, and the surest of the smoothed members answers."""

import functools
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.special import ndtri
from torch import Tensor, nn

from certifiers.certificate import Findings, Guarantee, Norm, ThreatModel, Unsupported, Verdict
from certifiers.certifier import RadiusCertifier
from certifiers.randomness import KeyedRandomness
from certifiers.registry import register
from certifiers.smoothing.confidence import clopper_pearson_lower, clopper_pearson_upper
from certifiers.smoothing.neyman_pearson import Smoothed, Smoothing
from certifiers.smoothing.noise import CHUNK, ESTIMATION, SELECTION, GaussianNoise
from certifiers.smoothing.rehearsal import fewer_samples
from certifiers.smoothing.votes import count_votes
from ensembles.aggregation import MaxMargin
from ensembles.ensemble import Ensemble, members_of
from ensembles.parameters import PositiveFloat, PositiveInt, Probability, execution_field


@dataclass(frozen=True)
class SmoothedMembers:
    """`H(x) = argmax_c max_i P[f_i(x + N(0, sigma^2 I)) = c]`: the answer of the surest smoothed member.

    A vote for no class, where a member returned NaN or infinity, counts against all classes.
    """

    members: tuple[nn.Module, ...]
    sigma: float


@dataclass(frozen=True)
class MemberBounds:
    """What the votes of all members prove of the probabilities `p_i(c)` that member i answers c, together.

    Attributes:
        prediction: y, the class of the most selection votes of any member; of two, that with more votes of all members.
        agrees: whether each member's own selection chose y.
        votes: of each member for y, among the estimation samples.
        rivals: of each member for the class other than y that has the most.
        least: `L_i <= p_i(y)` of a member that agrees; 0 of one that does not.
        most: `U_i >= p_i(c)` for all c != y.
    """

    prediction: int
    agrees: tuple[bool, ...]
    votes: tuple[int, ...]
    rivals: tuple[int, ...]
    least: tuple[float, ...]
    most: tuple[float, ...]


@register("smoothing-eas")
@dataclass(frozen=True, kw_only=True)
class EnsembleAfterSmoothing(RadiusCertifier):
    """Ensemble-after-smoothing, EAS (Yang et al., ICLR 2022, definition 6 and theorem 5).

    The certified function answers with the smoothed member of the largest probability. Its radius in l2 is

        r = (max_i r_i + min_i r_i) / 2,    r_i = sigma Phi^-1(p_i(y)) of a member that answers y,
                                            r_i = -sigma Phi^-1(max_{c != y} p_i(c)) of one that does not,

    since `sigma Phi^-1(p_i(c))` moves by no more than the input does, for every member and class (Salman et al.,
    NeurIPS 2019, Lemma 2). From samples: `n0` choose y and say which members answer it; each member then spends
    alpha / N on its `n` fresh ones: on a lower bound L_i of p_i(y), which bounds the other classes by 1 - L_i, too, or,
    if it does not agree, on upper bounds of the C - 1 other classes, alpha / (N (C - 1)) each. All bounds of all N
    members hold together except with probability alpha. l1 and linf follow as in `smoothing`.

    The members' own outputs play no part, so that it is asked for with the aggregation `max-margin`, of which it is the
    smoothed counterpart; a single member, or a classifier that is no ensemble, is smoothed as by `smoothing`.

    Attributes:
        sigma: standard deviation of the noise, in input units; noisy inputs are not clipped. All members see the same.
        n0: samples that choose the class.
        n: samples that estimate the members' probabilities.
        alpha: failure probability of each image, shared by the members.
        batch_size: inputs a forward pass. It does not change the noise.
        compile_members: compile networks first, by `torch.compile`.
    """

    version: ClassVar[int] = 2
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L1, Norm.L2, Norm.LINF})
    guarantee: ClassVar[Guarantee] = Guarantee.PROBABILISTIC
    example: ClassVar[Mapping[str, Any]] = MappingProxyType({"sigma": 0.25, "n": 1_000})

    sigma: PositiveFloat
    n0: PositiveInt = 100
    n: PositiveInt = 100_000
    alpha: Probability = 0.001
    batch_size: PositiveInt = execution_field(CHUNK)
    compile_members: bool = execution_field(False)

    def target(self, classifier: nn.Module) -> Smoothed | SmoothedMembers:
        """The surest of the smoothed members; of one member, the smoothed classifier."""
        members = members_of(classifier)
        return Smoothed(classifier, self.sigma) if len(members) == 1 else SmoothedMembers(tuple(members), self.sigma)

    def largest_radius(self, threat: ThreatModel, dimensions: int) -> float:
        """That of `smoothing`: of a single member, which has all of alpha."""
        alone = Smoothing(sigma=self.sigma, n0=self.n0, n=self.n, alpha=self.alpha)
        return alone.largest_radius(threat, dimensions)

    def poll(self) -> Hashable:
        """That of `smoothing`, which counts votes under the same noise; see `VoteCounting`."""
        noise = GaussianNoise(self.sigma, KeyedRandomness(0, ()))
        return noise, self.n0, self.n, self.batch_size, self.compile_members

    def voters(self, classifier: nn.Module) -> list[nn.Module]:
        """The members; none of an ensemble that is refused."""
        return [] if _refusal(classifier) else _counted(classifier)

    def rehearsal(self) -> "tuple[EnsembleAfterSmoothing, float]":
        """A few chunks of samples; time grows with their number."""
        return fewer_samples(self)

    def radii(
        self, classifier: nn.Module, x: Float[Tensor, "batch *shape"], threat: ThreatModel, rng: KeyedRandomness
    ) -> Findings:
        """The radii of one classifier."""
        (found,) = self.radii_together([classifier], x, threat, rng)
        if isinstance(found, tuple):
            raise Unsupported(found[1])
        return found

    def radii_together(
        self, classifiers: Sequence[nn.Module], x: Tensor, threat: ThreatModel, rng: KeyedRandomness
    ) -> list[Findings | tuple[Verdict, str]]:
        """The radii of several classifiers, from the votes of one pass; members that they share run once."""
        refusals = [_refusal(classifier) for classifier in classifiers]
        groups = [self.voters(classifier) for classifier in classifiers]
        members = list(dict.fromkeys(member for group in groups for member in group))
        noise, votes = GaussianNoise(self.sigma, rng), []
        count = functools.partial(count_votes, compile_members=self.compile_members)
        for row, image in enumerate(x) if members else ():
            selection = count(members, image, noise, row, SELECTION, self.n0, self.batch_size)
            estimation = count(members, image, noise, row, ESTIMATION, self.n, self.batch_size)
            votes.append(dict(zip(members, zip(selection, estimation, strict=True), strict=True)))
        return [
            (Verdict.UNSUPPORTED, why)
            if why
            else self._findings([[own[member] for member in group] for own in votes], x, threat.norm, rng.seed)
            for group, why in zip(groups, refusals, strict=True)
        ]

    def bounds(
        self,
        selection: Int64[Tensor, "member classes_and_invalid"],
        estimation: Int64[Tensor, "member classes_and_invalid"],
    ) -> MemberBounds:
        """Bounds that hold together except with probability alpha; see the class."""
        chosen, counted = selection[:, :-1], estimation[:, :-1]
        members, classes = counted.shape
        # Ties go to the class with more votes of all members, then to the lowest: not to the order of the members.
        y = int((chosen.amax(0) * (int(chosen.sum()) + 1) + chosen.sum(0)).argmax())
        others = counted.clone()
        others[:, y] = -1
        votes, rivals, agrees = counted[:, y].tolist(), others.amax(1).tolist(), (chosen.argmax(1) == y).tolist()
        # Divided and rounded down: the shares must not add up to more than alpha.
        share = self.alpha / members * (1 - 2**-50)
        least = [
            clopper_pearson_lower(own, self.n, share) if same else 0.0 for own, same in zip(votes, agrees, strict=True)
        ]
        most = [
            float(np.nextafter(1.0 - low, 2.0)) if same else clopper_pearson_upper(rival, self.n, share / (classes - 1))
            for low, rival, same in zip(least, rivals, agrees, strict=True)
        ]
        return MemberBounds(y, tuple(agrees), tuple(votes), tuple(rivals), tuple(least), tuple(most))

    def certificate_of_bounds(self, bounds: MemberBounds) -> tuple[float, float, float]:
        """`(r, max_i r_i, min_i r_i)` in l2, r rounded down; r = 0 abstains."""
        top, low = float(ndtri(max(bounds.least))), -float(ndtri(min(1.0, max(bounds.most))))
        # The noise is drawn with sigma in float32, which may lie below the sigma that was asked for.
        sigma = min(self.sigma, float(np.float32(self.sigma)))
        if not (math.isfinite(top) and math.isfinite(low)):
            return 0.0, sigma * top, sigma * low
        # `ndtri` errs by 2 units; of opposite signs, what is left of the sum may be no more than their errors.
        total = top + low - (abs(top) + abs(low)) * 2**-50
        return max(0.0, sigma / 2 * total * (1 - 2**-50)), sigma * top, sigma * low

    def _findings(self, votes: Sequence[Sequence[tuple[Tensor, Tensor]]], x: Tensor, norm: Norm, seed: int) -> Findings:
        scale = 1 / math.sqrt(x[0].numel()) if norm is Norm.LINF else 1.0
        members, count = len(votes[0]), len(votes)
        rows: list[dict[str, Any]] = []
        for own in votes:
            selection, estimation = (torch.stack([pair[part] for pair in own]) for part in (0, 1))
            bounds = self.bounds(selection, estimation)
            radius, largest, smallest = self.certificate_of_bounds(bounds)
            surest = int(np.argmax(bounds.least))
            invalid = int(selection[:, -1].sum() + estimation[:, -1].sum())
            if invalid:
                verdict = Verdict.ERROR
                reason = f"members returned NaN or infinity on {invalid} of {(self.n0 + self.n) * members} noisy inputs"
            elif radius <= 0:
                verdict = Verdict.ABSTAINED
                reason = f"no class is proved to win: the members' radii go from {smallest:.4f} to {largest:.4f}"
            else:
                verdict, reason = Verdict.CERTIFIED, ""
            rows.append(
                {
                    "radius": radius * scale,
                    "prediction": bounds.prediction if verdict is Verdict.CERTIFIED else -1,
                    "verdict": int(verdict),
                    "reason": reason,
                    "n0_top": int(selection[surest, bounds.prediction]),
                    "n_A": bounds.votes[surest],
                    "invalid": invalid,
                    "p_A": bounds.least[surest],
                    "agreeing": sum(bounds.agrees),
                    "agrees": "".join("01"[same] for same in bounds.agrees),
                    "votes": " ".join(map(str, bounds.votes)),
                    "rivals": " ".join(map(str, bounds.rivals)),
                    "classes": estimation.shape[1] - 1,
                }
            )

        def numbers(name: str, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.tensor([row[name] for row in rows], dtype=dtype)

        evidence: dict[str, Tensor | Sequence[str]] = {
            "n0": torch.full((count,), self.n0),
            "n": torch.full((count,), self.n),
            "members": torch.full((count,), members),
            "p_A": numbers("p_A", torch.float64),
            "alpha": torch.full((count,), self.alpha, dtype=torch.float64),
            "sigma": torch.full((count,), self.sigma, dtype=torch.float64),
            "seed": torch.full((count,), seed),
            "dtype": [str(x.dtype).removeprefix("torch.")] * count,
        }
        evidence |= {name: numbers(name) for name in ("n0_top", "n_A", "invalid", "agreeing", "classes")}
        evidence |= {name: [row[name] for row in rows] for name in ("agrees", "votes", "rivals")}
        return Findings(
            radius=numbers("radius", torch.float64),
            prediction=numbers("prediction"),
            verdict=numbers("verdict"),
            failure_probability=self.alpha,
            reason=[row["reason"] for row in rows],
            forward_passes=(self.n0 + self.n) * members,
            evidence=evidence,
        )


def _counted(classifier: nn.Module) -> list[nn.Module]:
    """What is smoothed: the members, or the classifier itself if it has but one."""
    members = members_of(classifier)
    return members if len(members) > 1 else [classifier]


def _refusal(classifier: nn.Module) -> str:
    """Why an ensemble is not certified under its aggregation; empty where it is."""
    if len(members_of(classifier)) == 1 or not isinstance(classifier, Ensemble):
        return ""
    if type(classifier.aggregation) is MaxMargin:
        return ""
    return (
        "smoothing-eas answers with its surest smoothed member, whatever the aggregation, so that "
        f"{classifier.aggregation.name!r} would say nothing; use the aggregation max-margin with it, or smoothing, "
        "which smooths an ensemble of any aggregation."
    )
