"""Refutation of smoothed claims: an attack on the smoothed classifier, and a test of what it found on fresh noise."""

import math
import sys
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.special import betainc
from torch import Tensor, nn

from certifiers.certificate import ThreatModel
from certifiers.conformance.balls import Ball, distance
from certifiers.conformance.losses import logits_of
from certifiers.conformance.nearest import Effort
from certifiers.conformance.voters import Attackable, noise_of, voters_of
from certifiers.randomness import KeyedRandomness
from certifiers.smoothing.batches import noisy_batches
from certifiers.smoothing.noise import CHUNK, ESTIMATION, SELECTION, Noise
from certifiers.smoothing.votes import count_votes, evaluation_of
from certifiers.undisturbed import undisturbed
from ensembles.ensemble import members_of, stack_logits
from ensembles.seeds import derive_seed

#: A true claim is called false with at most this probability.
LEVEL = 1e-6

#: Noisy copies a step of the attack, and those that choose among its results.
_DRAWS, _CHOOSING = 32, 2000


@dataclass(frozen=True)
class Refutation:
    """What was found against one smoothed claim.

    Attributes:
        point: the input at which the claim was tested, in the ball and in the box.
        distance: of it from the image, measured in float64.
        answer: the class that was held against the prediction.
        votes: on fresh noise, of the prediction and of that class, each by the voter that gives it most.
        p_value: probability of as many votes or more for that class, at most, if the claim is true.
        forward_passes: inputs sent through a member.
    """

    point: Float[Tensor, "*shape"]
    distance: float
    answer: int
    votes: tuple[int, int]
    p_value: float
    forward_passes: int

    @property
    def refuted(self) -> bool:
        """Whether the claim is called false."""
        return self.p_value < LEVEL


def probability_if_true(votes: int, challenger: int) -> float:
    """How likely a challenger has as many votes or more, if the prediction wins: an exact one-sided sign test.

        P(Bin(n_y + n_j, 1/2) >= n_j)

    Each vote is for y, j or another class. Of those for y or j the share of j has probability `p_j / (p_y + p_j)`,
    which is at most 1/2 if the claim `p_y >= p_j` is true, however likely other classes are.

    Args:
        votes: n_y, for the prediction.
        challenger: n_j, for one other class that was chosen before these votes were seen.

    Raises:
        ValueError: a number is negative.
    """
    if votes < 0 or challenger < 0:
        raise ValueError(f"Votes cannot be negative, got {votes} and {challenger}.")
    # Never 0, which only a proof has.
    return max(float(betainc(challenger, votes + 1, 0.5)), sys.float_info.min) if challenger else 1.0


def refute_smoothed(
    target: Attackable,
    image: Float[Tensor, "1 *shape"],
    prediction: int,
    radius: float,
    threat: ThreatModel,
    effort: Effort | None = None,
    *,
    samples: int = 20_000,
    image_id: int = 0,
) -> Refutation:
    """Attack the smoothed classifier inside the ball of a claim, and test the claim at the most promising input.

    Projected gradient ascent of `max_{j != y} log p_j - log p_y`, p the mean softmax over fresh noise at every step
    (expectation over transformations: Salman et al., NeurIPS 2019, Eq. 5). A first stream of noise chooses among the
    inputs found and the image itself, and the class that challenges; the second, of `samples`, tests that one pair. So
    a true claim is refuted with probability below `LEVEL`, whatever the attack did.

    Where several voters are smoothed each by itself, p_c is the largest of their probabilities of c. The challenger is
    then a class c of one voter j, and the claim says that some voter i has `p_i(y) >= p_j(c)`: it is refuted where that
    is refuted of every i, by the sign test on the noise that i and j answer differently, `i says y` against `j says c`
    (an intersection-union test, whose level is that of each).

    Args:
        target: the smoothed classifier.
        image: one, in [0, 1].
        prediction: the class the claim speaks of.
        radius: of its ball.
        threat: the norm.
        effort: steps, restarts and seed; of another seed than the certifier's, or the noise is not fresh.
        samples: noisy copies in the test.
        image_id: keys the noise.

    Raises:
        ValueError: no samples.
    """
    if samples < 1:
        raise ValueError(f"A test needs at least one sample, got {samples}.")
    effort = effort or Effort()
    noise = noise_of(target, KeyedRandomness(derive_seed(effort.seed, "refutation"), (image_id,)))
    voters = voters_of(target)
    members = len({member for voter in voters for member in members_of(voter)})
    with undisturbed(voters):
        points = _ascended(target, voters, image, prediction, radius, threat, effort)
        passes = members * _DRAWS * (effort.steps + 1) * effort.restarts
        best: tuple[int, _Challenger, Tensor] | None = None
        for point in points:
            votes = torch.stack(count_votes(voters, point, noise, 0, SELECTION, _CHOOSING))[:, :-1]
            others = votes.clone()
            others[:, prediction] = -1
            lead = int(others.max() - votes[:, prediction].max())
            if best is None or lead > best[0]:
                best = lead, _Challenger(*divmod(int(others.argmax()), others.shape[1])), point
        assert best is not None, "the image itself is a candidate"  # noqa: S101
        lead, challenger, point = best
        passes += members * _CHOOSING * len(points)
        tally, p_value = (0, 0), 1.0
        if lead > 0:  # behind on the first stream: a test would cost much and show nothing
            tally, p_value = _tested(voters, point, noise, prediction, challenger, samples)
            passes += members * samples
    away = float(distance(image, point[None], threat.norm))
    return Refutation(point, away, challenger.answer, tally, p_value if away <= radius else 1.0, passes)


