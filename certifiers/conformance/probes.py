"""Ordinary classifiers, of which nothing is known but what every answer must look like."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from certifiers.certificate import Certificates, Norm, ThreatModel, Verdict
from certifiers.certifier import RadiusCertifier
from certifiers.conformance.kit import NotApplicable, Subject
from certifiers.conformance.truth import linear_layer
from certifiers.randomness import KeyedRandomness
from ensembles.aggregation import MaxMargin, WeightedAverage
from ensembles.ensemble import Ensemble
from ensembles.seeds import derive_seed

#: Of the images: channels, height, width.
SHAPE = (1, 2, 2)
#: The radii that are asked for.
RADII = (0.001, 0.01, 0.1)
#: The same where small differences matter.
FINE_RADII = tuple(0.004 * 1.75**power for power in range(7))
INPUTS, CLASSES = 4, 3


@dataclass(frozen=True, eq=False)
class Probe:
    """A classifier and images.

    Attributes:
        name: of its kind.
        classifier: in float32, in train mode, with gradients wanted: as a careless caller would give it.
        x: the images.
    """

    name: str
    classifier: nn.Module
    x: Float32[Tensor, "batch *shape"]


@dataclass(frozen=True, kw_only=True)
class Inert(RadiusCertifier):
    """Certifies nothing and touches nothing: what asking alone does."""

    norms: ClassVar[frozenset[Norm]] = frozenset(Norm)

    def radii(
        self, classifier: nn.Module, x: Float[Tensor, "batch *shape"], threat: ThreatModel, rng: KeyedRandomness
    ) -> Float[Tensor, "batch"]:
        """Zeros."""
        return torch.zeros(len(x))


class Answer(NamedTuple):
    """A probe, the norm it was asked in, and what was answered."""

    probe: Probe
    threat: ThreatModel
    found: Certificates


def probes(subject: Subject, batch: int = 4) -> list[Probe]:
    """A linear model, a network, and ensembles of two networks."""
    generator = subject.generator("probes")

    def network(hidden: bool) -> nn.Module:
        """A network with logits of mean zero over the box."""
        layers: list[nn.Module] = [nn.Flatten()]
        if hidden:
            layers += [_layer(INPUTS, 3, generator), nn.ReLU()]
        head = _layer(3 if hidden else INPUTS, CLASSES, generator)
        found = nn.Sequential(*layers, head)
        # No class wins everywhere: images differ in their answers and radii.
        with torch.no_grad():
            head.bias.sub_(found(torch.rand(64, *SHAPE, generator=generator)).mean(0))
        return found.train()

    members = [network(hidden=True), network(hidden=True)]
    found: dict[str, nn.Module] = {
        "linear": network(hidden=False),
        "network": network(hidden=True),
        "average of logits": Ensemble(members, WeightedAverage(of="logit")),
        "max-margin of logits": Ensemble(members, MaxMargin(of="logit")),
        "average of confidences": Ensemble(members, WeightedAverage(of="confidence")),
    }
    kept = ("linear", "network", "max-margin of logits") if subject.quick else tuple(found)
    # Multiples of 1/256, as images are of 1/255: some certifiers are for such inputs alone.
    x = (torch.rand(batch, *SHAPE, generator=generator) * 256).round() / 256
    return [Probe(name, found[name].train(), x.clone()) for name in kept]


def near_boundary() -> Probe:
    """Two classes, and an image at the l2 distance 1/16 from their boundary: under noise no vote is unanimous."""
    weight = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.5, 0.5]])
    classifier = nn.Sequential(nn.Flatten(), linear_layer(weight, torch.tensor([0.0, -1.0 - 1 / 16])))
    return Probe("near a boundary", classifier.train(), torch.full((1, *SHAPE), 0.5))


def norms_of(subject: Subject, *turn: str) -> list[Norm]:
    """The norms that it declares; where it must be quick, one of them: whose turn it is in the check of these words."""
    declared = sorted(subject.certifier.norms)
    if not (declared and subject.quick):
        return declared
    return [declared[derive_seed(subject.seed, "turn", *turn) % len(declared)]]


def answered(
    subject: Subject,
    question: Callable[[Probe, ThreatModel], Certificates] | None = None,
    norms: list[Norm] | None = None,
) -> Iterator[Answer]:
    """The answers on each probe in each norm, those left out that are UNSUPPORTED.

    Args:
        subject: whom to ask.
        question: how; None: the ordinary question.
        norms: in which norms; None: those of `norms_of`.

    Raises:
        NotApplicable: all of them are.
    """
    reason, some = "it declares no norm", False
    asked = probes(subject)
    for norm in norms_of(subject) if norms is None else norms:
        for probe in asked:
            threat = ThreatModel(norm)
            found = ask(subject, probe, threat) if question is None else question(probe, threat)
            if bool((found.verdict == int(Verdict.UNSUPPORTED)).all()):
                reason = f"unsupported: {found.reason[0]}"
                continue
            some = True
            yield Answer(probe, threat, found)
    if not some:
        raise NotApplicable(reason)


def ids_of(count: int) -> list[int]:
    """Image ids that are not row numbers."""
    return [11 + 7 * row for row in range(count)]


def ask(subject: Subject, probe: Probe, threat: ThreatModel, radii: tuple[float, ...] = RADII) -> Certificates:
    """The answers to the ordinary question."""
    return subject.certifier.certify(
        probe.classifier,
        probe.x,
        threat,
        radii=radii,
        seed=subject.seed,
        image_ids=ids_of(len(probe.x)),
    )


def _layer(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    weight = torch.randn(outputs, inputs, generator=generator)
    return linear_layer(weight, torch.randn(outputs, generator=generator))
