import hashlib
import importlib.util
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench import datasets
from bench.datasets import DataError
from bench.torchvision_import import import_torchvision

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed (certbench[vision])"
)


@pytest.mark.parametrize(
    ("name", "wanted", "source"),
    [
        ("mnist", "MNIST/raw/train-images-idx3-ubyte", r"torchvision\.datasets\.MNIST"),
        ("cifar10", "cifar-10-batches-py", r"torchvision\.datasets\.CIFAR10"),
        ("imagenet", "meta.bin and val", r"the archives of ILSVRC 2012, which torchvision\.datasets\.ImageNet"),
    ],
)
def test_folder_must_be_named_and_exist(name: str, wanted: str, source: str, tmp_path: Path) -> None:
    unnamed = rf"'{name}' does not come with certbench and no folder was named\. Name the folder that has {wanted}"
    with pytest.raises(DataError, match=rf"{unnamed}.* with root = .*; get it with {source}\('data', "):
        datasets.load(name)
    nowhere = tmp_path / "nowhere"
    missing = rf"'{name}' is missing: there is no folder {nowhere}, looked for {wanted}"
    with pytest.raises(DataError, match=rf"{missing}.* in it\. Get it with {source}\('{nowhere}', .*root = "):
        datasets.load(name, nowhere)


@pytest.mark.parametrize(("name", "reader"), [("mnist", "MNIST"), ("cifar10", "CIFAR10")])
def test_empty_folder_says_what_was_looked_for(name: str, reader: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"'{name}' is missing or damaged: looked for .*datasets\.{reader}\('/"):
        datasets.load(name, tmp_path)


def test_without_torchvision_the_error_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(DataError, match=r"pip install 'certbench\[vision\]'"):
        datasets.load("mnist", tmp_path)


# ---- MNIST


def write_mnist(root: Path) -> np.ndarray:
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(1).integers(0, 256, (260, 28, 28)).astype(np.uint8)
    labels = (np.arange(260) % 10).astype(np.uint8)
    for part, rows in (("train", slice(240)), ("t10k", slice(240, 260))):
        for kind, array in (("images-idx3", pixels[rows]), ("labels-idx1", labels[rows])):
            sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
            header = bytes([0, 0, 8, array.ndim]) + sizes
            (folder / f"{part}-{kind}-ubyte").write_bytes(header + array.tobytes())
    return pixels


def test_mnist(tmp_path: Path) -> None:
    pixels = write_mnist(tmp_path)
    mnist = datasets.load("MNIST", tmp_path)
    assert (mnist.name, mnist.classes, mnist.input_shape) == ("mnist", 10, (1, 28, 28))
    assert mnist.validation.ids.tolist() == [*range(10), *range(120, 130)]
    assert mnist.test.ids.tolist() == list(range(240, 260))
    assert sorted([*mnist.train.ids, *mnist.validation.ids]) == list(range(240))
    for split in (mnist.train, mnist.validation, mnist.test):
        assert np.array_equal(split.labels.numpy(), split.ids % 10)
        found = split.images(range(len(split)))[:, 0].numpy()
        assert np.array_equal(found, pixels[split.ids] / np.float32(255))


def test_truncated_mnist_is_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match="'mnist' is missing or damaged"):
        datasets.load("mnist", tmp_path)


def test_mnist_with_too_many_labels_is_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    labels = bytes([0, 0, 8, 1]) + (241).to_bytes(4, "big") + bytes(241)
    (tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte").write_bytes(labels)
    with pytest.raises(DataError, match="train files of 'mnist' do not belong together: 240 images, 241 labels"):
        datasets.load("mnist", tmp_path)


# ---- CIFAR-10


def write_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Six batches of 40 images as the original has them; torchvision is told their md5 sums."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    rows = np.random.default_rng(2).integers(0, 256, (240, 3072)).astype(np.uint8)
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    for number, name in enumerate(names):
        mine = slice(40 * number, 40 * number + 40)
        batch: dict[str, Any] = {"data": rows[mine], "labels": [row % 10 for row in range(40)], "batch_label": name}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    meta = {"label_names": [f"class {number}" for number in range(10)], "num_vis": 3072}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))

    def md5(name: str) -> str:
        return hashlib.md5((folder / name).read_bytes(), usedforsecurity=False).hexdigest()

    reader = import_torchvision().datasets.CIFAR10
    monkeypatch.setattr(reader, "train_list", [[name, md5(name)] for name in names[:5]])
    monkeypatch.setattr(reader, "test_list", [[names[5], md5(names[5])]])
    monkeypatch.setattr(reader, "meta", {**reader.meta, "md5": md5("batches.meta")})
    return rows.reshape(-1, 3, 32, 32)


def test_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = write_cifar10(tmp_path, monkeypatch)
    cifar10 = datasets.load("cifar10", tmp_path)
    assert (cifar10.classes, cifar10.input_shape) == (10, (3, 32, 32))
    assert cifar10.validation.ids.tolist() == [*range(10), *range(100, 110)]
    assert cifar10.test.ids.tolist() == list(range(200, 240))
    assert sorted([*cifar10.train.ids, *cifar10.validation.ids]) == list(range(200))
    for split in (cifar10.train, cifar10.validation, cifar10.test):
        assert np.array_equal(split.labels.numpy(), split.ids % 10)
        assert np.array_equal(split.images(range(len(split))).numpy(), pixels[split.ids] / np.float32(255))
    assert cifar10.mean == pytest.approx((pixels[cifar10.train.ids] / 255).mean(axis=(0, 2, 3)))


