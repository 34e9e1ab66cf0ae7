"""Data sets: images with labels and stable ids, split the same way everywhere."""

from bench.datasets.dataset import Dataset, channel_statistics
from bench.datasets.deferred_split import DeferredSplit
from bench.datasets.errors import DataError
from bench.datasets.file_split import FileSplit
from bench.datasets.idx import fashion_mnist, read_idx
from bench.datasets.imagenet import imagenet
from bench.datasets.in_memory_split import InMemorySplit
from bench.datasets.packaged import digits, mnist_5k
from bench.datasets.registry import load, names, register, registry
from bench.datasets.split import Split
from bench.datasets.stratify import position_in_class
from bench.datasets.torchvision_sets import cifar10, mnist
from bench.datasets.train_and_test import split_train_and_test

__all__ = [
    "DataError",
    "Dataset",
    "DeferredSplit",
    "FileSplit",
    "InMemorySplit",
    "Split",
    "channel_statistics",
    "cifar10",
    "digits",
    "fashion_mnist",
    "imagenet",
    "load",
    "mnist",
    "mnist_5k",
    "names",
    "position_in_class",
    "read_idx",
    "register",
    "registry",
    "split_train_and_test",
]
