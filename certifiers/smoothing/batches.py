"""Noisy copies of an image, a batch at a time, on the device that evaluates them."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from certifiers.smoothing.noise import CHUNK, Noise, chunks_for


def noisy_batches(
    image: Float[Tensor, "*shape"],
    noise: Noise,
    row: int,
    stream: int,
    samples: int,
    batch_size: int,
    first_chunk: int = 0,
) -> Iterator[Float[Tensor, "batch *shape"]]:
    """The noisy copies `image + noise` of the protocol, in its order; a batch is gone when the next is asked for.

    On the CPU they lie in one buffer that is drawn anew, so that no memory is taken from the system. For a CUDA device
    the processor draws into one of two pinned buffers while the device copies the other and evaluates: nobody waits
    for the slower of the two. The noise is the same.

    Args:
        image: one input, in [0, 1]; its device and type are those of the batches.
        noise: the protocol.
        row: the image's row in the protocol's key.
        stream: selection or estimation.
        samples: how many noisy copies.
        batch_size: how many at a time; fewer at the end, and where drawn chunks end.
        first_chunk: where in the protocol to begin.
    """
    drawing = _Drawing(noise, row, stream, samples, first_chunk)
    staged = _staged if image.device.type == "cuda" else _in_place
    for noisy in staged(image, drawing, max(1, batch_size // CHUNK)):
        yield from torch.split(noisy, batch_size)


@dataclass(frozen=True)
class _Drawing:
    """Consecutive samples of the protocol, from the start of a chunk on."""

    noise: Noise
    row: int
    stream: int
    samples: int
    first_chunk: int

    @property
    def chunks(self) -> int:
        return chunks_for(self.samples)

    def into(self, buffer: Tensor, done: int) -> Float[Tensor, "wanted *shape"]:
        """As many chunks as the buffer holds, `done` of them later, without what is beyond the last sample."""
        chunks = min(len(buffer) // CHUNK, self.chunks - done)
        self.noise.fill(buffer[: chunks * CHUNK], self.row, self.stream, self.first_chunk + done)
        return buffer[: min(len(buffer), self.samples - done * CHUNK)]


def _in_place(image: Tensor, drawing: _Drawing, together: int) -> Iterator[Tensor]:
    buffer = torch.empty((together * CHUNK, *image.shape), dtype=torch.float32)
    for done in range(0, drawing.chunks, together):
        yield drawing.noise.added(drawing.into(buffer, done), image)


def _staged(image: Tensor, drawing: _Drawing, together: int) -> Iterator[Tensor]:
    device = image.device
    shape = (together * CHUNK, *image.shape)
    buffers = [torch.empty(shape, dtype=torch.float32, pin_memory=True) for _ in range(2)]
    copied = [torch.cuda.Event() for _ in buffers]  # type: ignore[no-untyped-call]
    copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    copying.wait_stream(torch.cuda.current_stream(device))  # the image may have been made a moment ago
    for turn, done in enumerate(range(0, drawing.chunks, together)):
        mine = turn % 2
        copied[mine].synchronize()  # what was drawn here before is on the device
        drawn = drawing.into(buffers[mine], done)
        with torch.cuda.stream(copying):
            noisy = drawing.noise.added(drawn.to(device, non_blocking=True), image)
            copied[mine].record(copying)
        here = torch.cuda.current_stream(device)
        here.wait_stream(copying)
        noisy.record_stream(here)  # its memory is not given away while this stream reads it
        yield noisy
    # Pinned memory must not be freed under a copy.
    copying.synchronize()
