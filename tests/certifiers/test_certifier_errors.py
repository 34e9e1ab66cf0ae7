"""What an author may raise: unsupported and out of time are answers, other errors are raised."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from certifiers import KeyedRandomness, ThreatModel, Unsupported, Verdict
from tests.certifiers.certifiers_under_test import L2, Scripted, Sum


def raising(error: BaseException) -> Scripted:
    def script(*args: Any) -> Tensor:
        raise error

    return Scripted(script=script)


def test_unsupported_is_an_answer_with_its_reason(x: Tensor) -> None:
    found = raising(Unsupported("needs ReLU layers; try smoothing")).certify(Sum(), x, L2)
    assert found.verdict.tolist() == [Verdict.UNSUPPORTED] * 3
    assert found.reason == ("needs ReLU layers; try smoothing",) * 3
    assert found.prediction.tolist() == [-1] * 3
    assert found.radius.tolist() == [0.0] * 3
    assert bool((found.cost.seconds > 0).all())


@pytest.mark.parametrize(("text", "reason"), [("stopped after 3 s", "stopped after 3 s"), ("", "out of time")])
def test_timeout_is_an_answer(text: str, reason: str, x: Tensor) -> None:
    found = raising(TimeoutError(text)).certify(Sum(), x, L2)
    assert found.verdict.tolist() == [Verdict.TIMEOUT] * 3
    assert found.reason == (reason,) * 3
    assert not bool(found.certified.any())


def test_other_errors_are_raised(x: Tensor) -> None:
    with pytest.raises(ZeroDivisionError, match="oops"):
        raising(ZeroDivisionError("oops")).certify(Sum(), x, L2)


def test_one_classifier_that_is_unsupported_does_not_stop_the_others(x: Tensor) -> None:
    class Other(Sum):
        pass

    def script(classifier: nn.Module, x: Tensor, threat: ThreatModel, rng: KeyedRandomness) -> Tensor:
        if isinstance(classifier, Other):
            raise Unsupported("not this one")
        return torch.ones(len(x))

    found = Scripted(script=script).certify_together([Sum(), Other(), Sum()], x, L2)
    assert [int(answer.verdict[0]) for answer in found] == [
        Verdict.CERTIFIED,
        Verdict.UNSUPPORTED,
        Verdict.CERTIFIED,
    ]
