"""What is certified: members, how they are aggregated, and how they are trained.

ensemble = Ensemble(members, aggregation=WeightedAverage(weights=None, of="confidence"))
ensemble.confidences(x)   # [member, batch, class]
ensemble(x)               # scores [batch, class]
diversity.measure(ensemble, x, y)   # how differently the members answer
"""

from ensembles import aggregation, architectures, checkpoint, diversity, resnets, training
from ensembles.aggregation import Aggregation, MaxMargin, Single, WeightedAverage
from ensembles.checkpoint import weights_digest
from ensembles.ensemble import Ensemble, members_of, shared_scores
from ensembles.parameters import ParameterError, Parameters
from ensembles.registry import Registry, RegistryError, UnknownNameError
from ensembles.seeds import derive_seed, seeded_generator
from ensembles.sween import Sween
from ensembles.voting import KConsensus, MajorityVote

__all__ = [
    "Aggregation",
    "Ensemble",
    "KConsensus",
    "MajorityVote",
    "MaxMargin",
    "ParameterError",
    "Parameters",
    "Registry",
    "RegistryError",
    "Single",
    "Sween",
    "UnknownNameError",
    "WeightedAverage",
    "aggregation",
    "architectures",
    "checkpoint",
    "derive_seed",
    "diversity",
    "members_of",
    "resnets",
    "seeded_generator",
    "shared_scores",
    "training",
    "weights_digest",
]
