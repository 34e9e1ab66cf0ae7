"""Counting votes: how often each class wins under noise. The hot path of smoothing."""

import functools
from collections.abc import Callable, Iterable, Sequence

from jaxtyping import Float, Int64
from torch import Tensor, nn

from certifiers.smoothing.ballots import Ballots
from certifiers.smoothing.batches import noisy_batches
from certifiers.smoothing.compiling import compiled
from certifiers.smoothing.early_exit import EarlyExit
from certifiers.smoothing.noise import CHUNK, Noise
from certifiers.smoothing.shared_votes import counted_once
from ensembles.ensemble import members_of, shared_scores
from ensembles.fused import fused

#: From a batch to the ballots of each classifier.
Evaluation = Callable[[Tensor], list[Ballots]]


def count_votes(
    classifiers: Sequence[nn.Module],
    image: Float[Tensor, "*shape"],
    noise: Noise,
    row: int,
    stream: int,
    samples: int,
    batch_size: int = CHUNK,
    *,
    compile_members: bool = False,
) -> list[Int64[Tensor, "classes_and_invalid"]]:
    """The votes of several classifiers on the same noisy copies of one image.

    A sample votes for the class of the largest score, the lowest such class on ties. A sample whose scores
    are not all finite votes for nobody: it is counted in the last entry, so that every classifier's votes
    sum to `samples`.

    Votes that `SharedVotes` in use know are not counted again.

    Args:
        classifiers: ensembles that share members share their forward passes; see `evaluation_of`.
        image: one input, in [0, 1]; noisy copies are not clipped.
        noise: the protocol.
        row: the image's row in the protocol's key.
        stream: selection or estimation.
        samples: how many noisy copies.
        batch_size: inputs a forward pass. It cannot change the noise; the arithmetic is the same for the
            default, whatever the number of samples, but for the last batch.
        compile_members: see `evaluation_of`.

    Raises:
        ValueError: a classifier does not return scores [batch, classes] for at least two classes.
    """
    question = noise, row, stream, samples, batch_size, compile_members
    counting = functools.partial(_counted, image, *question)
    return counted_once(classifiers, image, question, counting)


def _counted(
    image: Tensor,
    noise: Noise,
    row: int,
    stream: int,
    samples: int,
    batch_size: int,
    compile_members: bool,
    classifiers: Sequence[nn.Module],
) -> list[Int64[Tensor, "classes_and_invalid"]]:
    evaluate = evaluation_of(classifiers, batch_size if compile_members else None)
    return tally(evaluate, noisy_batches(image, noise, row, stream, samples, batch_size))


def tally(evaluate: Evaluation, batches: Iterable[Tensor]) -> list[Int64[Tensor, "classes_and_invalid"]]:
    """The votes of the classifiers of an evaluation on all these batches; at least one."""
    counts: list[Tensor] | None = None
    for batch in batches:
        votes = [ballots.counted() for ballots in evaluate(batch)]
        counts = votes if counts is None else [total.add_(more) for total, more in zip(counts, votes, strict=True)]
    assert counts is not None, "at least one sample"  # noqa: S101
    return [total.cpu() for total in counts]


def evaluation_of(classifiers: Sequence[nn.Module], compiled_size: int | None = None) -> Evaluation:
    """How these classifiers are evaluated together: each member runs once a batch, at most.

    Members of one architecture run as one network (`ensembles.fused`) where that is faster; otherwise those that can no
    longer change a vote are left out (`EarlyExit`). Either may change last bits of scores. Architectures, widths and
    weights decide which way is taken, by a rule that `bench/perf` holds against the clock. The clock itself has no say:
    a run that is resumed, on another day or beside other work, has to count the same votes.

    With a `compiled_size`, batches of that size go through compiled members where they are not fused, which gains
    nothing over fusing; no member is left out then, and others, of the last samples or of a first look, go as ever.
    """
    members = list(dict.fromkeys(member for classifier in classifiers for member in members_of(classifier)))
    together = fused(members)
    if together is not None:
        network = together
        return lambda x: _ballots(classifiers, x, dict(zip(members, network(x), strict=True)))
    return functools.partial(_one_by_one, classifiers, members, EarlyExit.of(classifiers), compiled_size)


def _one_by_one(
    classifiers: Sequence[nn.Module],
    members: Sequence[nn.Module],
    early: EarlyExit | None,
    compiled_size: int | None,
    x: Tensor,
) -> list[Ballots]:
    if len(x) == compiled_size:
        return _ballots(classifiers, x, {member: compiled(member)(x) for member in members})
    return early.ballots(x)[0] if early is not None else _ballots(classifiers, x, {})


def _ballots(classifiers: Sequence[nn.Module], x: Tensor, known: dict[nn.Module, Tensor]) -> list[Ballots]:
    return [Ballots.of(scores, len(x)) for scores in shared_scores(classifiers, x, known)]
