"""Members compiled by `torch.compile`: worth its minutes on long runs of networks that are not fused."""

import functools
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn


@functools.lru_cache(maxsize=16)
def compiled(member: nn.Module) -> Callable[[Tensor], Tensor]:
    """The member, compiled for each size of batch that it is given: give it one size.

    Weights are read anew at every call, and members of one architecture share what was compiled. Sums may be in another
    order than the member's own: logits differ in last bits.
    """
    return cast("Callable[[Tensor], Tensor]", torch.compile(member, dynamic=False))


def check_compiler() -> None:
    """Compile something small.

    Raises:
        ValueError: PyTorch finds no compiler for the processor; says what is missing.
    """
    try:
        torch.compile(lambda x: (x + 1).relu(), dynamic=False)(torch.zeros(3))
    except Exception as error:
        # What goes wrong in a tool chain has many classes.
        told = str(error).strip().splitlines()
        raise ValueError(
            f"Networks cannot be compiled here: {told[0] if told else type(error).__name__}. torch.compile needs a C++ "
            "compiler (Debian: g++). Install one, or run without --compile."
        ) from error
    finally:
        torch.compiler.reset()
