import numpy as np
import pytest

from leaderboards.resampling import _ranks, rank_intervals


def test_a_clear_order_is_sure_and_equals_share_the_best_rank() -> None:
    generator = np.random.default_rng(0)
    best, last = generator.random(400) < 0.9, generator.random(400) < 0.1
    middle = generator.random(400) < 0.5
    assert rank_intervals([best, middle, middle, last]) == [(1, 1), (2, 2), (2, 2), (4, 4)]


def test_what_is_alike_is_not_told_apart() -> None:
    generator = np.random.default_rng(1)
    assert rank_intervals([generator.random(100) < 0.5 for _ in range(3)]) == [(1, 3)] * 3


def test_shares_of_ranks_are_those_of_the_normal_law() -> None:
    """Two competitors that differ on d images by a net of k: the second is first with probability Phi(-k / sqrt(d))."""
    from scipy.stats import norm

    first, second = np.ones(1000), np.ones(1000)
    second[:60], first[60:100] = 0, 0
    chance = norm.cdf(-(60 - 40) / np.sqrt(100 - 0.4))  # 2.3 %
    assert 0.02 < chance < 0.025
    assert rank_intervals([first, second], confidence=1 - 2 * 0.5 * chance) == [(1, 2), (1, 2)]
    assert rank_intervals([first, second], confidence=1 - 2 * 2 * chance) == [(1, 1), (2, 2)]


def test_training_seeds_widen_what_images_leave_sure() -> None:
    images = np.zeros((3, 500))
    images[0, :100], images[1, :300], images[2, :500] = 1, 1, 1  # 20 %, 60 % and 100 %
    steady = np.zeros((3, 500))
    steady[:, :200] = 1  # 40 % each
    assert rank_intervals([images, steady]) == [(1, 2), (1, 2)]
    assert rank_intervals([images.mean(axis=0), steady[0]]) == [(1, 1), (2, 2)]


def test_few_seeds_are_not_taken_for_all_there_are() -> None:
    """Means of three seeds drawn from three: the least is the smallest seed, which new seeds would often fall below."""
    seeds = np.repeat([[0.2], [0.6], [1.0]], 50, axis=1)
    lowest = 0.6 - np.sqrt(3 / 2) * 0.4  # 0.11, with probability 1/27
    for steady, expected in ((lowest + 0.01, (1, 2)), (lowest - 0.01, (1, 1))):
        assert rank_intervals([seeds, np.full(50, steady)])[0] == expected


def test_many_competitors_are_ranked_as_few_are() -> None:
    drawn = np.round(np.random.default_rng(2).random((50, 7)), 1)
    expected = 1 + (drawn[:, None, :] > drawn[:, :, None]).sum(axis=2)
    assert _ranks(drawn).tolist() == expected.tolist()
    generator = np.random.default_rng(3)
    scores = [generator.random(60) < 0.02 * number for number in range(45)]
    found = rank_intervals(scores)
    assert found[44][0] == 1
    assert found[0][1] == 45


def test_competitors_of_different_images_are_refused() -> None:
    with pytest.raises(ValueError, match="measured on the same images"):
        rank_intervals([np.ones(3), np.ones(4)])
    with pytest.raises(ValueError, match="measured on the same images"):
        rank_intervals([])
