"""Attacks of adversarial-robustness-toolbox, an optional extra: what they find is replayed like all else.

The five of Wu et al. (LPD), Table 4: FGSM, BIM, PGD (here with Auto-PGD's steps), Carlini & Wagner and DeepFool.
"""

from collections.abc import Callable, Iterator
from importlib import import_module, metadata
from typing import Any

import torch
from torch import Tensor, nn

from certifiers.certificate import Norm, ThreatModel
from certifiers.conformance.nearest import Candidates

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
    with torch.no_grad():
        classes = int(classifier(image).shape[1])
    wrapped = import_module("art.estimators.classification").PyTorchClassifier(
        model=classifier,
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
        name = "CarliniL2Method" if threat.norm is Norm.L2 else "CarliniLInfMethod"
        attacks["carlini-wagner"] = lambda: getattr(evasion, name)(wrapped, max_iter=20, verbose=False)
    label = torch.nn.functional.one_hot(torch.tensor([prediction]), classes).numpy()
    for name, build in attacks.items():
        found = torch.from_numpy(build().generate(x=image.detach().cpu().numpy(), y=label))
        yield f"art {name}", found.to(image.device)
