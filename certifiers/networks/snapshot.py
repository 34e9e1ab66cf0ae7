"""What a module is made of, kept by value: whether what was read of it still speaks of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

#: What an attribute of a layer may be to be compared: a stride, a mode, a slope.
_PLAIN = (bool, int, float, str, type(None))


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The layers of a module, and the numbers in them, at one moment.

    Marks of a write (PyTorch's count of them, the address of a tensor) do not do: writes to `.data` leave none, and
    loading the weights that are there already leaves one. So the numbers themselves are kept, and compared.

    Not kept: hooks, and what a forward looks up elsewhere.

    Attributes:
        tensors: copies of parameters, buffers and tensors that are plain attributes.
        plain: for each layer its class, and its attributes that are numbers, words, or tuples of those.
    """

    tensors: dict[str, Tensor]
    plain: dict[str, Any]

    @classmethod
    def of(cls, module: nn.Module) -> "Snapshot":
        """The module as it is now."""
        return cls({name: tensor.detach().clone() for name, tensor in _tensors(module)}, dict(_plain(module)))

    def holds(self, module: nn.Module) -> bool:
        """Whether all is as it was, to the bit; a NaN is like nothing."""
        now = dict(_tensors(module))
        return (
            self.plain == dict(_plain(module))
            and self.tensors.keys() == now.keys()
            and all(_same(before, now[name]) for name, before in self.tensors.items())
        )


def _same(before: Tensor, now: Tensor) -> bool:
    alike = before.dtype == now.dtype and before.device == now.device and before.shape == now.shape
    return alike and torch.equal(before, now)


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)
    for path, layer in module.named_modules(remove_duplicate=False):
        yield from ((f"{path}.{key}", value) for key, value in vars(layer).items() if isinstance(value, Tensor))


def _plain(module: nn.Module) -> Iterator[tuple[str, Any]]:
    for path, layer in module.named_modules(remove_duplicate=False):
        yield path, type(layer)
        for key, value in vars(layer).items():
            parts = value if isinstance(value, tuple) else (value,)
            if all(isinstance(part, _PLAIN) for part in parts):
                yield f"{path}.{key}", value
