"""L3: attacks inside every ball that a certifier certifies of a trained ensemble."""

import copy
from dataclasses import dataclass

from scipy.stats import binom
from torch import Tensor, nn

from certifiers.certificate import ThreatModel, Verdict
from certifiers.conformance.kit import Level, NotApplicable, Subject, Violation, check
from certifiers.conformance.nearest import Effort, Hunt
from certifiers.conformance.smoothed import LEVEL, refute_smoothed
from certifiers.conformance.trained import trained
from certifiers.conformance.voters import Attackable
from ensembles.aggregation import Aggregation, MaxMargin, Single, WeightedAverage
from ensembles.ensemble import Ensemble
from ensembles.seeds import derive_seed


@check("attacks on a single network", Level.L3)
def attacks_on_a_single_network(subject: Subject) -> int:
    """No attack finds another answer inside a certified ball of a trained network."""
    return _attacked(subject, Single(member=1))


@check("attacks on a weighted average of logits", Level.L3)
def attacks_on_a_weighted_average_of_logits(subject: Subject) -> int:
    """No attack finds another answer inside a certified ball of a trained ensemble that averages logits."""
    return _attacked(subject, WeightedAverage(of="logit", weights=(0.5, 0.2, 0.3)))


@check("attacks on a weighted average of confidences", Level.L3)
def attacks_on_a_weighted_average_of_confidences(subject: Subject) -> int:
    """No attack finds another answer inside a certified ball of a trained ensemble that averages confidences."""
    return _attacked(subject, WeightedAverage())


@check("attacks on a max-margin ensemble", Level.L3)
def attacks_on_a_max_margin_ensemble(subject: Subject) -> int:
    """No attack finds another answer inside a certified ball of a trained ensemble of largest margins."""
    return _attacked(subject, MaxMargin())


def _attacked(subject: Subject, aggregation: Aggregation) -> int:
    """How many certificates of an ensemble stood, in every norm of the certifier.

    Deterministic claims are attacked by `Hunt.refute`, smoothed ones by `refute_smoothed`, each in its whole ball.
    Deterministic ones in one norm alone, whose turn it is, where the subject is to be quick.

    Raises:
        Violation: one did not stand, or of smoothed ones more than chance has it.
        NotApplicable: no norm is supported for this aggregation, or what is claimed is about something unknown.
    """
    certifier, count = subject.certifier, 4 if subject.quick else 10
    sigma = getattr(certifier.target(nn.Identity()), "sigma", None)
    # Noise as large as the certifier's, or nothing could be certified and nothing measured.
    made = trained(float(sigma) if sigma is not None else 0.1)
    classifier = Ensemble(copy.deepcopy(made.members), aggregation)
    target = certifier.target(classifier)
    if target is not classifier and not isinstance(target, Attackable):
        raise NotApplicable(f"its certificates are about {type(target).__name__}, which no attack here knows.")
    images = made.chosen(count, subject.generator("attacked images")).tolist()
    x, measured, refusals = made.x[images], 0, []
    false: dict[int, str] = {}
    norms = sorted(certifier.norms)
    if subject.quick and norms and not isinstance(target, Attackable):
        norms = [norms[derive_seed(subject.seed, "turn", aggregation.name) % len(norms)]]
    for threat in map(ThreatModel, norms):
        found = certifier.certify(classifier, x, threat, seed=subject.seed, image_ids=images)
        if bool((found.verdict == int(Verdict.UNSUPPORTED)).all()):
            refusals.append(f"{threat.norm}: {found.reason[0]}")
            continue
        for row in found.certified.nonzero().flatten().tolist():
            claim = _Claim(
                classifier, x[row : row + 1], images[row], int(found.prediction[row]), float(found.radius[row])
            )
            measured += 1
            if told := _smoothed(subject, target, claim, threat) if isinstance(target, Attackable) else "":
                false.setdefault(images[row], told)
            elif not isinstance(target, Attackable):
                _deterministic(subject, claim, threat)
        _more_than_chance(false, count, len(norms) * float(found.failure_probability.max()))
    if not measured and len(refusals) == len(norms):
        raise NotApplicable(" ".join(refusals))
    return measured


@dataclass(frozen=True, eq=False)
class _Claim:
    classifier: Ensemble
    image: Tensor
    image_id: int
    prediction: int
    radius: float

    def told(self, threat: ThreatModel) -> str:
        of = f"held-out digit {self.image_id} under {self.classifier.aggregation}"
        return f"{of}, certified {self.radius:.6g} in {threat.norm} with class {self.prediction}"


def _effort(subject: Subject, claim: _Claim) -> Effort:
    seed = derive_seed(subject.seed, "attack", claim.image_id)
    return Effort(steps=15 if subject.quick else 50, restarts=3 if subject.quick else 8, seed=seed)


def _deterministic(subject: Subject, claim: _Claim, threat: ThreatModel) -> None:
    """Attack a claim about the classifier itself.

    Raises:
        Violation: a replayed counterexample.
    """
    hunt = Hunt(claim.classifier, claim.image, claim.prediction, threat, _effort(subject, claim))
    if hunt.refute(claim.radius) and (witness := hunt.best) is not None:
        raise Violation(
            f"{claim.told(threat)}: the input at distance {witness.distance:.6g} is answered {witness.answer} "
            f"({witness.method}, by {witness.margin:.3g}).",
            f"image {claim.image.flatten().tolist()}\nwitness {witness.point.flatten().tolist()}",
        )


def _smoothed(subject: Subject, target: Attackable, claim: _Claim, threat: ThreatModel) -> str:
    """What refutes a smoothed claim; empty where nothing does."""
    found = refute_smoothed(
        *(target, claim.image, claim.prediction, claim.radius, threat, _effort(subject, claim)),
        samples=20_000 if subject.quick else 100_000,
        image_id=claim.image_id,
    )
    if not found.refuted:
        return ""
    return (
        f"{claim.told(threat)}: at distance {found.distance:.6g} class {found.answer} has {found.votes[1]} votes "
        f"on fresh noise to {found.votes[0]}, p = {found.p_value:.1g}; witness {found.point.flatten().tolist()}"
    )


def _more_than_chance(false: dict[int, str], images: int, failure: float) -> None:
    """Smoothed claims are false with the probability they state; refuse what a correct certifier has once in a million.

    `failure` bounds the probability that an image has a false claim, in any norm.

    Raises:
        Violation: more images have one than that.
    """
    if false and binom.sf(len(false) - 1, images, min(1.0, failure + LEVEL)) < LEVEL:
        raise Violation(
            f"{len(false)} of {images} images have a false smoothed claim; each may with probability {failure:g}.",
            "\n".join(false.values()),
        )
