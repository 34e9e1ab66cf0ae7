import itertools
import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ensembles.diversity import (
    ambiguity_entropy,
    disagreement,
    gradient_similarity,
    smoothness,
    valid_pairs,
)


def table(*rows: str) -> Tensor:
    """Members' right answers, one row a member, `1` right and `0` wrong an image."""
    return torch.tensor([[mark == "1" for mark in row] for row in rows])


# Eq. 7, by hand


@pytest.mark.parametrize(
    ("correct", "expected"),
    [
        (table("1"), 0.0),  # K = 1: K - ceil(K/2) = 0, and there is nobody to disagree with
        (table("10"), 0.0),
        (table("11", "11"), 0.0),
        (table("10", "01"), 1.0),  # K = 2: 2 - 1 = 1; both images have one right
        (table("1100", "1010"), 0.5),
        (table("1", "1", "0"), 1.0),  # K = 3: 3 - 2 = 1
        (table("1", "0", "0"), 1.0),
        (table("11", "10", "10"), 0.5),
        (table("1", "0", "0", "0"), 0.5),  # K = 4: 4 - 2 = 2; min(1, 3) / 2
        (table("1", "1", "0", "0"), 1.0),
        (table("10", "10", "00", "00", "00"), 0.5),  # K = 5: 5 - 3 = 2; (min(2, 3) + min(0, 5)) / 2 / 2 images
        (table("111", "110", "110", "111", "100"), 0.5),  # l = 5, 4, 2: (0 + 1 + 2) / 2 / 3
    ],
)
def test_ambiguity_entropy_by_hand(correct: Tensor, expected: float) -> None:
    found = ambiguity_entropy(correct)
    assert type(found) is float
    assert found == expected


tables = st.integers(1, 6).flatmap(
    lambda members: st.lists(st.lists(st.booleans(), min_size=members, max_size=members), min_size=1, max_size=9).map(
        lambda images: torch.tensor(images).T
    )
)


@given(tables)
def test_entropy_and_valid_pairs_equal_the_formulas(correct: Tensor) -> None:
    members, images = correct.shape
    votes = [int(column.sum()) for column in correct.T]
    if members == 1:
        assert ambiguity_entropy(correct) == valid_pairs(correct) == 0.0
        return
    expected = sum(min(v, members - v) / (members - math.ceil(members / 2)) for v in votes) / images
    assert ambiguity_entropy(correct) == pytest.approx(expected, abs=1e-12)
    assert 0 <= ambiguity_entropy(correct) <= 1
    assert ambiguity_entropy(~correct) == ambiguity_entropy(correct)
    pairs = list(itertools.combinations(correct.tolist(), 2))
    both = sum(a and b for one, other in pairs for a, b in zip(one, other, strict=True))
    assert valid_pairs(correct) == pytest.approx(both / (len(pairs) * images), abs=1e-12)


def test_valid_pairs_by_hand() -> None:
    assert valid_pairs(table("11", "10", "10")) == 0.5  # all 3 pairs, then none
    assert valid_pairs(table("1", "1", "0")) == pytest.approx(1 / 3)


def test_disagreement_by_hand() -> None:
    # Pairs (0,1), (0,2), (1,2) differ on 1, 2 and 3 of 4 images. Two different wrong answers disagree too.
    predictions = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 0], [0, 0, 3, 1]])
    assert disagreement(predictions) == pytest.approx((1 + 3 + 3) / 12)
    assert disagreement(predictions[:1]) == 0.0
    assert disagreement(predictions[[0, 0]]) == 0.0
    assert disagreement(torch.tensor([[0, 1], [1, 0]])) == 1.0


# Gradients


def test_similarity_and_smoothness_by_hand() -> None:
    # Images: parallel, opposite, orthogonal, one zero, all zero.
    one = torch.tensor([[3.0, 4.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    other = torch.tensor([[6.0, 8.0], [-5.0, 0.0], [0.0, 2.0], [3.0, 4.0], [0.0, 0.0]])
    gradients = torch.stack([one, other])
    torch.testing.assert_close(gradient_similarity(gradients), torch.tensor([1.0, -1, 0, 0, 0]).double())
    torch.testing.assert_close(smoothness(gradients), torch.tensor([15.0, 6, 3, 5, 0]).double())
    three = torch.stack([one, other, one])[:, :2]
    torch.testing.assert_close(gradient_similarity(three), torch.tensor([3.0, -1.0]).double())
    assert not gradient_similarity(gradients[:1]).any()


@pytest.mark.parametrize("scale", [1e-40, 1e-20, 1.0, 1e30])
def test_cosines_do_not_depend_on_how_small_the_gradients_are(scale: float) -> None:
    gradients = torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]]) * torch.tensor(scale)
    assert gradient_similarity(gradients).item() == pytest.approx(math.sqrt(0.5), rel=1e-6)
    assert smoothness(gradients).item() == pytest.approx(scale * (1 + math.sqrt(2)), rel=1e-4)
    tiny = gradients.double() / scale * 1e-300
    assert gradient_similarity(tiny).item() == pytest.approx(math.sqrt(0.5), rel=1e-6)
    assert smoothness(tiny).item() == pytest.approx(1e-300 * (1 + math.sqrt(2)), rel=1e-6)


@pytest.mark.parametrize("empty", [torch.zeros(0, 4, dtype=torch.bool), torch.zeros(3, 0, dtype=torch.bool)])
def test_nothing_to_measure(empty: Tensor) -> None:
    message = f"Diversity needs members and images, got {len(empty)} members and {empty.shape[1]} images."
    for of_nothing in (ambiguity_entropy, valid_pairs):
        with pytest.raises(ValueError, match=re.escape(message)):
            of_nothing(empty)
    with pytest.raises(ValueError, match=re.escape(message)):
        disagreement(empty.long())
