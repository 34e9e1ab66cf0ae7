"""The noise protocol: which Gaussian noise an image meets, whatever the batch, the block or the device."""

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from certifiers.randomness import KeyedRandomness

#: Samples a chunk. Noise is always drawn a whole chunk at a time: a generator asked for fewer numbers would
#: give others. Chosen for speed: the activations of small networks stay in the cache. Another value draws
#: other noise, so it takes a new `version` of every method that counts votes.
CHUNK = 500

#: The stream of the samples that choose the class, and that of the samples that estimate its probability.
SELECTION, ESTIMATION = 0, 1


@dataclass(frozen=True)
class GaussianNoise:
    """Standard deviation and the key of the randomness.

    Sample `s` of a stream of an image is row `s % CHUNK` of a float32 tensor [CHUNK, *shape] of normals, drawn
    on the CPU from the generator keyed by (seed, image id, stream, `s // CHUNK`), times sigma. Two runs that
    ask for different numbers of samples share those both have. The last bits of the normals may depend on the
    vector unit of the processor, as PyTorch's do.
    """

    sigma: float
    rng: KeyedRandomness

    def fill(self, buffer: Float[Tensor, "samples *shape"], row: int, stream: int, first_chunk: int) -> None:
        """Draw consecutive chunks in place; the buffer's length is a multiple of CHUNK, its type float32."""
        for number in range(len(buffer) // CHUNK):
            chunk = buffer[number * CHUNK : (number + 1) * CHUNK]
            chunk.normal_(0.0, self.sigma, generator=self.rng.generator(row, stream, first_chunk + number))


def chunks_for(samples: int) -> int:
    """How many chunks hold that many samples."""
    return math.ceil(samples / CHUNK)
