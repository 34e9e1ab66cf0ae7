import pytest

from leaderboards.published_images import ImageSet, image_set


def test_every_kth_image_of_a_known_test_set_is_expected() -> None:
    whole = range(0, 10_000, 20)
    assert image_set(whole, "cifar10") == ImageSet(tuple(whole), 500)
    # As one published log: 427 of 500.
    cut = image_set(whole[:427], "cifar10")
    assert cut == ImageSet(tuple(whole), 500)
    assert cut.missing(whole[:427]) == "73 of 500 images are missing: 8540, 8560, 8580, ..."
    assert cut.missing([*whole[:10], *whole[11:]]) == "1 of 500 images are missing: 200"
    assert cut.missing(whole) == ""
    assert image_set(range(5, 10_000, 10), "mnist").ids[:2] == (5, 15)
    assert image_set([40], "mnist").images == 10_000


def test_the_number_that_is_told_counts() -> None:
    assert image_set(range(0, 8540, 20), "cifar10", images=427).images == 427
    # Any images: a random choice.
    assert image_set([3, 5, 900], "cifar10", images=3) == ImageSet((3, 5, 900), 3)
    assert image_set(range(0, 90, 10), "shapes", images=10).missing(range(0, 90, 10)) == "1 of 10 images are missing"
    assert image_set(range(0, 90, 10), "mnist", images=1000).ids == tuple(range(0, 10_000, 10))
    with pytest.raises(ValueError, match=r"the logs have 4 images, more than the 3 of --images\. Check that number"):
        image_set([1, 2, 3, 4], "mnist", images=3)


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"how many images 'shapes' has is not known here.*--images N\. Known: cifar10"
    ):
        image_set([0, 1], "shapes")
    with pytest.raises(ValueError, match=r"image 10000 is not one of the 10000 of mnist, which are counted from 0"):
        image_set([0, 10_000], "mnist")
