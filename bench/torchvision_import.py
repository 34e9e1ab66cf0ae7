"""The only import of torchvision."""

import functools
import importlib
import sys
from types import ModuleType

import torch


def import_torchvision() -> ModuleType:
    """The module `torchvision`, with `datasets`, `models` and `transforms` usable.

    torchvision's wheel on PyPI is built for CUDA; beside a CPU build of torch its operators do not load,
    and its import then fails on the missing schema of `torchvision::nms`. Only in that case the two schemas
    that its import asks for are declared (without a kernel: calling them still fails) and it is imported
    again.

    Raises:
        ImportError: torchvision is not installed.
    """
    try:
        return importlib.import_module("torchvision")
    except ModuleNotFoundError as error:
        if error.name != "torchvision":
            raise
        raise ImportError(
            "torchvision is not installed; the data sets mnist, cifar10 and imagenet are read with it. "
            "Install it: pip install 'certbench[vision]'.",
            name="torchvision",
        ) from error
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
    _declare_operators()
    # The failed import leaves submodules behind that a second import would take for finished.
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    return importlib.import_module("torchvision")


@functools.cache  # also keeps the Library alive: its schemas vanish with it
def _declare_operators() -> torch.library.Library:
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library.define(schema)  # type: ignore[no-untyped-call]
    return library
