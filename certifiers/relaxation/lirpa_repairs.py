"""What auto_LiRPA 0.3 misses in current PyTorch and NumPy, and what any version would leave behind in the process."""

import contextlib
import functools
import importlib
import inspect
import io
import logging
import os
import sys
import tempfile
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

_MISSING = object()


@contextlib.contextmanager
def repaired(*, old: bool) -> Iterator[None]:
    """While auto_LiRPA is imported or records a network: what it needs is there; what it sets is set back after it.

    Args:
        old: it is 0.3, written for PyTorch 1.12 and NumPy 1. It imports `symbolic_helper._set_opset_version` and
            `numpy.lib.arraysetops`, and reads attributes by `torch._C.Node.__getitem__`; all three are gone. The fourth
            repair is `repair_members`.
    """
    with contextlib.ExitStack() as undo:
        undo.enter_context(quiet())
        _keep_process(undo)
        if old:
            # The attribute `torch.onnx.symbolic_helper` is another module until this one is imported by its name.
            symbolic_helper = importlib.import_module("torch.onnx.symbolic_helper")
            settings = importlib.import_module("torch.onnx._internal.torchscript_exporter._globals").GLOBALS
            undo.callback(setattr, settings, "export_onnx_opset_version", settings.export_onnx_opset_version)
            set_version = functools.partial(setattr, settings, "export_onnx_opset_version")
            _set(undo, symbolic_helper, "_set_opset_version", set_version)
            _set(undo, torch._C.Node, "__getitem__", symbolic_helper._node_get)
            if "numpy.lib.arraysetops" not in sys.modules:
                module = types.ModuleType("numpy.lib.arraysetops")
                vars(module)["isin"] = np.isin
                sys.modules[module.__name__] = module
                undo.callback(sys.modules.pop, module.__name__, None)
        yield


def repair_members(bounded_module: Any) -> None:
    """Let `BoundedModule._named_members` take `remove_duplicate`, which PyTorch passes since 2.0 and was True."""
    members: Callable[..., Any] = bounded_module._named_members
    if "remove_duplicate" in inspect.signature(members).parameters:
        return

    def named_members(
        self: Any, find: Any, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Any:
        return members(self, find, prefix, recurse)

    bounded_module._named_members = named_members


def skip_second_padding(bounded_module: Any) -> None:
    """Tell convolutions that only a ReLU reads that patches of coefficients come to them padded.

    A convolution clears the coefficients beyond the border, unless `relu_followed` says that a ReLU, whose slopes are 0
    there, has done so. 0.3 means to set that, but asks a number whether it is a ReLU. No bit of the bounds changes, but
    a tenth of the time of CROWN is saved. Another reader's coefficients come without padding, so there must be none.
    """
    for relu in bounded_module.relus:
        for source in relu.inputs:
            if hasattr(source, "relu_followed") and source.output_name == [relu.name]:
                source.relu_followed = True


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No prints, log lines or warnings of the library; the filters of warnings stay as they are."""
    logger = logging.getLogger("auto_LiRPA.utils")
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), np.errstate(divide="ignore"):
        warnings.simplefilter("ignore")
        logger.disabled = True
        try:
            yield
        finally:
            logger.disabled = False


def _keep_process(undo: contextlib.ExitStack) -> None:
    """Set back what the import changes for everybody: the root logger, the executor of TorchScript, the home folder."""
    root = logging.getLogger()
    undo.callback(setattr, root, "handlers", list(root.handlers))
    for setting in (torch._C._jit_set_profiling_executor, torch._C._jit_set_profiling_mode):
        before = setting(True)
        setting(before)
        undo.callback(setting, before)
    # It makes a folder for the data of the user, which nothing uses: a temporary one here.
    home = os.environ.get("XDG_DATA_HOME")
    os.environ["XDG_DATA_HOME"] = undo.enter_context(tempfile.TemporaryDirectory())
    if home is None:
        undo.callback(os.environ.pop, "XDG_DATA_HOME", None)
    else:
        undo.callback(os.environ.update, XDG_DATA_HOME=home)


def _set(undo: contextlib.ExitStack, owner: Any, name: str, value: Any) -> None:
    """Set an attribute until it is undone."""
    before = vars(owner).get(name, _MISSING)
    setattr(owner, name, value)
    if before is _MISSING:
        undo.callback(delattr, owner, name)
    else:
        undo.callback(setattr, owner, name, before)
