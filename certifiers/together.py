"""Several certifiers on the same images, which measure once what they both need."""

import dataclasses
from collections.abc import Hashable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from certifiers.certificate import Certificates, ThreatModel
from certifiers.certifier import Certifier
from certifiers.smoothing.shared_votes import SharedVotes, VoteCounting
from certifiers.undisturbed import undisturbed


def shared_measurement(certifier: Certifier) -> Hashable | None:
    """Certifiers for which this is equal gain by `certify_jointly`; None: what this one measures serves no other."""
    return certifier.poll() if isinstance(certifier, VoteCounting) else None


def certify_jointly(
    questions: Sequence[tuple[Certifier, nn.Module]],
    inputs: Tensor,
    threat: ThreatModel,
    radii: Sequence[float | int] | None = None,
    seed: int = 0,
    image_ids: Sequence[int] | None = None,
) -> list[Certificates]:
    """`Certifier.certify` of several certifiers, each with a classifier, in one pass where they can share one.

    Smoothed classifiers and smoothed members of one ensemble, say, are certified from the votes of one pass. Every
    answer equals that of `certify` alone, but for the measured seconds, which all answers share equally, and for last
    bits of networks that are not fused (see `evaluation_of`), of which a tie may hang.

    Args:
        questions: certifiers, each with the classifier that it is asked about.
        inputs: images in [0, 1], as of `Certifier.certify`.
        threat: the norm.
        radii: the radii that matter, ascending.
        seed: base of all randomness.
        image_ids: the images' identities, which key the randomness.

    Returns:
        The answer to each question.

    Raises:
        ValueError: inputs, radii or image ids are malformed.
        Exception: whatever an author's method raises, as of `Certifier.certify`.
    """
    # By class and what they are written as: certifiers of equal parameters need not be one object, and two classes may
    # have one name.
    alike: dict[tuple[type[Certifier], str], list[int]] = {}
    for number, (certifier, _) in enumerate(questions):
        alike.setdefault((type(certifier), repr(certifier)), []).append(number)
    votes = _votes_wanted(questions)
    answers: dict[int, Certificates] = {}
    # Who votes for one question may belong to another: all of them in eval mode, and known not to have changed.
    with undisturbed([classifier for _, classifier in questions]):
        for numbers in alike.values():
            certifier = questions[numbers[0]][0]
            classifiers = [questions[number][1] for number in numbers]
            with votes[certifier.poll()].in_use() if isinstance(certifier, VoteCounting) else nullcontext():
                found = certifier.certify_together(classifiers, inputs, threat, radii, seed, image_ids)
            answers |= dict(zip(numbers, found, strict=True))
    return _with_equal_shares([answers[number] for number in range(len(questions))])


def _votes_wanted(questions: Sequence[tuple[Certifier, nn.Module]]) -> dict[Hashable, SharedVotes]:
    """For each poll, what will know the votes of all that are asked for in it."""
    wanted: dict[Hashable, list[nn.Module]] = {}
    for certifier, classifier in questions:
        if isinstance(certifier, VoteCounting):
            wanted.setdefault(certifier.poll(), []).extend(certifier.voters(classifier))
    return {poll: SharedVotes(voters) for poll, voters in wanted.items()}


def _with_equal_shares(answers: list[Certificates]) -> list[Certificates]:
    """With the seconds of all answers shared equally among them: who was asked first counted for the others."""
    if len(answers) < 2:
        return answers
    seconds = torch.stack([each.cost.seconds for each in answers]).mean(0)
    return [dataclasses.replace(each, cost=dataclasses.replace(each.cost, seconds=seconds.clone())) for each in answers]
