"""What a classifier computes, as a small graph of known layers that bounds can be computed of."""

from certifiers.networks.network import Add, Network, Shift
from certifiers.networks.preparation import Prepared, prepare
from certifiers.networks.reading import read

__all__ = ["Add", "Network", "Prepared", "Shift", "prepare", "read"]
