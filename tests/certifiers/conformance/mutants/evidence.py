"""Mutants that take for a proof what is only evidence: attacks, samples, the gradient at the image."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from certifiers import (
    DecisionCertifier,
    KeyedRandomness,
    Norm,
    RadiusCertifier,
    ThreatModel,
)
from certifiers.conformance import attack


@dataclass(frozen=True, kw_only=True)
class AttackIsProof(DecisionCertifier):
    """Certifies what an attack does not refute."""

    norms: ClassVar[frozenset[Norm]] = frozenset(Norm)

    def margins(
        self,
        classifier: nn.Module,
        x: Tensor,
        prediction: Tensor,
        radius: Tensor,
        threat: ThreatModel,
        rng: KeyedRandomness,
    ) -> Tensor:
        found = attack(classifier, x, prediction, radius, threat, steps=20, restarts=3).found
        classes = classifier(x).shape[1]
        return torch.where(found, -1.0, 1.0)[:, None].expand(len(x), classes)


@dataclass(frozen=True, kw_only=True)
class SamplingIsProof(DecisionCertifier):
    """Certifies what a thousand random inputs do not refute."""

    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.LINF})

    def margins(
        self,
        classifier: nn.Module,
        x: Tensor,
        prediction: Tensor,
        radius: Tensor,
        threat: ThreatModel,
        rng: KeyedRandomness,
    ) -> Tensor:
        found = []
        for row in range(len(x)):
            noise = 2 * torch.rand((1000, *x.shape[1:]), generator=rng.generator(row), dtype=x.dtype) - 1
            scores = classifier((x[row] + radius[row].to(x.dtype) * noise).clamp(0, 1))
            found.append((scores[:, prediction[row], None] - scores).amin(0))
        return torch.stack(found)


@dataclass(frozen=True, kw_only=True)
class GradientAtTheImage(RadiusCertifier):
    """The margin over the norm of its gradient at the image, as if it were linear."""

    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L2})

    def radii(self, classifier: nn.Module, x: Tensor, threat: ThreatModel, rng: KeyedRandomness) -> Tensor:
        with torch.enable_grad():
            images = x.clone().requires_grad_()
            top = classifier(images).topk(2).values
            gaps = top[:, 0] - top[:, 1]
            (gradient,) = torch.autograd.grad(gaps.sum(), images)
        constant = gradient.flatten(1).norm(dim=1).clamp(min=1e-12)
        return (gaps.detach() / constant).clamp(max=threat.box_diameter(x[0].numel()))


#: Each mutant, and the check that catches it.
CAUGHT_BY: dict[type[Any], str] = {
    AttackIsProof: "needle",
    SamplingIsProof: "corner",
    GradientAtTheImage: "corner",
}
