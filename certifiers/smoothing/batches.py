"""Noisy copies of an image, a batch at a time, on the device that evaluates them."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from certifiers.smoothing.noise import CHUNK, Noise, chunks_for


def noisy_batches(
    image: Float[Tensor, "*shape"], noise: Noise, row: int, stream: int, samples: int, batch_size: int
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
    """
    together = max(1, batch_size // CHUNK)
    staged = _staged if image.device.type == "cuda" else _in_place
    for noisy in staged(image, noise, row, stream, samples, together):
        yield from torch.split(noisy, batch_size)


def _drawn(
    buffer: Tensor, noise: Noise, row: int, stream: int, samples: int, first_chunk: int
) -> Float[Tensor, "wanted *shape"]:
    """As many chunks as the buffer holds, from `first_chunk` on, without what is beyond `samples`."""
    chunks = min(len(buffer) // CHUNK, chunks_for(samples) - first_chunk)
    noise.fill(buffer[: chunks * CHUNK], row, stream, first_chunk)
    return buffer[: min(len(buffer), samples - first_chunk * CHUNK)]


def _in_place(image: Tensor, noise: Noise, row: int, stream: int, samples: int, together: int) -> Iterator[Tensor]:
    buffer = torch.empty((together * CHUNK, *image.shape), dtype=torch.float32)
    for first_chunk in range(0, chunks_for(samples), together):
        drawn = _drawn(buffer, noise, row, stream, samples, first_chunk)
        yield noise.added(drawn, image)


def _staged(image: Tensor, noise: Noise, row: int, stream: int, samples: int, together: int) -> Iterator[Tensor]:
    device = image.device
    shape = (together * CHUNK, *image.shape)
    buffers = [torch.empty(shape, dtype=torch.float32, pin_memory=True) for _ in range(2)]
    copied = [torch.cuda.Event() for _ in buffers]  # type: ignore[no-untyped-call]
    copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    copying.wait_stream(torch.cuda.current_stream(device))  # the image may have been made a moment ago
    for turn, first_chunk in enumerate(range(0, chunks_for(samples), together)):
        mine = turn % 2
        copied[mine].synchronize()  # what was drawn here before is on the device
        drawn = _drawn(buffers[mine], noise, row, stream, samples, first_chunk)
        with torch.cuda.stream(copying):
            noisy = noise.added(drawn.to(device, non_blocking=True), image)
            copied[mine].record(copying)
        here = torch.cuda.current_stream(device)
        here.wait_stream(copying)
        noisy.record_stream(here)  # its memory is not given away while this stream reads it
        yield noisy
    # Pinned memory must not be freed under a copy.
    copying.synchronize()
