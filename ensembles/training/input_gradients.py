"""Input gradients of all members, a sample at a time, from one place and one backward pass."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from ensembles.ensemble import Ensemble, stack_logits

#: From the logits of one member to the number of each sample whose input gradient is wanted.
Scalar = Callable[[Tensor], Tensor]


def member_gradients(
    ensemble: Ensemble,
    x: Float[Tensor, "batch *shape"],
    scalar: Scalar,
) -> tuple[Float[Tensor, "member batch classes"], Float[Tensor, "member batch inputs"]]:
    """The members' logits at x, and the flattened gradients of `scalar` with respect to each sample of x.

    Sample b's gradient is that of its own number, since no sample's logits depend on another's inputs (true of
    layers without batch statistics; batch-norm in train mode couples samples, and its gradients are those of
    the coupled loss). The gradients keep their graph, so that a loss on them costs one double backward for all
    members together.
    """
    copies = [x.detach().clone().requires_grad_() for _ in ensemble.members]
    logits = stack_logits([member(own) for member, own in zip(ensemble.members, copies, strict=True)])
    numbers = torch.stack([scalar(own) for own in logits])
    gradients = torch.autograd.grad(numbers.sum(), copies, create_graph=True)
    return logits, torch.stack([gradient.flatten(1) for gradient in gradients])


def cross_entropy_of(y: Int[Tensor, "batch"]) -> Scalar:
    """The cross-entropy of each sample, as a scalar for `member_gradients`."""
    return lambda logits: cross_entropy(logits, y, reduction="none")


def pairwise_cosines(gradients: Float[Tensor, "member batch inputs"]) -> Float[Tensor, "pairs batch"]:
    """`cos(g_i, g_j)` for i < j, a sample at a time; 0 where a gradient vanishes."""
    first, second = torch.triu_indices(len(gradients), len(gradients), offset=1)
    return torch.nn.functional.cosine_similarity(gradients[first], gradients[second], dim=-1, eps=1e-12)


def valid_pairs(right: Bool[Tensor, "member batch"]) -> Bool[Tensor, "pairs batch"]:
    """Whether both members of each pair i < j answer a sample rightly."""
    first, second = torch.triu_indices(len(right), len(right), offset=1)
    return right[first] & right[second]
