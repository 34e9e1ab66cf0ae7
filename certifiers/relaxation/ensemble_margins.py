"""Verdicts of ensembles from bounds on their members: what a relaxation proves of a classifier's margins."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from certifiers.certificate import Unsupported
from certifiers.networks import Network, Prepared
from certifiers.relaxation.relaxation import Bounds
from ensembles.aggregation import MaxMargin, Single, WeightedAverage

#: Units of rounding that the arithmetic of this file gives away; its sums are over classes and members.
_SLACK = 256 * torch.finfo(torch.float64).eps


def ensemble_margins(
    prepared: Prepared, bounds: Bounds, prediction: Int64[Tensor, "batch"]
) -> Float[Tensor, "batch classes"]:
    """Lower bounds on `score[prediction] - score[j]` of a classifier over the ball of `bounds`, for all j.

    The column of the prediction is infinite. For a max-margin ensemble, whose scores jump, all columns are one number
    that is positive only if the ensemble keeps its answer.

    Raises:
        Unsupported: a layer or the aggregation has no bounds here.
    """
    networks, aggregation = prepared.networks, prepared.aggregation
    classes = networks[0].shapes[-1][0]
    if aggregation is None or type(aggregation) is Single:
        margins = bounds.lower(networks[:1], [pairs(prediction, classes)])
    elif type(aggregation) is WeightedAverage:
        weights = normalized(aggregation, len(networks))
        if aggregation.of == "logit":
            margins = bounds.lower(networks, [weight * pairs(prediction, classes) for weight in weights])
        else:
            own = member_margins(networks, bounds, prediction, classes)
            margins = torch.einsum("m,mbc->bc", weights, confidence_margins(own, prediction))
            margins = margins - _SLACK
    elif type(aggregation) is MaxMargin:
        own = member_margins(networks, bounds, prediction, classes)
        gaps = own if aggregation.of == "logit" else confidence_margins(own, prediction)
        margins = max_margin(gaps, prediction)
        if aggregation.of == "logit" and len(networks) > 1 and bool((margins <= 0).any()):
            margins = torch.fmax(margins, joint_max_margin(networks, bounds, prediction, classes))
        margins = (margins - _SLACK)[:, None].expand(-1, classes)
    else:
        raise Unsupported(
            f"the aggregation {aggregation.name!r} has no bounds here; known are single, weighted-average and "
            "max-margin. Smoothing certifies any ensemble."
        )
    return margins.double().scatter(1, prediction[:, None].to(margins.device), torch.inf)


def pairs(prediction: Int64[Tensor, "batch"], classes: int) -> Float[Tensor, "batch rows classes"]:
    """The specification `z_y - z_j` for all j, in row j."""
    own = functional.one_hot(prediction, classes).double()
    return own[:, None, :] - torch.eye(classes, dtype=torch.float64, device=prediction.device)


def normalized(aggregation: WeightedAverage, members: int) -> Float[Tensor, "member"]:
    """The weights of a weighted average, summing to one."""
    given = torch.tensor(aggregation.used_weights or (1.0,) * members, dtype=torch.float64)
    return given / given.sum()


def member_margins(
    networks: tuple[Network, ...], bounds: Bounds, prediction: Int64[Tensor, "batch"], classes: int
) -> Float[Tensor, "member batch classes"]:
    """Lower bounds on each member's own `z_y - z_j`; infinite in the column of y."""
    specification = pairs(prediction, classes)
    own = torch.stack([bounds.lower([network], [specification]) for network in networks]).double()
    return own.scatter(2, prediction[None, :, None].expand(len(networks), -1, -1).to(own.device), torch.inf)


def confidence_margins(
    margins: Float[Tensor, "member batch classes"], prediction: Int64[Tensor, "batch"]
) -> Float[Tensor, "member batch classes"]:
    """Lower bounds on `f_y - f_j` of softmax confidences f from lower bounds m on `z_y - z_j`.

    With `d_k = z_y - z_k >= m_k`: `f_y - f_j = (1 - e^-d_j) / (1 + e^-d_j + S)`, S the sum of `e^-d_k` over the other
    k. It falls in `e^-d_j`; in S it falls where its numerator is positive, and else rises, from S = 0. So its least
    value is

        (1 - e^-m_j) / (1 + sum_k e^-m_k)   where m_j >= 0,      -tanh(-m_j / 2)   elsewhere.

    Column y is infinite, as in `margins`.
    """
    ratios = torch.exp(-margins)  # 0 in column y; infinite for hopeless members, whose margin is then -1
    positive = -torch.expm1(-margins) / (1 + ratios.sum(-1, keepdim=True))
    found = torch.where(margins >= 0, positive, torch.tanh(margins / 2))
    column = prediction[None, :, None].expand(len(margins), -1, -1).to(margins.device)
    return found.scatter(2, column, torch.inf)


def max_margin(
    gaps: Float[Tensor, "member batch classes"], prediction: Int64[Tensor, "batch"]
) -> Float[Tensor, "batch"]:
    """Positive only if a max-margin ensemble keeps its answer: `max_i min_j g_ij + min_i min_j g_ij`.

    Yang et al., ICLR 2022, Lemma B.1, with lower bounds g on the gaps `f_i^{y/j}`: the surest member outvotes all.
    """
    least = gaps.amin(-1)
    return least.amax(0) + least.amin(0) if len(gaps) > 1 else least[0]


def joint_max_margin(
    networks: tuple[Network, ...], bounds: Bounds, prediction: Int64[Tensor, "batch"], classes: int
) -> Float[Tensor, "batch"]:
    """The same for gaps of logits, bounded jointly.

    For some member i, over all k != i and l, j != y: `z_i[y] - z_i[l] + z_k[y] - z_k[j] > 0`. Where i's own gap is
    positive, a wrong k is outvoted by i; where it is not, every other k answers y with a larger gap.
    """
    members = len(networks)
    others = torch.arange(classes - 1, device=prediction.device).expand(len(prediction), -1)
    others = others + (others >= prediction[:, None])
    rows = pairs(prediction, classes).gather(1, others[:, :, None].expand(-1, -1, classes))  # rows j != y
    couples = [(i, k) for i in range(members) for k in range(members) if k != i]
    least = bounds.sums(networks, rows, couples).double().flatten(2).amin(-1)
    return least.reshape(members, members - 1, -1).amin(1).amax(0)
