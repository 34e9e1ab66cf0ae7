"""L1: truth. Classifiers whose certified radii are known in closed form or by enumeration."""

from collections.abc import Callable

import torch
from torch import nn

from certifiers.certificate import Guarantee, Norm, ThreatModel
from certifiers.conformance.kit import Level, Subject, Violation, check
from certifiers.conformance.linear_truths import FAMILIES, HALF_SPACES, IN_A_BATCH
from certifiers.conformance.shared_truths import shared_classifier, shared_pair, shared_truth
from certifiers.conformance.trial import Trial
from certifiers.conformance.truth import Truth, linear, linear_layer
from ensembles.aggregation import Aggregation, MaxMargin, WeightedAverage
from ensembles.seeds import derive_seed

#: Enumerated truths are known up to this, relatively: see `enumeration.exact_radii`.
ENUMERATED = 1e-6


def _linear(family: str) -> Callable[[Subject], int]:
    def holds(subject: Subject) -> int:
        trial = Trial(subject)
        for norm in trial.norms(*([] if family in HALF_SPACES else ["linear", family])):
            for turn in range(1 if subject.quick else 3):
                generator = subject.generator("linear", family, norm, turn)
                together = family in IN_A_BATCH
                truth = FAMILIES[family](
                    generator, ThreatModel(norm), batch=3 if together else 1 if subject.quick else 2
                )
                trial.hold(truth, smoothed=family in HALF_SPACES, together=together)
        return trial.finish()

    holds.__doc__ = (
        f"No certificate of a linear model ({family.replace('-', ' ')}) reaches the closed form; complete methods come "
        "near to it."
    )
    return holds


for _family in FAMILIES:
    check(f"linear-{_family}", Level.L1)(_linear(_family))


@check("linear-average", Level.L1)
def linear_averages(subject: Subject) -> int:
    """No certificate of a weighted average of linear models reaches the closed form of their mean."""
    trial = Trial(subject)
    for norm in trial.norms("average"):
        for turn, weights in enumerate([None] if subject.quick else [None, (0.5, 0.25, 0.25)]):
            seed = derive_seed(subject.seed, "linear average", norm, turn)
            average = WeightedAverage(of="logit", weights=weights)
            trial.hold(linear(seed, ThreatModel(norm), average, batch=1 if subject.quick else 2))
    return trial.finish()


def _enumerations(aggregation: Aggregation | None, what: str) -> Callable[[Subject], int]:
    def holds(subject: Subject) -> int:
        trial = Trial(subject)
        for norm in trial.norms("enumerated", what):
            for turn in range(1 if subject.quick else 2):
                seed = derive_seed(subject.seed, "enumerated", turn)
                # A truth that says nothing of the certifier's target need not be worked out.
                if trial.concerns(shared_classifier(seed, aggregation, quick=subject.quick)):
                    trial.hold(shared_truth(seed, norm, aggregation, quick=subject.quick), slack=ENUMERATED)
        return trial.finish()

    holds.__doc__ = (
        f"No certificate of {what} reaches the distance to the nearest other answer, found by enumerating all "
        "activation patterns."
    )
    return holds


check("enumerated-network", Level.L1)(_enumerations(None, "a small ReLU network"))
check("enumerated-average", Level.L1)(_enumerations(WeightedAverage(of="logit"), "an average of ReLU networks"))
check("enumerated-max-margin", Level.L1)(_enumerations(MaxMargin(of="logit"), "a max-margin ensemble of ReLU networks"))


@check("cancelling-members", Level.L1)
def members_that_cancel(subject: Subject) -> int:
    """No certificate of `g + h` and `g - h`, whose mean is the network g, reaches the radius of g."""
    trial = Trial(subject)
    for norm in trial.norms():
        trial.hold(shared_pair(derive_seed(subject.seed, "cancelling"), norm), slack=ENUMERATED)
    return trial.finish()


def _constant(name: str, network: nn.Module, norm: Norm) -> Truth:
    x = torch.full((1, 1, 2, 2), 0.375, dtype=torch.float64)
    with torch.no_grad():
        answer = network(x).argmax(1)
    return Truth(name, network.eval(), x, ThreatModel(norm), answer, torch.tensor([torch.inf], dtype=torch.float64))


def _constants(generator: torch.Generator, norm: Norm) -> list[tuple[Truth, bool, bool]]:
    """Networks that answer alike in the whole box; whether everywhere; whether bounds must see it."""
    weight = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    head = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    bias = torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64)[torch.randperm(3, generator=generator)]
    dead = linear_layer(weight, -1 - weight.abs().sum(1))
    # A projection to nothing: the units that read the input are not read.
    unread = linear_layer(torch.cat([weight[:1], torch.zeros(2, 4, dtype=torch.float64)]), bias.abs())
    outer = head.clone()
    outer[:, 0] = 0
    twins = linear_layer(torch.cat([weight, weight]), torch.zeros(6, dtype=torch.float64))

    def network(*layers: nn.Module) -> nn.Module:
        return nn.Sequential(nn.Flatten(), layers[0], nn.ReLU(), layers[1])

    unread_head = linear_layer(outer, bias - outer @ unread.bias.detach().clamp(min=0))
    opposed = linear_layer(torch.cat([head, -head], dim=1), bias)
    flat = nn.Sequential(nn.Flatten(), linear_layer(torch.zeros(3, 4, dtype=torch.float64), bias))
    return [
        (_constant("no weight", flat, norm), True, True),
        (_constant("dead units", network(dead, linear_layer(head, bias)), norm), False, True),
        (_constant("unread units", network(unread, unread_head), norm), True, True),
        (_constant("twins that cancel", network(twins, opposed), norm), True, False),
    ]


@check("known-robust", Level.L1)
def constant_networks(subject: Subject) -> int:
    """Networks that are constant on the box are certified where bounds can see it, and never falsified."""
    trial = Trial(subject)
    for norm in trial.norms("constant"):
        for truth, everywhere, visible in _constants(subject.generator("constant", norm), norm):
            before = trial.certified
            seen = trial.judged
            trial.hold(truth, smoothed=everywhere)
            # A radius at which bounds fail says nothing against the network.
            trial.hold(truth, smoothed=everywhere, radii=(0.5,))
            by_proof = subject.certifier.guarantee is Guarantee.DETERMINISTIC
            if trial.judged > seen and trial.certified == before and (visible or not by_proof):
                raise Violation(
                    f"{truth.name}, {norm}: a network that is constant on the box is not certified within 0.01: "
                    f"{trial.last} (no radius need exceed threat.box_diameter)",
                    str(truth.classifier),
                )
    return trial.finish()
