import pytest
import torch

from certifiers import KeyedRandomness
from certifiers.smoothing import CHUNK, GaussianNoise
from certifiers.smoothing.noise import ESTIMATION, SELECTION
from certifiers.smoothing.sample_stream import SampleStream


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("stream", [SELECTION, ESTIMATION])
@pytest.mark.parametrize("batch_size", [64, CHUNK, 2 * CHUNK])
@pytest.mark.parametrize(
    "takes", [(1, 116, 383, 500, 1), (499, 1, 1), (500, 500), (1703, 297), (3, 0, 2100, 5)], ids=str
)
def test_takes_are_the_samples_of_the_protocol_in_their_order(
    takes: tuple[int, ...], batch_size: int, stream: int, dtype: torch.dtype
) -> None:
    noise = GaussianNoise(0.5, KeyedRandomness(3, (9, 4)))
    protocol = torch.empty(6 * CHUNK, 2, 3)
    noise.fill(protocol, 1, stream, 0)
    image = torch.rand(2, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    source, before = SampleStream(image, noise, 1, stream), 0
    for count in takes:
        batches = [batch.clone() for batch in source.take(count, batch_size)]
        assert all(0 < len(batch) <= batch_size for batch in batches)
        found = torch.cat([image.new_empty(0, 2, 3), *batches])
        assert torch.equal(found, protocol[before : before + count].to(dtype) + image)
        before += count


def test_each_chunk_is_drawn_once() -> None:
    drawn: list[int] = []

    class Counting(GaussianNoise):
        def draw(self, chunk: torch.Tensor, generator: torch.Generator) -> None:
            drawn.append(generator.initial_seed())
            super().draw(chunk, generator)

    source = SampleStream(torch.zeros(2), Counting(0.5, KeyedRandomness(3, (9,))), 0, ESTIMATION)
    for count in (100, 19, 22, 260, 1000, 7, 600):
        assert sum(len(batch) for batch in source.take(count)) == count
    assert len(drawn) == len(set(drawn)) == 5
