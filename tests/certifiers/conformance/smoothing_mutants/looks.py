"""Mistakes with looks: counts that are judged more than once."""

from dataclasses import dataclass

from scipy.special import ndtri
from torch import Tensor, nn

from certifiers import KeyedRandomness
from tests.certifiers.conformance.smoothing_mutants.honest import Mutant, Plain, PlainLooks, PlainPhases


@dataclass(frozen=True, kw_only=True)
class TenLooks(Plain):
    """Looks after each tenth of the samples and keeps the best bound, each at the full alpha."""

    def certificate(
        self, classifier: nn.Module, image: Tensor, row: int, rng: KeyedRandomness
    ) -> tuple[int, int, float]:
        top = int(self.votes(classifier, image, row, rng, 0, self.n0).argmax())
        hits, seen, best = 0, 0, 0.0
        for look in range(10):
            more = self.n * (look + 1) // 10 - seen
            seen += more
            hits += int(self.votes(classifier, image, row, rng, 1, more, chunk=look)[top]) if more else 0
            best = max(best, self.lower(hits, seen) if seen else 0.0)
        return top, hits, self.sigma * max(0.0, float(ndtri(best)))


@dataclass(frozen=True, kw_only=True)
class PeekedFixedBound(PlainLooks):
    """Every look of a confidence sequence takes the bound that is made for one number of samples."""

    def look_alpha(self) -> float:
        return self.alpha


@dataclass(frozen=True, kw_only=True)
class SelectionCarriedOver(PlainLooks):
    """The cumulative count begins with the samples that chose the class."""

    def start(self, selection: Tensor) -> list[Tensor]:
        return [selection]


@dataclass(frozen=True, kw_only=True)
class PhasesWithoutSplit(PlainPhases):
    """Each phase has all of alpha."""

    def look_alpha(self) -> float:
        return self.alpha


#: Mistake, certifier, and checks that each catch it alone.
MUTANTS: tuple[Mutant, ...] = (
    ("ten uncorrected looks", TenLooks(), ("calibration", "counts-and-radius")),
    ("a fixed-n bound peeked at", PeekedFixedBound(), ("calibration", "counts-and-radius")),
    ("selection carried over into a sequence", SelectionCarriedOver(), ("largest-radius", "counts-and-radius")),
    ("phases without their alpha split", PhasesWithoutSplit(), ("calibration",)),
)
