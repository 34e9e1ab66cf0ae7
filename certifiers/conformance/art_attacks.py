"""Attacks of adversarial-robustness-toolbox, an optional extra: what they find is replayed like all else.

The five of Wu et al. (LPD), Table 4: FGSM, BIM, PGD (here with Auto-PGD's steps), Carlini & Wagner and DeepFool.
"""

import copy
from collections.abc import Callable, Iterator
from importlib import import_module, metadata
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from certifiers.certificate import Norm, ThreatModel
from certifiers.conformance.losses import logits_of
from certifiers.conformance.nearest import Candidates
from certifiers.undisturbed import undisturbed
from ensembles.ensemble import members_of, stack_logits

_PACKAGE = "adversarial-robustness-toolbox"


def toolbox() -> tuple[str, Candidates]:
    """Name and version of the toolbox, and its attacks.

    Raises:
        ImportError: it is not installed, or does not load; says how to install it.
    """
    try:
        import_module("art.attacks.evasion")
        version = metadata.version(_PACKAGE)
    except (ImportError, metadata.PackageNotFoundError) as error:
        raise ImportError(
            f"--art needs {_PACKAGE}, which cannot be loaded here ({error}). Install it: "
            "pip install 'certbench[attacks]', or leave --art away: the attacks of certbench need nothing."
        ) from error
    return f"{_PACKAGE} {version}", art_candidates


def art_candidates(
    classifier: nn.Module, image: Tensor, prediction: int, radius: float, threat: ThreatModel
) -> Iterator[tuple[str, Tensor]]:
    """Candidates of each attack that knows the norm, by the attack's name; they are in the box at most.

    Carlini & Wagner's attack and DeepFool look for near inputs and know no ball.
    """
    evasion = import_module("art.attacks.evasion")
    # Its attacks want logits, set modes and draw from the global generators: they get a copy, and generators of a
    # known state that are put back.
    model = _Logits(copy.deepcopy(classifier)).eval()
    with torch.no_grad():
        classes = int(model(image).shape[1])
    wrapped = import_module("art.estimators.classification").PyTorchClassifier(
        model=model,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(image.shape[1:]),
        nb_classes=classes,
        clip_values=(0.0, 1.0),
        device_type="cpu" if image.device.type == "cpu" else "gpu",
    )
    order: Any = {Norm.L1: 1, Norm.L2: 2, Norm.LINF: float("inf")}[threat.norm]
    ball = {"norm": order, "eps": radius, "eps_step": radius / 4}
    attacks: dict[str, Callable[[], Any]] = {
        "fgsm": lambda: evasion.FastGradientMethod(wrapped, norm=order, eps=radius),
        "auto-pgd": lambda: evasion.AutoProjectedGradientDescent(wrapped, max_iter=40, verbose=False, **ball),
    }
    if threat.norm is Norm.LINF:
        attacks["bim"] = lambda: evasion.BasicIterativeMethod(
            wrapped, eps=radius, eps_step=radius / 4, max_iter=40, verbose=False
        )
    if threat.norm is not Norm.L1:
        attacks["deepfool"] = lambda: evasion.DeepFool(wrapped, max_iter=40, verbose=False)
        carlini = "CarliniL2Method" if threat.norm is Norm.L2 else "CarliniLInfMethod"
        attacks["carlini-wagner"] = lambda: getattr(evasion, carlini)(wrapped, max_iter=20, verbose=False)
    label = torch.nn.functional.one_hot(torch.tensor([prediction]), classes).numpy()
    for name, build in attacks.items():
        with undisturbed([model]), torch.enable_grad():
            np.random.seed(0)  # noqa: NPY002
            torch.manual_seed(0)
            found = torch.from_numpy(build().generate(x=image.detach().cpu().numpy(), y=label))
        yield f"art {name}", found.to(image.device)


class _Logits(nn.Module):
    """The classifier with scores that are no probabilities, and have gradients where those have none."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.members = nn.ModuleList(members_of(classifier))
        self.scores = logits_of(classifier)

    def forward(self, x: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch classes"]:
        """The scores."""
        return self.scores(stack_logits([member(x) for member in self.members]))
