"""What a decision certifier may keep during a search, and report after it."""

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from certifiers import DecisionCertifier, Norm, ThreatModel, Verdict
from certifiers.decision import Inquiry, Report

L2 = ThreatModel("l2")


class Sure(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor([0.0, 2.0]).expand(len(x), 2)


class Counting(Inquiry):
    """Proves the first image below 0.5, and nothing of the second; claims that both are falsified."""

    def __init__(self, questions: int) -> None:
        self.questions, self.asked = questions, 0

    def margins(self, radius: Tensor) -> Tensor:
        self.asked += 1
        proved = torch.tensor([float(radius[0]) <= 0.5, False])
        return torch.where(proved, 1.0, -1.0)[:, None].expand(2, 2)

    def report(self) -> Report:
        return Report(
            verdict=torch.full((2,), int(Verdict.FALSIFIED)),
            reason=["seen", "seen"],
            evidence={"asked": torch.full((2,), self.asked), "questions": torch.full((2,), self.questions)},
        )


@dataclass(frozen=True, kw_only=True)
class Keeping(DecisionCertifier):
    norms: ClassVar[frozenset[Norm]] = frozenset(Norm)

    def inquiry(
        self, classifier: nn.Module, x: Tensor, prediction: Tensor, threat: ThreatModel, rng: Any, questions: int
    ) -> Counting:
        assert prediction.tolist() == [1, 1]
        return Counting(questions)

    def margins(self, *args: Any) -> Tensor:
        raise AssertionError("the inquiry is asked instead")


def test_report_speaks_of_images_without_a_proof() -> None:
    found = Keeping().certify(Sure(), torch.zeros(2, 1), L2, radii=[0.0, 0.25, 0.75])
    assert found.verdict.tolist() == [Verdict.CERTIFIED, Verdict.FALSIFIED]
    assert found.radius.tolist() == [0.25, 0.0]
    assert found.reason == ("", "seen")
    assert found.evidence["asked"].tolist() == [2, 2]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 8])
def test_number_of_questions_is_what_the_search_may_ask(size: int) -> None:
    found = Keeping().certify(Sure(), torch.zeros(2, 1), L2, radii=[0.1 * (step + 1) for step in range(size)])
    assert (found.evidence["asked"] <= found.evidence["questions"]).all()
    assert int(found.evidence["questions"][0]) == size.bit_length()
    bisected = Keeping(bisection_steps=5).certify(Sure(), torch.zeros(2, 1), L2)
    assert bisected.evidence["asked"].tolist() == bisected.evidence["questions"].tolist() == [5, 5]


def test_nothing_is_reported_unless_a_method_does() -> None:
    assert Report() == Report(verdict=None, reason=None, evidence={})

    class Silent(Counting):
        def report(self) -> Report:
            return super(Counting, self).report()

    class Quiet(Keeping):
        def inquiry(self, *args: Any, **options: Any) -> Silent:
            return Silent(1)

    found = Quiet().certify(Sure(), torch.zeros(2, 1), L2, radii=[0.75])
    assert found.verdict.tolist() == [Verdict.UNKNOWN] * 2
    assert found.reason == ("no positive radius was proved",) * 2
