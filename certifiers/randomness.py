"""Randomness keyed by the image: the same numbers whatever the batch, the block or the order."""

from dataclasses import dataclass

import torch

from ensembles.seeds import derive_seed

_MASK = 0xFFFFFFFF


@dataclass(frozen=True)
class KeyedRandomness:
    """One generator for each (seed, image id, stream, chunk).

    The generators of one image differ in their seeds for certain, not only with high probability: the 32-bit
    seed (PyTorch's CPU generator reads no more) is a bijection of `hash(seed, image id) + number`, where
    `number` counts the chunks of both streams. So no sample of an image is ever drawn twice, and
    selection and estimation never share one.
    """

    seed: int
    image_ids: tuple[int, ...]

    def generator(self, row: int, stream: int = 0, chunk: int = 0) -> torch.Generator:
        """A CPU generator for chunk `chunk` of stream `stream` (0 or 1) of the image in `row` of the batch.

        The same arguments give a generator of the same numbers: take stream 0 to choose (a class, say), stream 1
        to estimate, and another chunk for each batch.
        """
        if stream not in (0, 1) or not 0 <= chunk < 2**31:
            raise ValueError(f"Streams are 0 or 1 and chunks 0 to 2^31 - 1, got stream {stream}, chunk {chunk}.")
        number = derive_seed(self.seed, "image", self.image_ids[row]) + 2 * chunk + stream
        return torch.Generator().manual_seed(_mix(number & _MASK))


def _mix(word: int) -> int:
    """The 32-bit finaliser of MurmurHash3: a bijection that spreads neighbouring numbers."""
    word = (word ^ word >> 16) * 0x85EBCA6B & _MASK
    word = (word ^ word >> 13) * 0xC2B2AE35 & _MASK
    return word ^ word >> 16
