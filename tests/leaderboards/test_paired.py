import itertools
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import PermutationMethod, binomtest, false_discovery_control, wilcoxon

from leaderboards.paired import (
    MOST_ENUMERATED,
    all_pairs,
    compare_entries,
    holm,
    largest_loss,
    mcnemar,
    mcnemar_loss,
    sign_flips,
    signed_rank,
)
from leaderboards.records import Entry

MakeEntry = Callable[..., Entry]
RADII = (Fraction(0), Fraction(1, 2), Fraction(1))


def test_mcnemar_is_the_exact_binomial_test() -> None:
    for lost, gained in itertools.product([0, 1, 2, 5, 17, 40], repeat=2):
        trials = lost + gained
        two = binomtest(lost, trials).pvalue if trials else 1.0
        one = binomtest(lost, trials, alternative="greater").pvalue if trials else 1.0
        assert float(mcnemar(lost, gained)) == pytest.approx(two, rel=1e-9)
        assert float(mcnemar_loss(lost, gained)) == pytest.approx(one, rel=1e-9)


def test_sign_flips_enumerate_few_differences_and_bound_many() -> None:
    generator = np.random.default_rng(1)
    for size in (1, 2, 5, 9):
        for _ in range(5):
            found = generator.integers(-3, 6, size)
            sums = [np.dot(signs, found) for signs in itertools.product([-1, 1], repeat=size)]
            expected = np.mean([total >= found.sum() for total in sums]) if found.sum() > 0 else 1.0
            assert sign_flips(found) == pytest.approx(expected)
    # Sums of other than whole numbers are equal up to rounding.
    assert [sign_flips([0.1, 0.2, 0.3]), sign_flips(np.full(10, 0.1))] == [1 / 8, 1 / 1024]
    # Equal differences: the sign test, which the bound must not be below.
    for size in range(MOST_ENUMERATED - 1, 40):
        for minus in range(size // 2):
            found = np.where(np.arange(size) < minus, -7, 7)
            exact = float(mcnemar_loss(size - minus, minus))
            assert sign_flips(found) >= exact * (1 - 1e-9)
            if size <= MOST_ENUMERATED:
                assert sign_flips(found) == pytest.approx(exact)
    assert sign_flips(np.zeros(5)) == sign_flips([]) == sign_flips([-1.0, 0.5]) == 1.0
    assert sign_flips(np.r_[np.full(400, 9000), np.full(600, -1)]) < 1e-50


def test_the_largest_loss_is_a_number_whatever_was_lost_or_gained() -> None:
    for images in (1, 2, 9, 37, 126, 10_000):
        for lost, gained in ((0, images), (images, 0), (0, 0), (images // 2, images - images // 2)):
            bound = largest_loss(lost, gained, images, 0.05)
            assert (lost - gained) / images <= bound <= 1


def test_holm_is_its_definition_and_between_bonferroni_and_no_correction() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        p_values = generator.random(9) ** 3
        adjusted = holm(p_values)
        assert (adjusted >= p_values).all()
        assert (adjusted <= np.minimum(1, 9 * p_values) + 1e-15).all()
        assert (adjusted >= false_discovery_control(p_values) - 1e-15).all()
        for level in (0.01, 0.05, 0.3):
            # Step down as Holm did: reject while the k-th smallest is at most level / (m - k + 1).
            expected = set()
            for rank, index in enumerate(np.argsort(p_values)):
                if p_values[index] > level / (9 - rank):
                    break
                expected.add(int(index))
            assert set(np.flatnonzero(adjusted <= level).tolist()) == expected
    assert holm(np.full((2, 3), 0.01)).tolist() == [[0.06] * 3] * 2


@pytest.mark.parametrize("ties", [False, True])
def test_few_images_are_ranked_exactly_with_ties(ties: bool) -> None:
    generator = np.random.default_rng(2)
    for _ in range(10):
        first, second = generator.random(9), generator.random(9)
        if ties:
            first, second = np.round(first * 4), np.round(second * 4)
        difference = (second - first)[second != first]
        method = PermutationMethod(n_resamples=2**9) if ties else "exact"
        assert signed_rank(first, second) == pytest.approx(
            min(1.0, wilcoxon(difference, method=method).pvalue), abs=1e-12
        )


def test_many_images_are_ranked_as_scipy_does() -> None:
    generator = np.random.default_rng(3)
    first = np.round(generator.random(300), 1)
    second = np.where(generator.random(300) < 0.5, first, np.round(generator.random(300) + 0.05, 1))
    moved = second != first
    assert signed_rank(first, second) == wilcoxon((second - first)[moved], method="approx").pvalue
    # Images with equal radii in both say nothing.
    assert signed_rank(first[moved], second[moved]) == signed_rank(first, second)
    assert signed_rank(first, first) == signed_rank([0.5, 0.5], [0.5, 0.9]) == 1.0


def test_two_entries_are_paired_by_image_whatever_the_order_of_rows(make_entry: MakeEntry) -> None:
    first = make_entry("first", (1.0, 0.6, None, 0.2, -2.0))
    second = make_entry("second", (1.0, None, 0.5, 0.7, 0.1))
    turned = replace(second, rows=second.rows.iloc[::-1].reset_index(drop=True))
    found = compare_entries(first, turned, RADII)
    assert [(at.both, at.lost, at.gained, at.neither) for at in found.at] == [(2, 1, 2, 0), (1, 1, 2, 1), (1, 0, 0, 4)]
    assert [at.difference for at in found.at] == [0.2, 0.2, 0.0]
    assert [at.p_value for at in found.at] == [1.0, 1.0, 1.0]
    assert found.mean_radius_difference == pytest.approx((0.5 + 0.5 + 0.1 - 0.6) / 5)
    assert found.wilcoxon_p_value == signed_rank([1, 0.6, 0, 0.2, 0], [1, 0, 0.5, 0.7, 0.1])


def test_entries_of_other_images_are_not_paired(make_entry: MakeEntry) -> None:
    with pytest.raises(ValueError, match="of different images and cannot be paired"):
        compare_entries(make_entry("a", (1.0, 0.5)), make_entry("b", (1.0, 0.5, 0.1)), RADII)


def test_all_pairs_count_every_pair_and_correct_for_all(make_entry: MakeEntry) -> None:
    generator = np.random.default_rng(4)
    entries = [make_entry(str(number), generator.random(40) * (1 + 0.4 * number)) for number in range(4)]
    found = all_pairs(entries, RADII)
    alone = []
    for one, other in itertools.combinations(range(4), 2):
        pair = compare_entries(entries[one], entries[other], RADII)
        alone += [at.p_value for at in pair.at]
        assert [at.lost for at in pair.at] == found.lost[one, other].tolist() == found.gained[other, one].tolist()
        assert [at.gained for at in pair.at] == found.gained[one, other].tolist()
    expected = holm(alone).reshape(6, 3)
    for (one, other), row in zip(itertools.combinations(range(4), 2), expected, strict=True):
        assert found.adjusted[one, other].tolist() == found.adjusted[other, one].tolist() == row.tolist()
    assert (expected < 0.05).any()
