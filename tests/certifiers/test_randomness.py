import hashlib
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from certifiers import KeyedRandomness

WORD = st.integers(0, 2**32 - 1)
PLACE = st.tuples(st.integers(0, 1), st.integers(0, 2**31 - 1))


def unmix(word: int) -> int:
    """The inverse of MurmurHash3's 32-bit finaliser: what has an inverse gives no two numbers the same seed."""
    word ^= word >> 16
    word = word * 0x7ED1B41D & 0xFFFFFFFF
    word ^= word >> 13 ^ word >> 26
    word = word * 0xA5CB9243 & 0xFFFFFFFF
    return word ^ word >> 16


def base(seed: int, image: int) -> int:
    return int(hashlib.sha256(f'[{seed},"image",{image}]'.encode()).hexdigest()[:8], 16)


@given(seed=st.integers(0, 2**40), image=st.integers(-5, 2**40), place=PLACE)
def test_seed_of_a_generator_is_a_bijection_of_the_hash_plus_the_number_of_the_chunk(
    seed: int, image: int, place: tuple[int, int]
) -> None:
    stream, chunk = place
    given_seed = KeyedRandomness(seed, (7, image)).generator(1, stream, chunk).initial_seed()
    assert unmix(given_seed) == (base(seed, image) + 2 * chunk + stream) % 2**32


@given(first=PLACE, second=PLACE, start=WORD)
def test_no_two_chunks_of_an_image_share_a_seed(first: tuple[int, int], second: tuple[int, int], start: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("certifiers.randomness.derive_seed", lambda *labels: start)
        seeds = [KeyedRandomness(0, (0,)).generator(0, *place).initial_seed() for place in (first, second)]
    assert (seeds[0] == seeds[1]) is (first == second)


def test_seeds_of_a_long_run_are_all_different() -> None:
    rng = KeyedRandomness(0, (0,))
    seeds = [rng.generator(0, stream, chunk).initial_seed() for stream in (0, 1) for chunk in range(400)]
    assert len(set(seeds)) == 800
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_generator_hangs_on_the_id_of_the_image_not_on_its_row() -> None:
    def draw(rng: KeyedRandomness, row: int) -> torch.Tensor:
        return torch.rand(4, generator=rng.generator(row, 1, 3))

    alone = draw(KeyedRandomness(5, (42,)), 0)
    assert torch.equal(draw(KeyedRandomness(5, (1, 2, 42)), 2), alone)
    assert not torch.equal(draw(KeyedRandomness(5, (43,)), 0), alone)
    assert not torch.equal(draw(KeyedRandomness(6, (42,)), 0), alone)


def test_generators_are_new_each_time_and_leave_the_global_one_alone() -> None:
    rng, before = KeyedRandomness(0, (0,)), torch.get_rng_state()
    assert torch.equal(torch.rand(4, generator=rng.generator(0)), torch.rand(4, generator=rng.generator(0, 0, 0)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("stream", "chunk"), [(2, 0), (-1, 0), (0, -1), (1, 2**31)])
def test_streams_and_chunks_out_of_range_are_refused(stream: int, chunk: int) -> None:
    message = f"Streams are 0 or 1 and chunks 0 to 2^31 - 1, got stream {stream}, chunk {chunk}."
    with pytest.raises(ValueError, match=re.escape(message)):
        KeyedRandomness(0, (0,)).generator(0, stream, chunk)
