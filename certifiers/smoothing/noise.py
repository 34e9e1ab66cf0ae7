"""The noise protocol: which noise an image meets, whatever the batch, the block or the device."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
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
class Noise(ABC):
    """Standard deviation of each input, and the key of the randomness.

    Sample `s` of a stream of an image is row `s % CHUNK` of a float32 tensor [CHUNK, *shape], drawn on the CPU from
    the generator keyed by (seed, image id, stream, `s // CHUNK`). Two runs that ask for different numbers of samples
    share those both have.
    """

    sigma: float
    rng: KeyedRandomness

    @abstractmethod
    def draw(self, chunk: Float[Tensor, "samples *shape"], generator: torch.Generator) -> None:
        """Draw one chunk in place, from this generator alone."""

    def fill(self, buffer: Float[Tensor, "samples *shape"], row: int, stream: int, first_chunk: int) -> None:
        """Draw consecutive chunks in place; the buffer's length is a multiple of CHUNK, its type float32."""
        for number in range(len(buffer) // CHUNK):
            chunk = buffer[number * CHUNK : (number + 1) * CHUNK]
            self.draw(chunk, self.rng.generator(row, stream, first_chunk + number))

    def added(
        self, drawn: Float[Tensor, "samples *shape"], image: Float[Tensor, "*shape"]
    ) -> Float[Tensor, "samples *shape"]:
        """The noisy inputs: `image + drawn`, on the image's device and in its type. May overwrite `drawn`."""
        return drawn.to(image.device, image.dtype, copy=False).add_(image)


@dataclass(frozen=True)
class GaussianNoise(Noise):
    """`N(0, sigma^2 I)`: float32 normals times sigma.

    The last bits of the normals may depend on the vector unit of the processor, as PyTorch's do.
    """

    def draw(self, chunk: Float[Tensor, "samples *shape"], generator: torch.Generator) -> None:
        """Normals."""
        chunk.normal_(0.0, self.sigma, generator=generator)


def chunks_for(samples: int) -> int:
    """How many chunks hold that many samples."""
    return math.ceil(samples / CHUNK)
