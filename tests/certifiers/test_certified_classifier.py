"""The classifier that is certified must return scores, runs in eval mode, and stays as it was."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from certifiers import KeyedRandomness, ThreatModel, Unsupported, Verdict
from tests.certifiers.certifiers_under_test import L2, Half, Scripted


@pytest.mark.parametrize(
    ("answer", "got"),
    [
        (lambda x: x.flatten(1).sum(1), r"\[3\]"),
        (lambda x: x.flatten(1)[:, :1], r"\[3, 1\]"),
        (lambda x: x, r"\[3, 1, 2\]"),
        (lambda x: x.flatten(1)[:2], r"\[2, 2\]"),
        (lambda x: (x, x), "tuple"),
    ],
)
def test_classifier_that_does_not_return_scores_is_refused(answer: Any, got: str, x: Tensor) -> None:
    class Wrong(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return answer(x)

    message = rf"The classifier must map 3 inputs to scores \[3, classes\] of two classes or more, got {got}\."
    with pytest.raises(ValueError, match=message):
        Half().certify(Wrong(), x, L2)


@pytest.mark.parametrize(
    "scores",
    [
        [float("nan"), 0.0, 0.0],
        [5.0, float("nan"), 0.0],
        [float("inf"), 0.0, 0.0],
        [5.0, float("-inf"), 0.0],
        [1.0, 1.0, 0.0],
        [0.0, 0.0, 0.0],
    ],
)
def test_image_without_a_sure_answer_is_never_certified(scores: list[float], x: Tensor) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            good = torch.tensor([5.0, 1.0, 0.0])
            return torch.stack([good, torch.tensor(scores), good])

    found = Scripted(script=lambda *args: torch.ones(3)).certify(Odd(), x, L2)
    assert found.verdict.tolist() == [Verdict.CERTIFIED, Verdict.UNKNOWN, Verdict.CERTIFIED]
    assert found.prediction.tolist() == [0, -1, 0]
    assert float(found.radius[1]) == 0.0
    assert found.reason == ("", "the classifier's scores are tied, NaN or infinite", "")


def test_classifier_runs_in_eval_mode_and_gradients_are_off(x: Tensor) -> None:
    def script(classifier: nn.Module, x: Tensor, threat: ThreatModel, rng: KeyedRandomness) -> Tensor:
        assert not any(module.training for module in classifier.modules())
        assert not torch.is_grad_enabled()
        assert torch.equal(classifier(x), classifier(x)), "dropout is off"
        return torch.ones(len(x))

    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(2, 3)).train()
    assert len(Scripted(script=script).certify(model, x, L2)) == 3
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("raises", [None, ZeroDivisionError, Unsupported, TimeoutError, KeyboardInterrupt])
def test_process_and_model_are_as_before(raises: type[BaseException] | None, x: Tensor) -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(2), nn.Dropout(0.5), nn.Linear(2, 3)).train()

    def script(classifier: nn.Module, x: Tensor, threat: ThreatModel, rng: KeyedRandomness) -> Tensor:
        torch.rand(2), np.random.rand(2)  # noqa: NPY002
        classifier.train()
        classifier.requires_grad_(requires_grad=False)
        torch.set_grad_enabled(True)
        torch.set_default_dtype(torch.float64)
        if raises:
            raise raises("stop")
        return torch.ones(len(x))

    def state() -> list[Any]:
        return [
            torch.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),  # noqa: NPY002
            torch.is_grad_enabled(),
            torch.get_default_dtype(),
            torch.get_num_threads(),
            [module.training for module in model.modules()],
            [parameter.requires_grad for parameter in model.parameters()],
            {name: tensor.tolist() for name, tensor in model.state_dict().items()},
        ]

    before, weights = state(), copy.deepcopy(model.state_dict())
    if raises in (None, Unsupported, TimeoutError):
        Scripted(script=script).certify(model, x, L2)
    else:
        assert raises is not None
        with pytest.raises(raises, match="stop"):
            Scripted(script=script).certify(model, x, L2)
    assert state() == before
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
