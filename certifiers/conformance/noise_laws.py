"""Distributions of noise whose smoothed half-spaces are known: what the statistics of probabilistic certifiers need."""

import math
from abc import ABC, abstractmethod
from typing import Any, final

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from certifiers.smoothing import Smoothed, SmoothedBy
from certifiers.smoothing.integer_smoothing import SmoothedOnGrid

Array = npt.NDArray[np.float64]

#: Steps of a grid in a standard deviation, from which on its noise counts as Gaussian.
_FINE = 64


class Law(ABC):
    """The distribution of one input's noise, over its standard deviation: symmetric about 0.

    Of every law here, the largest radius that any certificate can claim from `P[f = A] = p` is `sigma quantile(p)`, in
    the norm of the law's theorem: the distance to a half-space across one input, smoothed by it.
    """

    #: Whether a combination of inputs has the law of one: then half-spaces across any direction are known.
    all_directions = False

    @abstractmethod
    def cdf(self, values: Any) -> Array:
        """`P[noise / sigma <= value]`."""

    @abstractmethod
    def quantile(self, p: float) -> float:
        """Its inverse."""

    @final
    def normal(self, values: Any) -> Array:
        """The values as standard normals, if they have this law; those beyond its support as beyond 7 deviations."""
        return np.asarray(ndtri(np.clip(self.cdf(values), 1e-12, 1 - 1e-12)), dtype=np.float64)


class Gaussian(Law):
    """`N(0, 1)`; radii in l2."""

    all_directions = True

    def cdf(self, values: Any) -> Array:
        """Phi."""
        return np.asarray(ndtr(values), dtype=np.float64)

    def quantile(self, p: float) -> float:
        """`Phi^-1(p)`."""
        return float(ndtri(p))


class Uniform(Law):
    """Uniform on `[-sqrt(3), sqrt(3)]`; radii in l1."""

    def cdf(self, values: Any) -> Array:
        """Linear."""
        shares = 0.5 + np.asarray(values, dtype=np.float64) / (2 * math.sqrt(3))
        return np.asarray(np.clip(shares, 0.0, 1.0), dtype=np.float64)

    def quantile(self, p: float) -> float:
        """`sqrt(3) (2 p - 1)`."""
        return math.sqrt(3) * (2 * p - 1)


class Laplace(Law):
    """Density `exp(-sqrt(2) |v|) / sqrt(2)`; radii in l1."""

    def cdf(self, values: Any) -> Array:
        """Exponential on either side."""
        given = np.asarray(values, dtype=np.float64)
        tail = np.exp(-math.sqrt(2) * np.abs(given)) / 2
        return np.asarray(np.where(given > 0, 1 - tail, tail), dtype=np.float64)

    def quantile(self, p: float) -> float:
        """`-log(2 (1 - p)) / sqrt(2)` above 1/2."""
        return math.copysign(math.log(2 * min(p, 1 - p)) / math.sqrt(2), p - 0.5)


def law_of(target: Any) -> Law | None:
    """The noise of a smoothed classifier, as it names it; None: it is none that is known here.

    Noise rounded to steps of `1 / levels` counts as Gaussian: a slab's probability is off by less than a step has,
    `1 / (sigma levels sqrt(2 pi))`. On a coarse grid, of fewer than `_FINE` steps a deviation, that is too much, and
    nothing is known.
    """
    if isinstance(target, Smoothed) or (isinstance(target, SmoothedOnGrid) and target.sigma * target.levels >= _FINE):
        return Gaussian()
    if isinstance(target, SmoothedBy):
        return {"uniform": Uniform(), "laplace": Laplace()}.get(target.kind)
    return None
