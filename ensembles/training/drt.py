"""Diversity Regularized Training (DRT): diverse gradients and confident margins of pairs of members."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from ensembles.ensemble import Ensemble
from ensembles.parameters import NonNegativeFloat
from ensembles.training.input_gradients import member_gradients, valid_pairs
from ensembles.training.objective import register
from ensembles.training.smoothadv import NoisyAttack


@register("drt")
@dataclass(frozen=True, kw_only=True)
class DRT(NoisyAttack):
    """`sum_i Lstd_i + rho1 GD + rho2 CM` on noisy inputs (Yang et al., ICLR 2022, section 3, Eq. 9 and 10).

    With `f^{a/b} = f_a - f_b` of softmax confidences, `y_i2` the class other than y that member i likes best,
    a pair i != j *valid* where both answer y on the noisy input, and g_i the input gradient of `f_i^{y/y_i2}`:

        GD_ij = ||g_i + g_j||_2      CM_ij = f_i^{y_i2/y} + f_j^{y_j2/y}

    Invalid pairs add exactly 0. `form` says how pairs are put together, where paper and code differ:

    - `paper`: GD and CM as above, summed over ordered pairs, so that each pair counts twice; mean over the batch.
    - `code`: squared norms, mean over the valid (pair, sample); CM is minus the mean member margin over the
      (member, sample) that are right. That is the one public trainer; the paper's large rho1 fit this form.
    - `overall`: appendix E, Eq. 54 and 55: `||sum_i g_i||_2` and `sum_i f_i^{y_i2/y}`, on samples where all
      members answer y and have the same runner-up; mean over the batch.

    Ablations: `rho2 = 0` is GD only, `rho1 = 0` CM only, `gradients = "norm"` replaces GD by a penalty of gradient
    size alone: `||g_i||_2` (squared in `code`) of every member and sample that is right.

    The defaults rho1 = 0.5 and rho2 = 2 are of the paper's MNIST grid (Table 5); sigma .5 belongs to them.

    Attributes:
        rho1: weight of GD.
        rho2: weight of CM.
        form: `paper`, `code` or `overall`.
        gradients: `pairs`, or `norm` for the ablation.
        base: the loss of each member: cross-entropy on the noisy inputs, or `smoothadv` with the attack's fields.
    """

    name: ClassVar[str] = "drt"
    pairwise: ClassVar[bool] = True

    rho1: NonNegativeFloat = 0.5
    rho2: NonNegativeFloat = 2.0
    form: Literal["paper", "code", "overall"] = "paper"
    gradients: Literal["pairs", "norm"] = "pairs"
    base: Literal["cross-entropy", "smoothadv"] = "cross-entropy"

    def terms(
        self,
        ensemble: Ensemble,
        x: Float[Tensor, "batch *shape"],
        y: Int[Tensor, "batch"],
        generator: torch.Generator,
    ) -> dict[str, Float[Tensor, ""]]:
        """`cross_entropy` or `smoothadv`, `gradient_diversity`, `confidence_margin`."""
        noisy = self.noisy(x, generator)
        logits, gradients = member_gradients(ensemble, noisy, lambda own: _margins(own, y))
        margins = torch.stack([_margins(own, y) for own in logits])
        right = logits.argmax(-1) == y
        if self.base == "smoothadv":
            standard = {"smoothadv": self.adversarial_loss(ensemble, x, y, generator)}
        else:
            standard = {"cross_entropy": torch.stack([cross_entropy(own, y) for own in logits]).sum()}
        diversity, confidence = {"paper": _paper, "code": _code, "overall": _overall}[self.form](
            gradients, margins, right, _runner_up(logits, y)
        )
        if self.gradients == "norm":
            diversity = _gradient_size(gradients, right, squared=self.form == "code")
        return {
            **standard,
            "gradient_diversity": self.rho1 * diversity,
            "confidence_margin": self.rho2 * confidence,
        }


def _runner_up(logits: Float[Tensor, "member batch classes"], y: Int[Tensor, "batch"]) -> Int[Tensor, "member batch"]:
    """The class other than y with the largest logit."""
    true = torch.nn.functional.one_hot(y, logits.shape[-1]).bool()
    return logits.detach().masked_fill(true, -torch.inf).argmax(-1)


def _margins(logits: Float[Tensor, "batch classes"], y: Int[Tensor, "batch"]) -> Float[Tensor, "batch"]:
    """`f^{y/y2}`: the confidence of y less that of the runner-up."""
    confidences = logits.softmax(-1)
    other = _runner_up(logits[None], y)[0]
    return (confidences.gather(1, y[:, None]) - confidences.gather(1, other[:, None]))[:, 0]


Terms = tuple[Float[Tensor, ""], Float[Tensor, ""]]


def _paper(
    gradients: Float[Tensor, "member batch inputs"],
    margins: Float[Tensor, "member batch"],
    right: Bool[Tensor, "member batch"],
    runner_up: Int[Tensor, "member batch"],
) -> Terms:
    first, second = torch.triu_indices(len(gradients), len(gradients), offset=1)
    valid = valid_pairs(right)
    norms = _norms(gradients[first] + gradients[second], valid)
    confidence = torch.where(valid, -margins[first] - margins[second], 0.0)
    return 2 * norms.sum(0).mean(), 2 * confidence.sum(0).mean()


def _code(
    gradients: Float[Tensor, "member batch inputs"],
    margins: Float[Tensor, "member batch"],
    right: Bool[Tensor, "member batch"],
    runner_up: Int[Tensor, "member batch"],
) -> Terms:
    first, second = torch.triu_indices(len(gradients), len(gradients), offset=1)
    valid = valid_pairs(right)
    squares = torch.where(valid, (gradients[first] + gradients[second]).square().sum(-1), 0.0)
    confidence = torch.where(right, -margins, 0.0)
    return squares.sum() / valid.sum().clamp(min=1), confidence.sum() / right.sum().clamp(min=1)


def _overall(
    gradients: Float[Tensor, "member batch inputs"],
    margins: Float[Tensor, "member batch"],
    right: Bool[Tensor, "member batch"],
    runner_up: Int[Tensor, "member batch"],
) -> Terms:
    valid = right.all(0) & (runner_up == runner_up[0]).all(0)
    norms = _norms(gradients.sum(0), valid)
    return norms.mean(), torch.where(valid, -margins.sum(0), 0.0).mean()


def _gradient_size(
    gradients: Float[Tensor, "member batch inputs"], right: Bool[Tensor, "member batch"], *, squared: bool
) -> Float[Tensor, ""]:
    if squared:
        return torch.where(right, gradients.square().sum(-1), 0.0).sum() / right.sum().clamp(min=1)
    return _norms(gradients, right).sum(0).mean()


def _norms(vectors: Float[Tensor, "*some inputs"], wanted: Bool[Tensor, "*some"]) -> Float[Tensor, "*some"]:
    """The l2 norms where wanted, elsewhere 0 with gradient 0 (a masked norm could still divide 0 by 0)."""
    norms: Tensor = torch.linalg.vector_norm(torch.where(wanted[..., None], vectors, 0.0), dim=-1)
    return norms
