"""Checkpoints: the weights of members as safetensors, with a JSON header and a digest that is checked."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

from ensembles import architectures

_HEADER, _DIGEST = "certbench", "weights_sha256"


class CheckpointError(ValueError):
    """A checkpoint cannot be believed: damaged, altered, or not of this kind."""


@dataclass(frozen=True)
class Checkpoint:
    """Members, the header they were saved with, and the digest of their weights."""

    members: tuple[nn.Module, ...]
    header: Mapping[str, Any]
    digest: str


def weights_digest(members: Sequence[nn.Module]) -> str:
    """SHA-256, in hexadecimal, of what makes members compute what they compute.

    Hashed, a member at a time: class, printed structure, and of each tensor of the state its name, type,
    shape and bytes. Names of members, files and devices do not enter.
    """
    hashed = hashlib.sha256()
    for member in members:
        hashed.update(f"{type(member).__module__}.{type(member).__qualname__}\n{member}\n".encode())
        for name, tensor in sorted(member.state_dict().items()):
            array = tensor.detach().cpu().contiguous()
            hashed.update(f"{name} {array.dtype} {tuple(array.shape)}\n".encode())
            hashed.update(safetensors.torch.save({"tensor": array}))
    return hashed.hexdigest()


def serialize(members: Sequence[architectures.Classifier], header: Mapping[str, Any]) -> bytes:
    """The bytes of a checkpoint file.

    `header` must be JSON and hold what `load` needs to build the members: `architecture`, `input_shape`,
    `classes`, and `options` where the architecture has any.
    """
    tensors = {
        f"{index}.{name}": tensor.detach().cpu().contiguous()
        for index, member in enumerate(members)
        for name, tensor in member.state_dict().items()
    }
    metadata = {
        _HEADER: json.dumps({**header, "members": len(members)}, sort_keys=True),
        _DIGEST: weights_digest(members),
    }
    return safetensors.torch.save(tensors, metadata)


def load(path: Path) -> Checkpoint:
    """The members of a checkpoint, in eval mode, on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: not a checkpoint of ours, or its weights do not match its digest.
    """
    if not path.is_file():
        raise FileNotFoundError(f"No checkpoint at {path}.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: not a readable safetensors file ({error}). Delete it to train again."
        ) from error
    if _HEADER not in metadata or _DIGEST not in metadata:
        raise CheckpointError(f"{path}: a safetensors file, but not a checkpoint of certbench: it has no header.")
    try:
        header = json.loads(metadata[_HEADER])
        members = [_member(header, tensors, f"{index}.") for index in range(header["members"])]
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: the header is damaged ({type(error).__name__}: {error}). Delete the file to train again."
        ) from error
    except _MisfitError as error:
        raise CheckpointError(f"{path}: the weights do not fit {header['architecture']!r} ({error}).") from error
    digest = weights_digest(members)
    if digest != metadata[_DIGEST]:
        raise CheckpointError(
            f"{path}: the weights have digest {digest[:12]}, the file says {metadata[_DIGEST][:12]}; they were "
            "altered. Delete the file to train again."
        )
    return Checkpoint(tuple(members), header, digest)


class _MisfitError(Exception):
    """Weights of other shapes or names than the architecture has."""


def _member(header: Mapping[str, Any], tensors: Mapping[str, Tensor], prefix: str) -> nn.Module:
    """The member whose tensors bear this prefix, in eval mode."""
    state = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    member = architectures.create(
        header["architecture"],
        input_shape=tuple(header["input_shape"]),
        classes=header["classes"],
        seed=0,
        mean=state["normalize.mean"].flatten().tolist(),
        std=state["normalize.std"].flatten().tolist(),
        **header.get("options", {}),
    )
    try:
        member.load_state_dict(state)
    except RuntimeError as error:
        raise _MisfitError(str(error)) from error
    return member.eval()
