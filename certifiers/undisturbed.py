"""A guard: whatever an author's method does, the process and the model are as before."""

import contextlib
import random
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn


class ClassifierChangedError(RuntimeError):
    """A method changed the weights of the classifier it was to certify; nothing can be said of it any more."""


@contextlib.contextmanager
def undisturbed(classifiers: Sequence[nn.Module]) -> Iterator[None]:
    """Run the body with the classifiers in eval mode and gradients off; restore everything after it.

    Restored, also when the body raises: the mode of every submodule, gradients of the parameters and whether
    they are asked for, the global generators of torch, numpy and random, grad mode, default dtype, thread count.
    Weights are not copied, so they cannot be restored: that they were changed is noticed, but for writes to `.data`,
    which leave no mark: whoever shares weights among methods compares them by value.

    Raises:
        ClassifierChangedError: a parameter or buffer was written to, replaced, added or removed, or a hook was left
            behind; also where the body raises, which is then its cause.
    """
    weights = [fingerprints(classifier) for classifier in classifiers]
    modules = [module for classifier in classifiers for module in classifier.modules()]
    modes = [module.training for module in modules]
    parameters = [parameter for classifier in classifiers for parameter in classifier.parameters()]
    gradients = [(parameter.grad, parameter.requires_grad) for parameter in parameters]
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    grad_enabled, dtype, threads = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads()
    raised: Exception | None = None
    try:
        for classifier in classifiers:
            classifier.eval()
        with torch.no_grad():
            yield
    except Exception as error:
        raised = error
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
        for parameter, (gradient, wanted) in zip(parameters, gradients, strict=True):
            parameter.requires_grad_(wanted)
            parameter.grad = gradient
        torch.set_rng_state(torch_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)
        if cuda_states:
            torch.cuda.set_rng_state_all(cuda_states)
        torch.set_grad_enabled(grad_enabled)
        torch.set_default_dtype(dtype)
        # Toggling the thread pool slows later work, so it is touched only when the method changed it.
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
    for classifier, before in zip(classifiers, weights, strict=True):
        after = fingerprints(classifier)
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        if changed:
            raise ClassifierChangedError(
                f"The method changed {changed[0]!r} of the classifier"
                f"{f' and {len(changed) - 1} more' if len(changed) > 1 else ''}. Work on a copy: "
                "copy.deepcopy(classifier)."
            ) from raised
    if raised is not None:
        raise raised


def fingerprints(classifier: nn.Module) -> dict[str, tuple[object, ...]]:
    """What tells cheaply whether a classifier is as before.

    Of a tensor its memory, PyTorch's count of writes, its type; of a layer the hooks that its forward calls.
    """
    tensors = [*classifier.named_parameters(), *classifier.named_buffers()]
    found: dict[str, tuple[object, ...]] = {
        name: (tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version, tensor.dtype)
        for name, tensor in tensors
    }
    for path, layer in classifier.named_modules():
        hooks = (*layer._forward_pre_hooks, *layer._forward_hooks)
        found |= {f"hooks of {path or 'the classifier'}": hooks} if hooks else {}
    return found
