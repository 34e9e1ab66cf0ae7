"""L1: symmetries. Changes of a classifier that change no answer must not change what is certified."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from certifiers.certificate import Certificates, Guarantee, Norm, ThreatModel, Verdict
from certifiers.conformance.kit import Level, NotApplicable, Subject, Violation, check
from certifiers.conformance.linear_truths import several_classes
from certifiers.conformance.probes import norms_of
from certifiers.conformance.shared_truths import shared_truth
from certifiers.conformance.trial import Trial
from certifiers.conformance.truth import Truth
from certifiers.conformance.truth_checks import ENUMERATED
from ensembles.aggregation import Aggregation, MaxMargin, WeightedAverage
from ensembles.ensemble import Ensemble
from ensembles.seeds import derive_seed

#: Between the radii that are asked for. Answers that differ by one step are alike: bounds are rounded, solvers stop.
STEP = 1.15
#: What is asked of a true radius.
_SHARES = tuple(1.1 * STEP**-power for power in range(12))

#: From a truth and a generator to the same truth in another form, and where the answers went.
Change = Callable[[Truth, torch.Generator], Truth]


def _bases(subject: Subject, norm: Norm) -> list[Truth]:
    """A linear model and a network."""
    seed = derive_seed(subject.seed, "symmetry")
    model = several_classes(subject.generator("symmetry"), ThreatModel(norm), batch=1)
    network = shared_truth(seed, norm, None, quick=subject.quick)
    return [model, replace(network, x=network.x[:1], prediction=network.prediction[:1], radius=network.radius[:1])]


def _pairs(subject: Subject, norm: Norm) -> list[Truth]:
    """Ensembles of two networks."""
    kinds: list[Aggregation] = [WeightedAverage(of="logit"), MaxMargin(of="logit")]
    found = [shared_truth(derive_seed(subject.seed, "symmetry"), norm, kind, quick=subject.quick) for kind in kinds]
    return [replace(one, x=one.x[:1], prediction=one.prediction[:1], radius=one.radius[:1]) for one in found]


def _layers(truth: Truth) -> list[nn.Linear]:
    return [layer for layer in truth.classifier.modules() if isinstance(layer, nn.Linear)]


def _copied(truth: Truth, name: str) -> Truth:
    return replace(truth, name=f"{truth.name}, {name}", classifier=copy.deepcopy(truth.classifier))


@torch.no_grad()
def scaled(truth: Truth, generator: torch.Generator) -> Truth:
    """All logits eight times as large."""
    found = _copied(truth, "logits scaled by 8")
    last = _layers(found)[-1]
    last.weight.mul_(8)
    last.bias.mul_(8)
    return found


@torch.no_grad()
def shifted(truth: Truth, generator: torch.Generator) -> Truth:
    """All logits larger by three."""
    found = _copied(truth, "logits shifted by 3")
    _layers(found)[-1].bias.add_(3)
    return found


@torch.no_grad()
def classes_permuted(truth: Truth, generator: torch.Generator) -> Truth:
    """Classes in another order: each moved by one."""
    found = _copied(truth, "classes permuted")
    last = _layers(found)[-1]
    last.weight.copy_(last.weight.roll(1, dims=0))
    last.bias.copy_(last.bias.roll(1))
    return replace(found, prediction=(truth.prediction + 1) % len(last.bias))


@torch.no_grad()
def pixels_permuted(truth: Truth, generator: torch.Generator) -> Truth:
    """Inputs in another order, and the columns of the first layer."""
    found = _copied(truth, "pixels permuted")
    first = _layers(found)[0]
    order = torch.arange(first.in_features).roll(1)
    first.weight.copy_(first.weight[:, order])
    return replace(found, x=truth.x.flatten(1)[:, order].reshape(truth.x.shape))


def members_permuted(truth: Truth, generator: torch.Generator) -> Truth:
    """Members in another order."""
    assert isinstance(truth.classifier, Ensemble)  # noqa: S101
    other = Ensemble(
        [copy.deepcopy(member) for member in reversed(truth.classifier.members)], truth.classifier.aggregation
    )
    return replace(truth, name=f"{truth.name}, members permuted", classifier=other.eval())


def averaged_with_itself(truth: Truth, generator: torch.Generator) -> Truth:
    """The average of two copies."""
    twins = [copy.deepcopy(truth.classifier) for _ in range(2)]
    return replace(
        truth,
        name=f"{truth.name}, averaged with itself",
        classifier=Ensemble(twins, WeightedAverage(of="logit")).eval(),
    )


def against_itself(truth: Truth, generator: torch.Generator) -> Truth:
    """The max-margin ensemble of two copies."""
    twins = [copy.deepcopy(truth.classifier) for _ in range(2)]
    return replace(
        truth, name=f"{truth.name}, against itself", classifier=Ensemble(twins, MaxMargin(of="logit")).eval()
    )


def alone_in_an_ensemble(truth: Truth, generator: torch.Generator) -> Truth:
    """The only member of an ensemble."""
    alone = Ensemble([copy.deepcopy(truth.classifier)], WeightedAverage(of="logit")).eval()
    return replace(truth, name=f"{truth.name}, alone in an ensemble", classifier=alone)


def _symmetry(
    change: Change, bases: Callable[[Subject, Norm], list[Truth]], *, pixels: bool
) -> Callable[[Subject], int]:
    def holds(subject: Subject) -> int:
        if pixels and subject.certifier.guarantee is not Guarantee.DETERMINISTIC:
            raise NotApplicable("its noise is not permuted with the pixels")
        trial = Trial(subject)
        compared = 0
        for norm in norms_of(subject, change.__name__):
            for base in bases(subject, norm):
                other = change(base, subject.generator("symmetry"))
                before, after = _asked(trial, base), _asked(trial, other)
                if before is None or after is None:
                    continue
                _compare(base, other, before, after)
                compared += len(after)
        return compared or trial.finish()

    holds.__doc__ = (
        f"What is certified stays the same, within a factor of {STEP}, and true: {(change.__doc__ or '').lower()}"
    )
    return holds


def _asked(trial: Trial, truth: Truth) -> Certificates | None:
    """The answer, held against the truth where it is that of the target; None: unsupported."""
    exact = float(truth.radius[0])
    radii = sorted(share * exact for share in _SHARES) if 0 < exact < math.inf else [0.01, 0.1]
    (found,) = trial.ask(truth, [0], radii)
    if bool((found.verdict == int(Verdict.UNSUPPORTED)).any()):
        trial.reasons.append(f"unsupported: {found.reason[0]}")
        return None
    if trial.subject.certifier.target(truth.classifier) is truth.classifier:
        trial.judge(truth, 0, radii, found, ENUMERATED, complete=True)
    return found


def _compare(base: Truth, other: Truth, before: Certificates, after: Certificates) -> None:
    first, second = before.radius, after.radius
    # Two certificates may differ by a step, and where one is missing the other may be of the smallest radius asked.
    least = min(_SHARES) * float(base.radius[0]) if math.isfinite(float(base.radius[0])) else 0.01
    ratio = first.clamp(min=least / STEP) / second.clamp(min=least / STEP)
    if bool(((ratio > STEP * 1.01) | (ratio < 1 / (STEP * 1.01))).any()):
        raise Violation(
            f"{other.name}, {base.threat.norm}: certified are {second.tolist()}, and without that {first.tolist()}",
            f"x = {other.x.tolist()}\n{base.classifier}\n{other.classifier}",
        )


for _change, _of in [
    (scaled, _bases),
    (shifted, _bases),
    (classes_permuted, _bases),
    (pixels_permuted, _bases),
    (members_permuted, _pairs),
    (averaged_with_itself, _bases),
    (against_itself, _bases),
    (alone_in_an_ensemble, _bases),
]:
    check(f"symmetry-{_change.__name__.replace('_', '-')}", Level.L1)(
        _symmetry(_change, _of, pixels=_change is pixels_permuted)
    )


def implied(norm: Norm, other: Norm, dimensions: int) -> float:
    """The largest factor such that the ball of `factor * r` in `other` lies in the ball of r in `norm`."""
    power = {Norm.L1: 1.0, Norm.L2: 0.5, Norm.LINF: 0.0}
    return float(dimensions ** min(0.0, power[other] - power[norm]))


@check("norms-agree", Level.L1)
def norms_agree(subject: Subject) -> int:
    """A radius r in l2 says r / sqrt(d) in linf, and so on: what one norm certifies is true in all, refuted in none."""
    trial = Trial(subject)
    judged = 0
    for norm in trial.norms("agree"):
        truths = zip(*[_bases(subject, each) for each in Norm], strict=True)
        for kinds in truths:
            by_norm = {truth.threat.norm: truth for truth in kinds}
            own = by_norm[norm]
            if subject.certifier.target(own.classifier) is not own.classifier:
                trial.reasons.append("what is known is not true of its target")
                continue
            found = _asked(trial, own)
            if found is None or not bool(found.certified.all()):
                continue
            for other, truth in by_norm.items():
                radius = float(found.radius[0]) * implied(norm, other, truth.x[0].numel())
                if radius > float(truth.radius[0]) * (1 + ENUMERATED):
                    raise Violation(
                        f"{own.name}: {float(found.radius[0])!r} in {norm} is {radius!r} in {other}, where "
                        f"{float(truth.radius[0])!r} is true",
                        f"x = {own.x.tolist()}\n{own.classifier}",
                    )
                judged += 1
                if other in subject.certifier.norms and other is not norm:
                    (answer,) = trial.ask(truth, [0], [0.99 * radius])
                    if bool((answer.verdict == int(Verdict.FALSIFIED)).any()):
                        raise Violation(f"{own.name}: certified {radius!r} in {norm}, and falsified in {other}")
    return judged or trial.finish()
