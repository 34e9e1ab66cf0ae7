"""What a module is made of, kept by value: whether what was read of it still speaks of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

#: What is compared as it is: a stride, a mode, a slope.
_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)

_KEPT_ELSEWHERE = ("_parameters", "_buffers", "_modules")


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The layers of a module, and the numbers in them, at one moment.

    Marks of a write (PyTorch's count of them, the address of a tensor) do not do: writes to `.data` leave none, and
    loading the weights that are there already leaves one. So the numbers themselves are kept, and compared.

    Not kept: what a forward looks up elsewhere.

    Attributes:
        tensors: copies of parameters, buffers and tensors that are plain attributes.
        plain: for each layer its class, its hooks, and all other attributes: numbers, words and collections of them by
            value, anything else (a `forward` that was put there, say) by identity.
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
            if key not in _KEPT_ELSEWHERE and not isinstance(value, Tensor):
                yield f"{path}.{key}", _frozen(value)


class _Same:
    """Equal to the same object alone, which it keeps alive."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    __hash__ = None  # type: ignore[assignment]


def _frozen(value: Any) -> Any:
    """A value that stays as it is, and is equal to that of an equal one."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Tensor):
        return value.dtype, tuple(value.shape), value.detach().cpu().reshape(-1).tolist()
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes() if value.dtype != object else _Same(value)
    if isinstance(value, Mapping):
        return [(_frozen(key), _frozen(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return [type(value), *map(_frozen, value)]
    if isinstance(value, set | frozenset):
        return [type(value), *sorted(map(repr, value))]
    return _Same(value)
