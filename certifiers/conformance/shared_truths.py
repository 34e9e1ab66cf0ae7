"""Enumerated truths that several checks and certifiers ask for, each worked out once.

What costs is to enumerate the activation patterns of a classifier, which are the same in every norm.
"""

import copy
import dataclasses
import functools

from jaxtyping import Float64
from torch import Tensor, nn

from certifiers.certificate import Norm, ThreatModel
from certifiers.conformance.enumeration import Region, answer_regions
from certifiers.conformance.truth import Truth, cancelling_pair, enumerated_truth, random_networks
from ensembles.aggregation import Aggregation


def shared_classifier(seed: int, aggregation: Aggregation | None, *, quick: bool) -> nn.Module:
    """The classifier of `shared_truth`, without working out the truth. Not a copy: to be looked at only."""
    return _networks(seed, aggregation, quick)[0]


def shared_truth(seed: int, norm: Norm, aggregation: Aggregation | None, *, quick: bool) -> Truth:
    """A small network or ensemble with its exact radii; a copy, so that nobody spoils it for others."""
    return _copied(_truth(seed, norm, aggregation, quick))


def shared_pair(seed: int, norm: Norm) -> Truth:
    """A cancelling pair of two hidden units and its exact radii; a copy."""
    return _copied(_pair(seed, norm))


@functools.lru_cache(maxsize=64)
def _networks(seed: int, aggregation: Aggregation | None, quick: bool) -> tuple[nn.Module, Float64[Tensor, "..."]]:
    hidden = (3, 2) if aggregation is None else (2,) if quick else (3,)
    return random_networks(seed, aggregation, hidden=hidden, batch=2 if quick else 3)


@functools.lru_cache(maxsize=64)
def _regions(seed: int, aggregation: Aggregation | None, quick: bool) -> tuple[tuple[int, Region], ...]:
    return answer_regions(*_networks(seed, aggregation, quick))


@functools.lru_cache(maxsize=192)
def _truth(seed: int, norm: Norm, aggregation: Aggregation | None, quick: bool) -> Truth:
    classifier, x = _networks(seed, aggregation, quick)
    return enumerated_truth(seed, classifier, x, ThreatModel(norm), _regions(seed, aggregation, quick))


@functools.lru_cache(maxsize=16)
def _pair(seed: int, norm: Norm) -> Truth:
    return cancelling_pair(seed, ThreatModel(norm), units=2, batch=1)


def _copied(truth: Truth) -> Truth:
    return dataclasses.replace(truth, classifier=copy.deepcopy(truth.classifier), x=truth.x.clone())
