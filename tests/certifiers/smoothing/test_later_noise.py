import pytest
import torch

from certifiers import KeyedRandomness
from certifiers.smoothing import CHUNK, GaussianNoise
from certifiers.smoothing.later_noise import LaterNoise
from certifiers.smoothing.noise import ESTIMATION, SELECTION


@pytest.mark.parametrize("skip", [0, 1, 116, 499, 500, 501, 1703])
@pytest.mark.parametrize("stream", [SELECTION, ESTIMATION])
def test_later_noise_is_the_noise_without_its_first_samples(skip: int, stream: int) -> None:
    rng = KeyedRandomness(3, (9, 4))
    all_of_it, later = torch.empty(6 * CHUNK, 2, 3), torch.empty(2 * CHUNK, 2, 3)
    GaussianNoise(0.5, rng).fill(all_of_it, 1, stream, 0)
    LaterNoise(0.5, rng, skip).fill(later[:CHUNK], 1, stream, 0)
    LaterNoise(0.5, rng, skip).fill(later[CHUNK:], 1, stream, 1)
    assert torch.equal(later, all_of_it[skip : skip + 2 * CHUNK])
