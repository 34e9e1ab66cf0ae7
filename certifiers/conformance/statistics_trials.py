"""Trials of probabilistic certifiers: what they claim is set small and repeated, and false claims are counted."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from scipy.stats import binom
from torch import Tensor, nn

from certifiers.certificate import Certificates, Guarantee, Norm, ThreatModel
from certifiers.certifier import Certifier
from certifiers.conformance.kit import NotApplicable, Subject, Violation
from certifiers.conformance.noise_laws import Gaussian, Law, law_of
from certifiers.conformance.smoothed_truth import CENTER, Recorder, Slabs
from ensembles.parameters import ParameterError
from ensembles.seeds import derive_seed

#: The failure probability that is asked for: large, so that few trials tell.
ALPHA = 0.05

#: A certifier that keeps its promise fails a calibration with at most this probability.
FALSE_ALARM = 1e-4

#: Samples an image in trials. Counts are whole, so that the least that certifies a probability of 1/2 does so by chance
#: with probability below alpha; for this n and for 2 n it is .0490 and .0496 of .05, for many others .035.
SAMPLES = 177

#: The shape of images of trials.
SHAPE = (3,)

#: Images a call.
_BATCH = 100


@dataclass(frozen=True)
class Sampler:
    """A probabilistic certifier whose claims are about smoothing by noise of a known law, and a norm it certifies."""

    certifier: Certifier
    sigma: float
    norm: Norm
    seed: int
    law: Law = field(default_factory=Gaussian)

    def certify(self, classifier: nn.Module, x: Tensor, *words: str | int, first: int = 0) -> Certificates:
        """Certificates under a seed of the words' own; image ids count from `first`."""
        return self.certifier.certify(
            classifier,
            x,
            ThreatModel(self.norm),
            seed=derive_seed(self.seed, *words),
            image_ids=range(first, first + len(x)),
        )


def sampler_of(subject: Subject, norm: Norm | None = None, **settings: float | int) -> Sampler:
    """The subject with some of its hyper-parameters set.

    Raises:
        NotApplicable: it is deterministic, smooths otherwise, or cannot be set so.
    """
    certifier = subject.certifier
    if certifier.guarantee is not Guarantee.PROBABILISTIC:
        raise NotApplicable("its certificates are proofs: there is no failure probability to measure")
    fields = {item.name for item in dataclasses.fields(certifier) if item.init}
    if missing := sorted(settings.keys() - fields - {"n0"}):
        raise NotApplicable(f"it has no parameter {missing[0]!r} that could be set small enough for many trials")
    try:
        certifier = dataclasses.replace(certifier, **{name: settings[name] for name in settings if name in fields})
    except ParameterError as error:
        raise NotApplicable(f"it refuses the settings of the trials: {error}") from error
    target = certifier.target(nn.Identity())
    law = law_of(target)
    if law is None:
        raise NotApplicable(
            f"it certifies a {type(target).__name__}, whose probabilities are not known here; known are `Smoothed` and "
            "`SmoothedBy` of `certifiers.smoothing`"
        )
    chosen = norm or next((own for own in (Norm.L2, Norm.L1, Norm.LINF) if own in certifier.norms), None)
    if chosen is None or chosen not in certifier.norms:
        raise NotApplicable(f"it does not certify {chosen or 'any norm'}")
    return Sampler(certifier, target.sigma, chosen, subject.seed, law)


def centers(count: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    """Images at the center. In float64, so that the noise can be read off noisy inputs exactly."""
    return torch.full((count, *shape), CENTER, dtype=torch.float64)


def asked_of(sampler: Sampler, slabs: Slabs, *words: str | int, image: int = 0) -> tuple[Certificates, Recorder]:
    """The answer for one image at the center, and what the classifier was asked for it."""
    recorder = Recorder(slabs)
    return sampler.certify(recorder, centers(1), *words, first=image), recorder


def trials(sampler: Sampler, slabs: Slabs, count: int, case: str) -> Iterator[Certificates]:
    """`count` independent answers for the center: other image ids, and a seed a batch."""
    for first in range(0, count, _BATCH):
        size = min(_BATCH, count - first)
        yield sampler.certify(slabs, centers(size), case, first // _BATCH, first=first)


def judged(sampler: Sampler, slabs: Slabs, count: int, case: str, alpha: float) -> int:
    """How many of `count` trials were certified, if no more of them are false than alpha allows.

    False certificates of a certifier that keeps its promise are at most binomial(count, alpha).

    Raises:
        Violation: they are beyond the `1 - FALSE_ALARM` quantile of it.
    """
    allowed = int(binom.isf(FALSE_ALARM, count, alpha))
    seen, certified, false = 0, 0, 0
    for found in trials(sampler, slabs, count, case):
        wrong = slabs.false(found, sampler.norm)
        seen, certified, false = seen + len(found), certified + int(found.certified.sum()), false + int(wrong.sum())
        if false > allowed:
            row = int(wrong.int().argmax())
            chances = ", ".join(f"{chance:.6f}" for chance in slabs.probabilities(0.0))
            raise Violation(
                f"{case}: {false} of {seen} certificates are false, where alpha = {alpha:g} allows {allowed} of "
                f"{count} (but for {FALSE_ALARM:g})",
                f"a linear classifier of the true smoothed probabilities {chances}, at sigma {sampler.sigma:g}"
                f"{', with invalid scores: ' + slabs.invalid if slabs.invalid else ''}; false is prediction "
                f"{int(found.prediction[row])} within {float(found.radius[row]):.6g} in {sampler.norm}",
            )
    return certified