def test_cifar10_with_another_md5_is_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10(tmp_path, monkeypatch)
    monkeypatch.setattr(pickle, "load", lambda *_, **__: pytest.fail("unpickled an unchecked file"))
    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(DataError, match=r"'cifar10' is missing or damaged: .*not found or corrupted"):
        datasets.load("cifar10", tmp_path)


# ---- ImageNet

WNIDS = ("n01440764", "n01443537")


def write_imagenet(root: Path, part: str, images: int) -> None:
    """JPEG files 300 wide and 400 high: the left half red, the right half of the class's brightness."""
    torch.save(({wnid: (f"class {wnid}", "alias") for wnid in WNIDS}, []), root / "meta.bin")
    for label, wnid in enumerate(WNIDS):
        folder = root / part / wnid
        folder.mkdir(parents=True)
        for number in range(images):
            pixels = np.zeros((400, 300, 3), dtype=np.uint8)
            pixels[:, :150, 0] = 255
            pixels[:, 150:] = 100 + 100 * label + number
            Image.fromarray(pixels).save(folder / f"{wnid}_{number:04}.JPEG", quality=100)


def test_imagenet_certifies_without_training_images(tmp_path: Path) -> None:
    write_imagenet(tmp_path, "val", 3)
    imagenet = datasets.load("imagenet", tmp_path)
    assert (imagenet.classes, imagenet.input_shape) == (2, (3, 224, 224))
    assert imagenet.test.ids.tolist() == [0, 1, 2, 3, 4, 5]
    assert imagenet.test.labels.tolist() == [0, 0, 0, 1, 1, 1]
    images = imagenet.test.images([5, 0])
    assert images.shape == (2, 3, 224, 224)
    assert images.dtype == torch.float32
    assert torch.allclose(images[:, :, 112, 20], torch.tensor([1.0, 0.0, 0.0]), atol=0.02)
    brightness = torch.tensor([202, 100]) / 255
    assert torch.allclose(images[:, :, 112, 200], brightness[:, None].expand(2, 3), atol=0.02)
    assert imagenet.test.images([]).shape == (0, 3, 224, 224)
    for use in (len, lambda split: split.labels, lambda split: split.select(every=2)):
        for split in (imagenet.train, imagenet.validation):
            with pytest.raises(DataError, match=r"looked for .*train\. Certifying does without the training images;"):
                use(split)


def test_imagenet_splits_its_training_images(tmp_path: Path) -> None:
    write_imagenet(tmp_path, "val", 1)
    alone = datasets.load("imagenet", tmp_path)
    write_imagenet(tmp_path, "train", 52)
    imagenet = datasets.load("imagenet", tmp_path)
    assert imagenet.test.digest == alone.test.digest
    assert imagenet.test.ids.tolist() == alone.test.ids.tolist() == [0, 1]
    assert imagenet.validation.ids.tolist() == [50_000, 50_050, 50_052, 50_102]
    assert len(imagenet.train) == 100
    assert not set(imagenet.train.ids) & {*imagenet.validation.ids, *imagenet.test.ids}
    assert torch.bincount(imagenet.train.labels).tolist() == [50, 50]


def test_imagenet_can_be_handed_to_workers(tmp_path: Path) -> None:
    for part in ("val", "train"):
        write_imagenet(tmp_path, part, 52)
    imagenet = datasets.load("imagenet", tmp_path)
    again = pickle.loads(pickle.dumps(imagenet))  # noqa: S301
    for name in ("test", "train", "validation"):
        split, copy = getattr(imagenet, name), getattr(again, name)
        assert copy.ids.tolist() == split.ids.tolist()
        assert torch.equal(copy.images([0]), split.images([0]))
    # What a worker unpickles must not import torchvision by itself, which beside a CPU build of torch fails.
    assert b"torchvision.datasets" not in pickle.dumps(imagenet)


def test_imagenet_digest_is_the_documented_listing(tmp_path: Path) -> None:
    write_imagenet(tmp_path, "val", 2)
    test = datasets.load("imagenet", tmp_path).test
    paths = sorted((tmp_path / "val").glob("*/*.JPEG"))
    lines = [
        f"{path.relative_to(tmp_path)}\t{path.stat().st_size}\t{row // 2}\t{row}\n" for row, path in enumerate(paths)
    ]
    assert test.digest == hashlib.sha256("".join(lines).encode()).hexdigest()
    chosen = test.select(every=2, offset=1)
    assert chosen.ids.tolist() == [1, 3]
    assert chosen.digest == hashlib.sha256((lines[1] + lines[3]).encode()).hexdigest()
    paths[1].unlink()
    with pytest.raises(DataError, match=r"_0001\.JPEG cannot be read: .*Restore it"):
        _ = test.select(offset=1, limit=1).digest


def test_imagenet_incomplete_or_damaged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'imagenet' is incomplete: looked for .*meta\.bin\. Put the archives"):
        datasets.load("imagenet", tmp_path)
    write_imagenet(tmp_path, "val", 1)
    image = tmp_path / "val" / WNIDS[0] / f"{WNIDS[0]}_0000.JPEG"
    image.write_bytes(image.read_bytes()[:500])
    with pytest.raises(DataError, match=r"_0000\.JPEG cannot be read"):
        datasets.load("imagenet", tmp_path).test.images([0])
    image.unlink()
    with pytest.raises(DataError, match="cannot be read as ImageNet: FileNotFoundError"):
        datasets.load("imagenet", tmp_path)
    image.parent.rmdir()
    with pytest.raises(DataError, match=r"each of the 2 classes in meta\.bin, got 1; the first .* 'n01440764'"):
        datasets.load("imagenet", tmp_path)
