"""What a certifier finds when it is asked, and must leave as it was: compared before and after."""

import hashlib
import os
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def surroundings(classifier: nn.Module, x: Tensor) -> dict[str, Any]:
    """Everything around a question by name, in values that can be compared."""
    modules = dict(classifier.named_modules())
    return {
        "the weights": {name: _digest(tensor) for name, tensor in classifier.state_dict().items()},
        "gradients": {
            name: (parameter.requires_grad, parameter.grad is None) for name, parameter in classifier.named_parameters()
        },
        "modes": {name: module.training for name, module in modules.items()},
        "hooks": {
            name: (len(module._forward_hooks), len(module._forward_pre_hooks), len(module._backward_hooks))
            for name, module in modules.items()
        },
        "attributes of modules": {name: sorted(vars(module)) for name, module in modules.items()},
        "the inputs": (_digest(x), x.requires_grad),
        "the generator of torch": _digest(torch.get_rng_state()),
        "the generator of numpy": _state(np.random.get_state()),  # noqa: NPY002
        "the generator of random": hash(random.getstate()),
        "grad mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "the default dtype": torch.get_default_dtype(),
        "the number of threads": torch.get_num_threads(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "the precision of float32 products": torch.get_float32_matmul_precision(),
        "detection of anomalies": torch.is_anomaly_enabled(),
        "floating point errors of numpy": tuple(sorted(np.geterr().items())),
        "the working folder": os.getcwd(),  # noqa: PTH109
    }


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(
        tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    ).hexdigest()


def _state(state: Any) -> str:
    return hashlib.sha256(repr([state[0], state[1].tobytes(), *state[2:]]).encode()).hexdigest()
