"""Training: objectives by name, and the loop that minimises them.

loss = create("gaussian", sigma=0.5).loss(ensemble, x, y, generator)   # the objective of one batch
"""

from ensembles.training.gaussian import Gaussian
from ensembles.training.objective import Objective, create, from_mapping, get, names, origin, register
from ensembles.training.report import EpochReport
from ensembles.training.resume import ResumeError, TrainingState
from ensembles.training.trainer import Examples, Schedule, TrainingError, noisy_accuracy, train

__all__ = [
    "EpochReport",
    "Examples",
    "Gaussian",
    "Objective",
    "ResumeError",
    "Schedule",
    "TrainingError",
    "TrainingState",
    "create",
    "from_mapping",
    "get",
    "names",
    "noisy_accuracy",
    "origin",
    "register",
    "train",
]
