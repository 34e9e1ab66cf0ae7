"""What can be proved about an ensemble.

certifier = create("smoothing", sigma=0.5, n=10_000)
found = certifier.certify(ensemble, inputs, ThreatModel(norm="l2"))
found.prediction, found.radius, found.verdict, found.failure_probability, found.evidence, found.cost
"""

from certifiers import cascade, exact, lipschitz, relaxation, smoothing
from certifiers.certificate import (
    Certificates,
    Cost,
    Findings,
    Guarantee,
    Norm,
    ThreatModel,
    Unsupported,
    Verdict,
)
from certifiers.certifier import Certifier, RadiusCertifier
from certifiers.decision import DecisionCertifier
from certifiers.randomness import KeyedRandomness
from certifiers.registry import create, from_mapping, get, names, origin, register
from certifiers.together import certify_jointly, shared_measurement
from certifiers.undisturbed import ClassifierChangedError

__all__ = [
    "Certificates",
    "Certifier",
    "ClassifierChangedError",
    "Cost",
    "DecisionCertifier",
    "Findings",
    "Guarantee",
    "KeyedRandomness",
    "Norm",
    "RadiusCertifier",
    "ThreatModel",
    "Unsupported",
    "Verdict",
    "cascade",
    "certify_jointly",
    "create",
    "exact",
    "from_mapping",
    "get",
    "lipschitz",
    "names",
    "origin",
    "register",
    "relaxation",
    "shared_measurement",
    "smoothing",
]
