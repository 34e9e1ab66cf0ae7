"""The noise protocol from a later sample on: what lets a run go on where an earlier count stopped."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from certifiers.smoothing.noise import CHUNK, GaussianNoise


@dataclass(frozen=True)
class LaterNoise(GaussianNoise):
    """The noise of `GaussianNoise` without its first `skip` samples; sample s is its sample `skip + s`.

    Chunks are drawn whole, so where `skip` is not a multiple of CHUNK, part of one is drawn again.
    """

    skip: int = 0

    def fill(self, buffer: Float[Tensor, "samples *shape"], row: int, stream: int, first_chunk: int) -> None:
        """Draw consecutive samples in place; the buffer's length is a multiple of CHUNK, its type float32."""
        skipped, offset = divmod(self.skip, CHUNK)
        if not offset:
            super().fill(buffer, row, stream, skipped + first_chunk)
            return
        drawn = torch.empty((len(buffer) + CHUNK, *buffer.shape[1:]), dtype=buffer.dtype)
        super().fill(drawn, row, stream, skipped + first_chunk)
        buffer.copy_(drawn[offset : offset + len(buffer)])