@dataclass(frozen=True)
class _Challenger:
    """Who is held against the claim: a voter, and its class."""

    voter: int
    answer: int


def _tested(
    voters: list[nn.Module], point: Tensor, noise: Noise, prediction: int, challenger: _Challenger, samples: int
) -> tuple[tuple[int, int], float]:
    """The votes for the prediction and for the challenger on fresh noise, and the largest p-value over the voters."""
    evaluate = evaluation_of(voters)
    claimed, rather, against = (torch.zeros(len(voters), dtype=torch.int64) for _ in range(3))
    theirs = 0
    for batch in noisy_batches(point, noise, 0, ESTIMATION, samples, CHUNK):
        choices = torch.stack([ballots.choices for ballots in evaluate(batch)]).cpu()
        mine, other = choices == prediction, choices[challenger.voter] == challenger.answer
        claimed += mine.sum(1)
        theirs += int(other.sum())
        rather += (mine & ~other).sum(1)
        against += (~mine & other).sum(1)
    p_values = [probability_if_true(*pair) for pair in zip(rather.tolist(), against.tolist(), strict=True)]
    return (int(claimed.max()), theirs), max(p_values)


def _ascended(
    target: Attackable,
    voters: list[nn.Module],
    image: Tensor,
    prediction: int,
    radius: float,
    threat: ThreatModel,
    effort: Effort,
) -> list[Tensor]:
    """The image, and the last point of every ascent that lies in ball and box."""
    rows = effort.restarts
    limit = torch.tensor([radius], dtype=torch.float64, device=image.device)
    ball = Ball(image.expand(rows, *image.shape[1:]), limit.expand(rows), threat.norm)
    generator = torch.Generator().manual_seed(derive_seed(effort.seed, "ascent"))
    draw = torch.randn((rows, *image.shape[1:]), generator=generator, dtype=torch.float64).to(image)
    start = [image] + [Ball(image, limit, threat.norm).start(direction) for direction in draw[1:]]
    point = torch.cat(start)
    for voter in voters:
        for parameter in voter.parameters():
            parameter.requires_grad_(False)
    law = noise_of(target, KeyedRandomness(effort.seed, (0,)))
    for number in range(effort.steps):
        noise = torch.empty((_DRAWS, *image.shape[1:]), dtype=torch.float32)
        law.draw(noise, generator)
        with torch.enable_grad():
            leaf = point.detach().requires_grad_()
            noisy = (leaf[:, None] + noise.to(image)[None]).flatten(0, 1)
            means = [
                logits_of(voter)(stack_logits([member(noisy) for member in members_of(voter)]))
                .log_softmax(-1)
                .reshape(rows, _DRAWS, -1)
                .logsumexp(1)
                - math.log(_DRAWS)
                for voter in voters
            ]
            mean = torch.stack(means).amax(0)
            others = mean.index_fill(1, torch.tensor([prediction], device=mean.device), -torch.inf)
            climbed = (others.amax(1) - mean[:, prediction]).sum()
            gradient = torch.autograd.grad(climbed, leaf, allow_unused=True)[0] if climbed.requires_grad else None
        if gradient is None:
            break
        point = ball.move(point, gradient, 2.0 * (1 - number / effort.steps) if number else 1.0).detach()
    inside, near = ball.inside(point)
    return [image[0], *inside[near]]
