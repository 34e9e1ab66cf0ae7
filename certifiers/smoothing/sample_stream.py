"""The noisy copies of one image, one after another: what lets a count go on where it stopped."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from certifiers.smoothing.batches import noisy_batches
from certifiers.smoothing.noise import CHUNK, Noise


class SampleStream:
    """A stream of an image in the noise protocol, from its first sample on.

    The protocol draws whole chunks; what a look leaves of one waits here for the next look, so that nothing is drawn
    twice: at most one chunk of memory an image.

    Args:
        image: one input, in [0, 1]; its device and type are those of the samples.
        noise: the protocol.
        row: the image's row in the protocol's key.
        stream: selection or estimation.
    """

    def __init__(self, image: Float[Tensor, "*shape"], noise: Noise, row: int, stream: int) -> None:
        self._image, self._noise, self._row, self._stream = image, noise, row, stream
        self._next_chunk = 0
        self._rest: Tensor = torch.empty((0, *image.shape))

    def take(self, samples: int, batch_size: int = CHUNK) -> Iterator[Float[Tensor, "batch *shape"]]:
        """The next so many noisy copies, in batches; each is gone when the next is asked for.

        Batches end where chunks do: their sizes, which may decide last bits, hang on how many samples were taken before
        and on nothing else.
        """
        waiting = min(samples, len(self._rest))
        yield from self._use(waiting, batch_size)
        whole = (samples - waiting) // CHUNK
        if whole:
            first, self._next_chunk = self._next_chunk, self._next_chunk + whole
            yield from noisy_batches(
                self._image, self._noise, self._row, self._stream, whole * CHUNK, batch_size, first_chunk=first
            )
        if last := samples - waiting - whole * CHUNK:
            self._rest = torch.empty((CHUNK, *self._image.shape), dtype=torch.float32)
            self._noise.fill(self._rest, self._row, self._stream, self._next_chunk)
            self._next_chunk += 1
            yield from self._use(last, batch_size)

    def _use(self, samples: int, batch_size: int) -> Iterator[Tensor]:
        drawn, self._rest = self._rest[:samples], self._rest[samples:]
        if samples:
            # Noise is used once, so it may be overwritten.
            yield from torch.split(self._noise.added(drawn, self._image), batch_size)
