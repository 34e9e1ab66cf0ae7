"""Preparation, once a classifier: its members as networks, compared with it before any bound is computed."""

import math
import weakref
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from certifiers.certificate import Unsupported
from certifiers.networks.network import Network
from certifiers.networks.reading import read
from certifiers.networks.snapshot import Snapshot
from ensembles.aggregation import Aggregation
from ensembles.ensemble import Ensemble, members_of

#: How far the outputs of a network may be from the member's, for outputs of size 1.
TOLERANCE = 1e-5

#: How many random inputs a network is compared with its member on.
SAMPLES = 16


@dataclass(frozen=True, eq=False)
class Prepared:
    """A classifier ready for bounds.

    Attributes:
        networks: the members that the classifier needs, in its order.
        aggregation: how their logits become scores; None: the one network's logits are the scores.
    """

    networks: tuple[Network, ...]
    aggregation: Aggregation | None


_prepared: "weakref.WeakKeyDictionary[nn.Module, tuple[Snapshot, Network]]" = weakref.WeakKeyDictionary()


def prepare(classifier: nn.Module, x: Float[Tensor, "batch *shape"]) -> Prepared:
    """The networks of a classifier, in float64 on the CPU; the classifier is left as it is.

    A member is read once and remembered as long as it lives and all numbers in it are the same, see `Snapshot`. Each
    call compares them, and the networks with the members on `x` itself; the first one on random inputs as well.

    Raises:
        Unsupported: a layer has no bounds, or a network's outputs differ from its member's.
    """
    networks = []
    for number, member in enumerate(members_of(classifier)):
        name = f"member {number + 1}" if isinstance(classifier, Ensemble) else "the classifier"
        known = _prepared.get(member)
        # What a forward looks up elsewhere is no part of a snapshot: a network that differs may be of a former one.
        if known is not None and known[0].holds(member) and _difference(member, known[1], x) is None:
            networks.append(known[1])
            continue
        snapshot, network = Snapshot.of(member), read(member, x[:1])
        generator = torch.Generator().manual_seed(0)
        for inputs in (torch.rand(SAMPLES, *x.shape[1:], generator=generator).to(x), x):
            if (off := _difference(member, network, inputs)) is not None:
                raise Unsupported(
                    f"{name}: the network that was read differs from it by up to {off:g}, where {TOLERANCE:g} is "
                    "allowed. What it computes is not what its recorded layers compute; smoothing certifies any "
                    "classifier."
                )
        _prepared[member] = (snapshot, network)
        networks.append(network)
    opened = members_of(classifier) != [classifier]
    return Prepared(tuple(networks), classifier.aggregation if opened and isinstance(classifier, Ensemble) else None)


def _difference(member: nn.Module, network: Network, x: Tensor) -> float | None:
    """By how much the outputs of a network differ from its member's, if by more than allowed."""
    if network.shapes[0] != tuple(x.shape[1:]):
        return math.nan
    wanted = member(x).detach().cpu().double()
    found = network(x.detach().cpu().double())
    if found.shape != wanted.shape:
        return math.nan
    close = torch.isclose(found, wanted, rtol=TOLERANCE, atol=TOLERANCE * max(1.0, float(wanted.abs().max())))
    return None if bool(close.all()) else float((found - wanted).abs().max())
