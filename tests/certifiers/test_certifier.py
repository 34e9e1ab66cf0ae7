"""What an outsider writes: guarded answers, several classifiers at once, costs and a description."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import certifiers
from certifiers import Certifier, Findings, Guarantee, Norm, RadiusCertifier, ThreatModel, Verdict
from ensembles import Ensemble, MaxMargin, Single
from tests.certifiers.certifiers_under_test import L2, Half, Scripted, Sum


def test_outsiders_certifier_of_a_dozen_lines(x: Tensor) -> None:
    found = Half().certify(Sum(), x, L2)
    assert found.prediction.tolist() == [0, 1, 0]
    assert found.verdict.tolist() == [Verdict.CERTIFIED] * 3
    # The distance of a point to the line x_1 + x_2 = 1.
    expected = [0.2 / 2**0.5, 0.6 / 2**0.5, 1.0 / 2**0.5]
    assert found.radius.tolist() == pytest.approx(expected, rel=1e-6)
    assert (found.radius.dtype, found.prediction.dtype, found.verdict.dtype) == (torch.float64, torch.int64, torch.int8)
    assert found.failure_probability.tolist() == [0.0] * 3
    assert found.reason == ("",) * 3
    assert found.cost.forward_passes.tolist() == [1, 1, 1], "the clean answer; the author counted none"
    assert bool((found.cost.seconds > 0).all())
    assert found.evidence == {}


def test_norm_that_is_not_certified_is_unsupported_without_asking(x: Tensor) -> None:
    class Unasked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            pytest.fail("asked")

    found = Half().certify(Unasked(), x, ThreatModel("linf"))
    assert found.verdict.tolist() == [Verdict.UNSUPPORTED] * 3
    assert found.prediction.tolist() == [-1] * 3
    assert found.radius.tolist() == [0.0] * 3
    assert set(found.reason) == {"Half does not certify the norm linf; it certifies: l1, l2."}

    @dataclass(frozen=True, kw_only=True)
    class Normless(Half):
        norms: ClassVar[frozenset[Norm]] = frozenset()
        name: ClassVar[str] = "normless"

    reason = Normless().certify(Sum(), x, L2).reason[0]
    assert reason == "normless does not certify the norm l2; it certifies: none."


@pytest.mark.parametrize("how", ["class", "mix-in", "inherited"])
@pytest.mark.parametrize("method", ["certify", "certify_together"])
def test_overriding_what_guards_the_answers_is_refused(method: str, how: str) -> None:
    def certify(self: Any, *args: Any) -> str:
        return "trust me"

    bases: tuple[type, ...] = (RadiusCertifier,)
    body: dict[str, Any] = {method: certify}
    if how == "mix-in":
        bases, body = (type("Mixin", (), body), RadiusCertifier), {}
    elif how == "inherited":
        bases = (Half,)
    message = (
        f"Sly overrides {method}, which is final. Write `radii` (of a RadiusCertifier) or "
        "`margins` (of a DecisionCertifier) instead."
    )
    with pytest.raises(TypeError, match=re.escape(message)):
        type("Sly", bases, body)


def test_author_must_write_the_method() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Lazy(RadiusCertifier):
        norms: ClassVar[frozenset[Norm]] = frozenset(Norm)

    with pytest.raises(TypeError, match=r"abstract.*radii"):
        Lazy()


def test_certifiers_are_abstract_or_final() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Certifier()


# Several classifiers, costs, description.


def test_together_equals_alone_and_the_clean_answer_counts_members(x: Tensor) -> None:
    class Shift(Sum):
        def __init__(self, by: float) -> None:
            super().__init__()
            self.by = by

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + torch.tensor([self.by, 0.0])

    ensemble = Ensemble([Shift(-0.5), Shift(0.1), Shift(0.3)])
    classifiers: Sequence[nn.Module] = [
        ensemble,
        ensemble.with_aggregation(MaxMargin()),
        ensemble.with_aggregation(Single(member=1)),
        Shift(-0.5),
    ]
    together = Half().certify_together(classifiers, x, L2)
    for found, classifier in zip(together, classifiers, strict=True):
        alone = Half().certify(classifier, x, L2)
        for name in ("prediction", "radius", "verdict"):
            assert torch.equal(getattr(found, name), getattr(alone, name))
        assert torch.equal(found.cost.forward_passes, alone.cost.forward_passes)
    assert [int(found.cost.forward_passes[0]) for found in together] == [3, 3, 1, 1]


def test_description_has_what_a_key_needs() -> None:
    certifier = certifiers.create("closed-form-margins", bisection_steps=5)
    assert certifier.describe() == {"name": "closed-form-margins", "version": 1, "parameters": {"bisection_steps": 5}}
    model = Sum()
    assert certifier.target(model) is model


def test_probabilistic_certifier_does_not_ask_the_clean_classifier(x: Tensor) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Chance(Scripted):
        guarantee: ClassVar[Guarantee] = Guarantee.PROBABILISTIC

    class Unasked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            pytest.fail("asked")

    def script(*args: Any) -> Findings:
        return Findings(radius=torch.ones(3), prediction=torch.tensor([2, 0, -1]), failure_probability=0.001)

    found = Chance(script=script).certify(Unasked(), x, L2)
    assert found.prediction.tolist() == [2, 0, -1]
    assert found.verdict.tolist() == [Verdict.CERTIFIED, Verdict.CERTIFIED, Verdict.UNKNOWN]
    assert found.failure_probability.tolist() == [0.001, 0.001, 0.0]
    assert found.cost.forward_passes.tolist() == [0, 0, 0]
