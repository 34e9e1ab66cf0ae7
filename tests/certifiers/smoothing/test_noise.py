import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from certifiers import KeyedRandomness
from certifiers.smoothing import CHUNK, GaussianNoise
from certifiers.smoothing.noise import ESTIMATION, SELECTION, chunks_for

SHAPE = (2, 3, 4)


def draw(chunks: int, stream: int = ESTIMATION, first: int = 0, sigma: float = 1.0, **key: int) -> Tensor:
    rng = KeyedRandomness(key.get("seed", 0), (99, key.get("image", 7)))
    buffer = torch.full((chunks * CHUNK, *SHAPE), torch.nan)
    GaussianNoise(sigma, rng).fill(buffer, 1, stream, first)
    return buffer


def test_sample_is_a_row_of_the_normals_of_its_chunk() -> None:
    rng = KeyedRandomness(3, (7,))
    expected = [torch.randn(CHUNK, *SHAPE, generator=rng.generator(0, SELECTION, chunk)) for chunk in (4, 5)]
    assert torch.allclose(draw(2, SELECTION, 4, sigma=0.5, seed=3), 0.5 * torch.cat(expected), rtol=1e-6)


def test_chunks_do_not_depend_on_how_many_are_drawn_at_once() -> None:
    together = draw(4)
    for chunk in range(4):
        assert torch.equal(together[chunk * CHUNK : (chunk + 1) * CHUNK], draw(1, first=chunk))


def test_noise_is_scaled_by_sigma_and_by_nothing_else() -> None:
    unit = draw(1)
    for sigma in (0.12, 0.5, 3.0):
        assert torch.allclose(draw(1, sigma=sigma), sigma * unit, rtol=1e-6)


def test_noise_of_every_chunk_stream_image_and_seed_is_another() -> None:
    drawn = [
        draw(3),
        draw(3, first=3),
        draw(3, SELECTION),
        draw(3, image=8),
        draw(3, seed=1),
    ]
    samples = torch.cat(drawn).flatten(1)
    assert len(torch.unique(samples, dim=0)) == len(samples) == 15 * CHUNK


def test_noise_is_standard_normal() -> None:
    # 180 000 numbers; the thresholds let 1 seed in 10^4 fail, and the seed is fixed.
    values = draw(15, seed=1).flatten().double().numpy()
    assert stats.kstest(values, "norm").pvalue > 1e-4
    assert abs(values.mean()) < 3.9 / np.sqrt(values.size)
    assert abs(values.var() - 1) < 3.9 * np.sqrt(2 / values.size)
    assert abs(stats.skew(values)) < 3.9 * np.sqrt(6 / values.size)
    assert abs(stats.kurtosis(values)) < 3.9 * np.sqrt(24 / values.size)


def test_noise_of_pixels_samples_and_streams_is_not_correlated() -> None:
    first, second = draw(4).flatten(1).double(), draw(4, SELECTION).flatten(1).double()
    for left, right in ((first[:, 0], first[:, 1]), (first[:-1, 0], first[1:, 0]), (first[:, 0], second[:, 0])):
        assert abs(float((left * right).mean())) < 3.9 / np.sqrt(len(left))


@pytest.mark.parametrize(
    ("samples", "chunks"), [(1, 1), (CHUNK - 1, 1), (CHUNK, 1), (CHUNK + 1, 2), (10 * CHUNK, 10), (100_000, 200)]
)
def test_chunks_that_hold_samples(samples: int, chunks: int) -> None:
    assert chunks_for(samples) == chunks
    assert CHUNK == 500  # another value draws other noise: see its comment
