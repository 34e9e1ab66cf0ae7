"""What attacks climb: scores of one classifier seen in several ways, and losses of them."""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ensembles.aggregation import Aggregation, MaxMargin, WeightedAverage
from ensembles.ensemble import Ensemble, members_of
from ensembles.voting import MajorityVote

#: What an attack climbs: from the members' outputs (or the classifier's) to one score a class.
Objective = Callable[[Float[Tensor, "member batch classes"]], Float[Tensor, "batch classes"]]

#: The losses of `losses`, and after them one for each other class in the order of the scores.
MARGIN, CROSS_ENTROPY, LOGIT_RATIO, TOWARDS = 0, 1, 2, 3


def aggregation_of(classifier: nn.Module) -> Aggregation | None:
    """The aggregation of an ensemble; None for any other module, which is a member on its own."""
    opened = members_of(classifier) != [classifier] and isinstance(classifier, Ensemble)
    return classifier.aggregation if opened and isinstance(classifier, Ensemble) else None


def scores_of(classifier: nn.Module) -> Objective:
    """From members' outputs to the classifier's own scores."""
    aggregation = aggregation_of(classifier)
    return (lambda outputs: outputs[0]) if aggregation is None else aggregation.scores


def logits_of(classifier: nn.Module) -> Objective:
    """From members' outputs to scores of which the largest is the classifier's answer, and whose gradients last.

    Confidences that are nearly 0 or 1 have no gradients; their logarithms do. A weighted average of confidences becomes
    `log sum_i w_i f_i`. The scores of a max-margin ensemble jump where another member decides; the largest gap by which
    a member answers each class does not, and the class of the largest of these is the answer. Votes have no gradients,
    and what has their answer everywhere has none either: for a majority vote the mean logarithm of the confidences is
    climbed, whose answer may be another.
    """
    aggregation = aggregation_of(classifier)
    if isinstance(aggregation, MaxMargin):
        return lambda outputs: _largest_gaps(aggregation, outputs)
    if isinstance(aggregation, WeightedAverage) and aggregation.of == "confidence":
        return lambda outputs: _log_average(aggregation, outputs)
    if isinstance(aggregation, MajorityVote):
        return lambda outputs: outputs.log_softmax(-1).mean(0)
    return scores_of(classifier)


def views(classifier: nn.Module) -> Iterator[tuple[str, Objective]]:
    """What to climb in turn, by name: the classifier itself, and then every member alone, to transfer from."""
    yield "the classifier", logits_of(classifier)
    members = len(members_of(classifier))
    if members > 1:
        if aggregation_of(classifier) != WeightedAverage(of="logit"):
            yield "the mean of the logits", lambda outputs: outputs.mean(0)
        for member in range(members):
            yield f"member {member + 1}", lambda outputs, member=member: outputs[member]  # type: ignore[misc]


def margin(scores: Float[Tensor, "batch classes"], prediction: Int64[Tensor, "batch"]) -> Float[Tensor, "batch"]:
    """`max over j != y of s_j - s_y`: above zero where another class wins; -infinite where scores are not finite."""
    own = scores.gather(1, prediction[:, None])
    best = scores.scatter(1, prediction[:, None], -torch.inf).amax(1)
    return torch.where(torch.isfinite(scores).all(1), best - own[:, 0], -torch.inf)


def losses(
    scores: Float[Tensor, "batch classes"],
    prediction: Int64[Tensor, "batch"],
    kind: Int64[Tensor, "batch"],
    order: Int64[Tensor, "batch others"],
) -> Float[Tensor, "batch"]:
    """The loss of each row, of the kind asked for, to be increased.

        MARGIN          max_{j != y} s_j - s_y
        CROSS_ENTROPY   log sum_j exp s_j - s_y
        LOGIT_RATIO     (max_{j != y} s_j - s_y) / (s_(1) - s_(3)), of fewer than three classes the margin
        TOWARDS + k     s_j - s_y for the k-th other class j of `order`

    Source: Croce & Hein, ICML 2020 (the difference of logits ratio, Eq. 6).
    """
    own = scores.gather(1, prediction[:, None])[:, 0]
    gap = scores.scatter(1, prediction[:, None], -torch.inf).amax(1) - own
    found = torch.where(kind == CROSS_ENTROPY, scores.logsumexp(1) - own, gap)
    if scores.shape[1] > 2:
        top = scores.topk(3, dim=1).values
        found = torch.where(kind == LOGIT_RATIO, gap / (top[:, 0] - top[:, 2] + 1e-12), found)
    target = order.gather(1, ((kind - TOWARDS).clamp(min=0) % order.shape[1])[:, None])
    return torch.where(kind >= TOWARDS, scores.gather(1, target)[:, 0] - own, found)


def other_classes(
    scores: Float[Tensor, "batch classes"], prediction: Int64[Tensor, "batch"]
) -> Int64[Tensor, "batch others"]:
    """All classes but the prediction, the one with the largest score first."""
    without = scores.scatter(1, prediction[:, None], -torch.inf)
    return without.argsort(dim=1, descending=True, stable=True)[:, :-1]


def _largest_gaps(aggregation: MaxMargin, outputs: Tensor) -> Tensor:
    """`max_k g_k(c)` of the gaps `g_k(c) = o_k(c) - max_{l != c} o_k(l)`; of confidences `max_k -log(1 - g_k(c))`."""
    logs = outputs.log_softmax(-1) if aggregation.of == "confidence" else outputs
    top = logs.topk(2, dim=-1)
    first = top.indices[..., :1]
    # The best of the others is the second where c is the first, and else the first.
    others = top.values[..., :1].expand_as(logs).scatter(-1, first, top.values[..., 1:])
    if aggregation.of == "logit":
        return (logs - others).amax(0)
    # 1 - g = sum_{l != c} p_l + max_{l != c} p_l, from small numbers where c is the first and p_c nearly 1.
    rest = torch.log1p(-logs.exp().clamp(max=1 - 1e-12))
    rest = rest.scatter(-1, first, logs.scatter(-1, first, -torch.inf).logsumexp(-1, keepdim=True))
    return (-torch.logaddexp(rest, others)).amax(0)


def _log_average(aggregation: WeightedAverage, outputs: Tensor) -> Tensor:
    weights = torch.tensor(
        aggregation.used_weights or (1.0,) * len(outputs), dtype=outputs.dtype, device=outputs.device
    )
    shares = (weights / weights.sum()).log()
    return (outputs.log_softmax(-1) + shares[:, None, None]).logsumexp(0)
