"""What a dry run measures in place of all the samples."""

from dataclasses import replace
from typing import Any, Protocol, TypeVar, runtime_checkable

from certifiers.smoothing.noise import CHUNK

#: Samples that are enough to tell how fast votes are counted.
REHEARSED = 4 * CHUNK


@runtime_checkable
class Sampling(Protocol):
    """A frozen dataclass with numbers of samples."""

    @property
    def n0(self) -> int:
        """Samples that choose the class."""

    @property
    def n(self) -> int:
        """Samples that estimate probabilities, at most."""


S = TypeVar("S", bound=Sampling)


def fewer_samples(certifier: S) -> tuple[S, float]:
    """The certifier with a few chunks of samples, and how many times their number it takes itself."""
    numbers: dict[str, Any] = {"n0": min(certifier.n0, CHUNK), "n": min(certifier.n, REHEARSED)}
    shorter: S = replace(certifier, **numbers)  # type: ignore[type-var]
    return shorter, (certifier.n0 + certifier.n) / (shorter.n0 + shorter.n)
