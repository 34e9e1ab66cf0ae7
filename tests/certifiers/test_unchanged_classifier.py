from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch

from certifiers import (
    ClassifierChangedError,
    DecisionCertifier,
    Norm,
    RadiusCertifier,
    ThreatModel,
)
from ensembles import Ensemble, Single, architectures, shared_scores

L2 = ThreatModel("l2")


def linear() -> architectures.Classifier:
    return architectures.create("mlp", input_shape=(1, 2, 2), classes=3, seed=1, hidden=())


@dataclass(frozen=True, kw_only=True)
class Radii(RadiusCertifier):
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L2})
    change: Any = None

    def radii(self, classifier: Any, x: Any, threat: Any, rng: Any) -> Any:
        radius = classifier(x).max(1).values.abs() + 1
        if self.change is not None:
            self.change(classifier, x)
        return radius


@dataclass(frozen=True, kw_only=True)
class Margins(DecisionCertifier):
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L2})

    def margins(self, classifier: Any, x: Any, prediction: Any, radius: Any, threat: Any, rng: Any) -> Any:
        assert torch.equal(x, self.expected())
        x.mul_(0)
        return torch.full((len(x), 3), 1.0)

    @staticmethod
    def expected() -> torch.Tensor:
        return torch.full((2, 1, 2, 2), 0.25)


@pytest.mark.parametrize(
    "change",
    [
        lambda model, x: model.head.weight.mul_(2),
        lambda model, x: model.normalize.mean.add_(0.1),
        lambda model, x: model.double(),
        lambda model, x: setattr(model.head, "weight", torch.nn.Parameter(model.head.weight.clone())),
        lambda model, x: model.register_buffer("more", torch.zeros(1)),
        lambda model, x: setattr(model.head, "bias", None),
        lambda model, x: model.head.register_forward_hook(lambda *_: None),
        lambda model, x: model.register_forward_pre_hook(lambda *_: None),
    ],
)
def test_a_method_that_changes_weights_gets_no_certificate(change: Any) -> None:
    with pytest.raises(ClassifierChangedError, match=r"The method changed '.*Work on a copy: copy.deepcopy"):
        Radii(change=change).certify(linear(), torch.rand(2, 1, 2, 2), L2)


def test_a_method_that_changes_weights_and_then_fails_is_told_of_too() -> None:
    def fold_and_fail(model: Any, x: Any) -> None:
        model.head.weight.neg_()
        raise RuntimeError("solver failed")

    with pytest.raises(ClassifierChangedError, match=r"The method changed 'head.weight'") as caught:
        Radii(change=fold_and_fail).certify(linear(), torch.rand(2, 1, 2, 2), L2)
    assert str(caught.value.__cause__) == "solver failed"


def test_hooks_that_were_there_before_are_no_change() -> None:
    model = linear()
    model.head.register_forward_hook(lambda *_: None)
    assert bool(Radii().certify(model, torch.rand(2, 1, 2, 2), L2).certified.all())


def test_a_method_that_leaves_weights_alone_is_not_accused() -> None:
    quiet = Radii(change=lambda model, x: (model.train(), model.requires_grad_(False)))
    assert bool(quiet.certify(linear(), torch.rand(2, 1, 2, 2), L2).certified.all())


def test_inputs_that_a_method_changes_are_its_own() -> None:
    first, second = linear(), linear()
    x = torch.rand(2, 1, 2, 2)
    before = x.clone()
    spoiling = Radii(change=lambda model, inputs: inputs.mul_(0))
    together = spoiling.certify_together([first, second], x, L2)
    assert torch.equal(x, before)
    assert torch.equal(together[0].radius, together[1].radius)
    Margins().certify(first, Margins.expected(), L2, radii=[0.1, 0.2, 0.3])


def test_an_ensemble_with_a_hook_is_evaluated_with_it() -> None:
    ensemble = Ensemble([linear(), linear()], Single())
    x = torch.rand(2, 1, 2, 2)
    ensemble.register_forward_hook(lambda module, inputs, output: -output)
    (shared,) = shared_scores([ensemble], x)
    assert torch.equal(shared, ensemble(x))
