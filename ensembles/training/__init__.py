"""Training: objectives by name, and the loop that minimises them.

loss = create("drt", sigma=0.5, rho1=0.5, rho2=2.0).loss(ensemble, x, y, generator)   # the objective of one batch
"""

from ensembles.training.adp import ADP
from ensembles.training.adversarial import Adversarial
from ensembles.training.consistency import Consistency
from ensembles.training.drt import DRT
from ensembles.training.gal import GAL
from ensembles.training.gaussian import Gaussian
from ensembles.training.ibp import IBP
from ensembles.training.macer import MACER
from ensembles.training.objective import Objective, create, from_mapping, get, names, origin, register
from ensembles.training.priority_dropout import LPD, PDD, PDDWithDEG
from ensembles.training.report import EpochReport
from ensembles.training.resume import ResumeError, TrainingState
from ensembles.training.smoothadv import SmoothAdv
from ensembles.training.stability import Stability
from ensembles.training.trainer import Examples, Schedule, TrainingError, noisy_accuracies, noisy_accuracy, train
from ensembles.training.trs import TRS

__all__ = [
    "ADP",
    "DRT",
    "GAL",
    "IBP",
    "LPD",
    "MACER",
    "PDD",
    "TRS",
    "Adversarial",
    "Consistency",
    "EpochReport",
    "Examples",
    "Gaussian",
    "Objective",
    "PDDWithDEG",
    "ResumeError",
    "Schedule",
    "SmoothAdv",
    "Stability",
    "TrainingError",
    "TrainingState",
    "create",
    "from_mapping",
    "get",
    "names",
    "noisy_accuracies",
    "noisy_accuracy",
    "origin",
    "register",
    "train",
]
