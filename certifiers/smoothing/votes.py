"""Counting votes: how often each class wins under noise. The hot path of smoothing."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from certifiers.sanitize import checked_scores
from certifiers.smoothing.noise import CHUNK, Noise, chunks_for
from ensembles.ensemble import members_of, shared_scores
from ensembles.fused import fused


def count_votes(
    classifiers: Sequence[nn.Module],
    image: Float[Tensor, "*shape"],
    noise: Noise,
    row: int,
    stream: int,
    samples: int,
    batch_size: int = CHUNK,
) -> list[Int64[Tensor, "classes_and_invalid"]]:
    """The votes of several classifiers on the same noisy copies of one image.

    A sample votes for the class of the largest score, the lowest such class on ties. A sample whose scores
    are not all finite votes for nobody: it is counted in the last entry, so that every classifier's votes
    sum to `samples`.

    Args:
        classifiers: ensembles that share members share their forward passes; members of one architecture are
            evaluated as one network (`ensembles.fused`) where that is faster, which may change last bits of scores.
        image: one input, in [0, 1]; noisy copies are not clipped.
        noise: the protocol.
        row: the image's row in the protocol's key.
        stream: selection or estimation.
        samples: how many noisy copies.
        batch_size: inputs a forward pass. It cannot change the noise; the arithmetic is the same for the
            default, whatever the number of samples, but for the last batch.

    Raises:
        ValueError: a classifier does not return scores [batch, classes] for at least two classes.
    """
    together = max(1, batch_size // CHUNK)
    buffer = torch.empty((together * CHUNK, *image.shape), dtype=torch.float32)
    counts: list[Tensor] | None = None
    members = list(dict.fromkeys(member for classifier in classifiers for member in members_of(classifier)))
    evaluate = fused(members)
    for first_chunk in range(0, chunks_for(samples), together):
        noise.fill(buffer[: min(together, chunks_for(samples) - first_chunk) * CHUNK], row, stream, first_chunk)
        wanted = buffer[: min(len(buffer), samples - first_chunk * CHUNK)]
        noisy = noise.added(wanted, image)
        for batch in torch.split(noisy, batch_size):
            known = dict(zip(members, evaluate(batch), strict=True)) if evaluate else None
            votes = [_votes(checked_scores(scores, len(batch))) for scores in shared_scores(classifiers, batch, known)]
            counts = votes if counts is None else [total.add_(more) for total, more in zip(counts, votes, strict=True)]
    assert counts is not None, "at least one sample"  # noqa: S101
    return [total.cpu() for total in counts]


def _votes(scores: Float[Tensor, "batch classes"]) -> Int64[Tensor, "classes_and_invalid"]:
    classes = scores.shape[1]
    winners = scores.argmax(1)
    invalid = ~torch.isfinite(scores).all(1)
    return torch.bincount(winners.masked_fill_(invalid, classes), minlength=classes + 1)
