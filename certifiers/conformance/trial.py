"""One check's questions to a certifier, and the judgement of its answers against known truth."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from scipy.stats import binom
from torch import Tensor, nn

from certifiers.certificate import Certificates, Guarantee, Norm, Verdict
from certifiers.conformance.kit import NotApplicable, Subject, Violation
from certifiers.conformance.noise_laws import law_of
from certifiers.conformance.probes import norms_of
from certifiers.conformance.truth import Truth
from certifiers.smoothing import SmoothedOnGrid

#: Shares of a true radius that are asked for: below it, at it and beyond.
SHARES = (0.25, 0.5, 0.9, 0.99, 1.0, 1.01, 1.25, 2.0)
#: The same where it must be quick. A search bisects them: the first that it asks is true, the next is not.
QUICK_SHARES = (0.5, 0.9, 0.99, 1.0, 1.01)
#: What a complete certifier must prove of a true radius.
COMPLETE = 0.98
#: Beyond a true radius by this is a violation; a Truth may be known less well.
SLACK = 1e-9
#: The probability that a correct certifier fails one check by chance. Fewer than 100 checks count so: 1e-6 in all.
FALSE_ALARM = 1e-8


@dataclass
class Trial:
    """The questions of one check.

    A deterministic certifier is refuted by one answer. A probabilistic one may be wrong with the failure probability
    that it states: it is asked each question under many image ids, whose randomness is independent, and refuted when
    more answers are wrong than happens with probability `FALSE_ALARM`, by the binomial distribution.

    Attributes:
        subject: whom to ask.
        judged: answers that were held against the truth.
        certified: how many of them were certificates.
        reasons: why there were answers that say nothing.
        last: why the last image has no certificate; empty where it has one.
    """

    subject: Subject
    judged: int = 0
    certified: int = 0
    reasons: list[str] = field(default_factory=list)
    last: str = ""
    _wrong: int = 0
    _worst: str = ""
    _alpha: float = 0.0

    def norms(self, *turn: str) -> list[Norm]:
        """Those that the certifier declares; where it must be quick, one of them: whose turn it is in this check.

        Args:
            turn: words that name the check; without them all norms.
        """
        return norms_of(self.subject, *turn) if turn else sorted(self.subject.certifier.norms)

    def copies(self) -> int:
        """Under how many image ids a question is put."""
        if self.subject.certifier.guarantee is Guarantee.DETERMINISTIC:
            return 1
        return 20 if self.subject.quick else 40

    def hold(
        self,
        truth: Truth,
        shares: Sequence[float] | None = None,
        *,
        smoothed: bool = False,
        slack: float = SLACK,
        complete: bool = True,
        together: bool = False,
        radii: Sequence[float] = (0.01, 0.1, 0.5),
    ) -> None:
        """Ask for the radii of a truth's images, and hold the answers against it.

        Args:
            truth: what is true of the classifier.
            shares: of the true radius, which are asked for together; None: `SHARES`, or fewer where it must be quick.
            smoothed: whether it is true of the classifier smoothed by symmetric noise, too.
            slack: how far, relatively, the true radius may be off.
            complete: whether a complete certifier must come near to the truth.
            together: all images of the truth in one batch, and not one by one.
            radii: what is asked where the true radius is infinite.

        Raises:
            Violation: a certificate is false, a refutation is false, or a complete certifier gave away too much.
        """
        certifier = self.subject.certifier
        if truth.threat.norm not in certifier.norms:
            return
        shares = shares or (QUICK_SHARES if self.subject.quick else SHARES)
        target = self.subject.certifier.target(truth.classifier)
        on_grid = isinstance(target, SmoothedOnGrid)
        if not self.concerns(truth.classifier, smoothed=smoothed):
            return
        for images in [list(range(len(truth.x)))] if together else [[image] for image in range(len(truth.x))]:
            exact = [float(truth.radius[image]) for image in images]
            asked = {share * own for share in shares for own in exact if 0 < own < 10}
            wanted = sorted(asked) or list(radii)
            for image, found in zip(images, self.ask(truth, images, wanted), strict=True):
                known = float(truth.radius[image])
                # Rounding to a grid before the classifier moves its boundary by half a step in every input.
                blur = _half_step(truth, target.levels) / known if on_grid else 0.0
                self.judge(truth, image, wanted, found, slack + blur, complete)

    def concerns(self, classifier: nn.Module, *, smoothed: bool = False) -> bool:
        """Whether what is true of a classifier is true of the function that the certificates speak of.

        Args:
            classifier: that something is known of.
            smoothed: whether it is true of the classifier smoothed by Gaussian noise, too.
        """
        target = self.subject.certifier.target(classifier)
        if target is classifier or (smoothed and (isinstance(target, SmoothedOnGrid) or law_of(target))):
            return True
        self.reasons.append(f"what is known is not true of its target, {type(target).__name__}")
        return False

    def ask(self, truth: Truth, images: Sequence[int], radii: Sequence[float] | None) -> list[Certificates]:
        """The answers for some images of one batch, each under `copies` image ids."""
        copies = self.copies()
        x = truth.x[list(images)].repeat_interleave(copies, dim=0)
        found = self.subject.certifier.certify(
            truth.classifier,
            x,
            truth.threat,
            radii=radii,
            seed=self.subject.seed,
            image_ids=[1000 * image + copy for image in images for copy in range(copies)],
        )
        return [_rows(found, slice(first, first + copies)) for first in range(0, len(x), copies)]

    def finish(self) -> int:
        """How many answers were judged.

        Raises:
            NotApplicable: none, because of the norm, the target, or what the certifier does not support.
            Violation: more answers of a probabilistic certifier were false than its failure probability allows.
        """
        if self._wrong > allowed(self.certified, self._alpha):
            most = allowed(self.certified, self._alpha)
            raise Violation(
                f"{self._wrong} of {self.certified} certificates are false, and alpha = {self._alpha:g} explains at "
                f"most {most} (but for a probability of {FALSE_ALARM:g})",
                self._worst,
            )
        if not self.judged and self.reasons:
            raise NotApplicable(self.reasons[0])
        return self.judged

    def judge(
        self, truth: Truth, image: int, radii: Sequence[float], found: Certificates, slack: float, complete: bool
    ) -> None:
        """Hold an answer against the truth; see `hold`."""
        if bool((found.verdict == int(Verdict.UNSUPPORTED)).any()):
            self.reasons.append(f"unsupported: {found.reason[0]}")
            return
        certifier = self.subject.certifier
        exact, answer = float(truth.radius[image]), int(truth.prediction[image])
        # Without slack a certificate must not even reach the truth, where there is a tie.
        beyond = found.radius > exact * (1 + slack) if slack else found.radius >= exact
        wrong = found.certified & (beyond | (found.prediction != answer))
        self.judged += len(found)
        self.last = found.reason[0]
        self.certified += int(found.certified.sum())
        first = int(wrong.nonzero()[0, 0]) if bool(wrong.any()) else 0
        where, radius = f"{truth.name}, {truth.threat.norm}", float(found.radius[first])
        counterexample = described(truth, image, radii, found, first)
        if bool(wrong.any()):
            self._wrong += int(wrong.sum())
            self._worst = counterexample
            self._alpha = max(self._alpha, float(found.failure_probability.max()))
            if certifier.guarantee is Guarantee.DETERMINISTIC:
                claim = f"certified is class {int(found.prediction[first])} within {radius!r}"
                raise Violation(f"{where}: {claim}; true is class {answer} within less than {exact!r}", counterexample)
        if bool((found.verdict == int(Verdict.FALSIFIED)).any()) and min(radii) < exact:
            claim = f"falsified at {min(radii)!r}"
            raise Violation(f"{where}: {claim}; the answer is the same within {exact!r}", counterexample)
        within = [asked for asked in radii if asked < exact * (1 - slack)]
        least = float(found.radius.min())
        if certifier.complete and complete and within and least < COMPLETE * max(within):
            claim = f"a complete certifier proved {least!r}"
            raise Violation(f"{where}: {claim} of the {max(within)!r} that is true", counterexample)


def _half_step(truth: Truth, levels: int) -> float:
    """The largest length in the norm of half a step in every input."""
    power = {Norm.L1: 1.0, Norm.L2: 0.5, Norm.LINF: 0.0}[truth.threat.norm]
    return float(truth.x[0].numel() ** power) / (2 * levels)


def _rows(found: Certificates, rows: slice) -> Certificates:
    """What is judged of some rows."""
    return replace(
        found,
        prediction=found.prediction[rows],
        radius=found.radius[rows],
        verdict=found.verdict[rows],
        failure_probability=found.failure_probability[rows],
        reason=found.reason[rows],
        evidence={},
    )


def allowed(certificates: int, alpha: float) -> int:
    """The most false certificates that chance explains but for a probability of `FALSE_ALARM`."""
    return int(binom.isf(FALSE_ALARM, certificates, alpha)) if certificates and alpha else 0


def described(truth: Truth, image: int, radii: Sequence[float] | None, found: Certificates, row: int) -> str:
    """A question and its answer in full."""
    asked = "bisection" if radii is None else [float(f"{radius:.9g}") for radius in radii]
    verdict, answer = Verdict(int(found.verdict[row])).name, int(found.prediction[row])
    return (
        f"x = {numbers(truth.x[image])}, norm {truth.threat.norm}, radii {asked}\n{truth.classifier}\n"
        f"answered: {verdict}, class {answer}, radius {float(found.radius[row])!r}; "
        f"true: class {int(truth.prediction[image])}, radius {float(truth.radius[image])!r}"
    )


def numbers(x: Tensor) -> str:
    """Small tensors in full, others by their shape."""
    return str(x.tolist()) if x.numel() <= 64 else f"a tensor {list(x.shape)}"
