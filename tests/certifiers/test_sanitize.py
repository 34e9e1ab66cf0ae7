import math
import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from certifiers import Certificates, Findings, Guarantee, Verdict
from certifiers.sanitize import CleanAnswer, sanitized

DETERMINISTIC, PROBABILISTIC = Guarantee.DETERMINISTIC, Guarantee.PROBABILISTIC


def clean(predictions: list[int], sure: list[bool] | None = None, classes: int = 4) -> CleanAnswer:
    return CleanAnswer(torch.tensor(predictions), torch.tensor(sure or [True] * len(predictions)), classes)


def certificates(
    radius: list[float] | Tensor,
    own: CleanAnswer | None = None,
    guarantee: Guarantee = DETERMINISTIC,
    **findings: Any,
) -> Certificates:
    radius = torch.tensor(radius, dtype=torch.float64) if isinstance(radius, list) else radius
    count = len(radius)
    own = clean([1] * count) if own is None and guarantee is DETERMINISTIC else own
    return sanitized(Findings(radius=radius, **findings), guarantee, count, own, 1, 0.5)


def test_radius_that_is_not_finite_and_positive_is_not_certified() -> None:
    found = certificates([1.0, math.nan, math.inf, -math.inf, -1.0, 0.0, -0.0, 5e-324])
    assert found.verdict.tolist() == [Verdict.CERTIFIED] + [Verdict.UNKNOWN] * 7
    assert found.radius[1:].tolist() == [0.0] * 7
    assert found.reason == (
        "",
        "the method's radius is nan",
        "the method's radius is inf",
        "the method's radius is -inf",
        "no positive radius was proved",
        "no positive radius was proved",
        "no positive radius was proved",
        "no positive radius was proved",  # the smallest positive number is nothing when rounded down
    )
    assert found.prediction.tolist() == [1] * 8


@given(st.floats(1e-300, 1e300))
def test_float64_radii_are_rounded_down_by_an_ulp_or_two(radius: float) -> None:
    rounded = float(certificates([radius]).radius[0])
    below = math.nextafter(radius, 0)
    assert math.nextafter(below, 0) <= rounded <= below


@given(st.floats(2.0**-100, 2.0**100, width=32))
def test_float32_radii_are_rounded_down_by_a_float32_ulp(radius: float) -> None:
    rounded = float(certificates(torch.tensor([radius], dtype=torch.float32)).radius[0])
    below = float(torch.nextafter(torch.tensor(radius, dtype=torch.float32), torch.tensor(0.0)))
    assert math.nextafter(below, 0) <= rounded <= below < radius


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_radii_of_other_types_are_rounded_down(dtype: torch.dtype) -> None:
    rounded = float(certificates(torch.tensor([3], dtype=dtype)).radius[0])
    assert 3 * (1 - 2 * (torch.finfo(dtype).eps if dtype.is_floating_point else 1e-15)) < rounded < 3


def test_radii_that_were_proved_themselves_are_kept() -> None:
    assert certificates([0.25, 1 / 3], rounded=True).radius.tolist() == [0.25, 1 / 3]


def test_prediction_that_is_not_the_classifiers_own_answer_is_not_certified() -> None:
    found = certificates([1.0, 1.0, 1.0], clean([2, 2, 2]), prediction=torch.tensor([2, 0, -1]))
    assert found.verdict.tolist() == [Verdict.CERTIFIED, Verdict.UNKNOWN, Verdict.UNKNOWN]
    assert found.radius[1:].tolist() == [0.0, 0.0]
    # What is known of an unknown image is the classifier's own answer, not the method's mistake.
    assert found.prediction.tolist() == [2, 2, -1]
    assert found.reason[1:] == ("the method's prediction is not the classifier's own answer",) * 2


def test_image_without_a_sure_answer_is_not_certified() -> None:
    found = certificates([1.0, 1.0], clean([2, 2], [True, False]))
    assert found.verdict.tolist() == [Verdict.CERTIFIED, Verdict.UNKNOWN]
    assert found.prediction.tolist() == [2, -1]
    assert found.reason == ("", "the classifier's scores are tied, NaN or infinite")


@pytest.mark.parametrize("verdict", [v for v in Verdict if v not in (Verdict.CERTIFIED, Verdict.UNKNOWN)])
def test_verdict_of_the_author_stands_against_a_radius(verdict: Verdict) -> None:
    found = certificates([1.0], verdict=torch.tensor([int(verdict)]))
    assert found.verdict.tolist() == [verdict]
    assert found.radius.tolist() == [0.0]
    assert found.prediction.tolist() == [-1]
    assert found.reason == (verdict.name.lower(),)
    told = certificates([1.0], verdict=torch.tensor([int(verdict)]), reason=["since it is so"])
    assert told.reason == ("since it is so",)


def test_certified_is_believed_only_with_a_radius() -> None:
    marks = torch.full((3,), int(Verdict.CERTIFIED))
    found = certificates([0.5, 0.0, math.nan], verdict=marks, reason=["not said", "", ""])
    assert found.verdict.tolist() == [Verdict.CERTIFIED, Verdict.UNKNOWN, Verdict.UNKNOWN]
    assert found.reason == ("", "no positive radius was proved", "the method's radius is nan")


def test_failure_probability_is_kept_to_the_last_bit() -> None:
    found = certificates(
        [1.0, 0.0], guarantee=PROBABILISTIC, prediction=torch.tensor([0, 0]), failure_probability=0.001
    )
    assert found.failure_probability.tolist() == [0.001, 0.0]
    assert certificates([1.0]).failure_probability.tolist() == [0.0]


@given(
    data=st.lists(
        st.tuples(
            st.one_of(st.floats(), st.sampled_from([0.0, 1.0, math.nan, math.inf])),
            st.sampled_from([-1, 0, 1]),
            st.sampled_from([-1, 0, 1]),
            st.booleans(),
            st.sampled_from(list(Verdict)),
        ),
        min_size=1,
        max_size=6,
    ),
    rounded=st.booleans(),
)
@settings(deadline=None)
def test_nothing_in_doubt_is_certified(data: list[tuple[float, int, int, bool, Verdict]], rounded: bool) -> None:
    radius, given_answers, own, sure, marks = (list(column) for column in zip(*data, strict=True))
    found = certificates(
        radius,
        clean([max(answer, 0) for answer in own], sure),
        prediction=torch.tensor(given_answers),
        verdict=torch.tensor([int(mark) for mark in marks]),
        rounded=rounded,
    )
    for row, (r, answer, mine, certain, mark) in enumerate(data):
        allowed = (
            math.isfinite(r)
            and r > 1e-300
            and certain
            and answer == max(mine, 0)
            and mark in (Verdict.CERTIFIED, Verdict.UNKNOWN)
        )
        certified = int(found.verdict[row]) == Verdict.CERTIFIED
        assert certified is allowed or 0 < r <= 1e-300
        if certified:
            assert 0 < float(found.radius[row]) <= r
            assert int(found.prediction[row]) == answer
            assert found.reason[row] == ""
        else:
            assert float(found.radius[row]) == 0.0
            assert found.reason[row] != ""


def test_evidence_and_costs_are_passed_on() -> None:
    found = certificates(
        [1.0, 2.0],
        evidence={"margin": torch.tensor([0.1, 0.2]), "side": ["one", "two"]},
        forward_passes=torch.tensor([3, 4]),
        bound_passes=5,
    )
    assert found.evidence["margin"].tolist() == pytest.approx([0.1, 0.2])  # type: ignore[union-attr]
    assert found.evidence["side"] == ["one", "two"]
    assert found.cost.forward_passes.tolist() == [4, 5], "and one for the clean answer"
    assert found.cost.bound_passes.tolist() == [5, 5]
    assert found.cost.seconds.tolist() == [0.5, 0.5]


def test_nothing_keeps_a_graph_alive() -> None:
    radius = torch.ones(2, dtype=torch.float64, requires_grad=True) * 2
    found = certificates(radius, evidence={"margin": radius})
    assert not found.radius.requires_grad
    assert not found.evidence["margin"].requires_grad  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("findings", "message"),
    [
        ({"radius": torch.ones(3)}, "Findings.radius must have shape [2], one value an image, got [3]."),
        ({"radius": torch.ones(2, 1)}, "Findings.radius must have shape [2], one value an image, got [2, 1]."),
        ({"radius": torch.tensor(1.0)}, "Findings.radius must have shape [2], one value an image, got []."),
        ({"prediction": torch.zeros(1, dtype=torch.int64)}, "Findings.prediction must have shape [2]"),
        ({"verdict": torch.zeros(2, 2)}, "Findings.verdict must have shape [2], one value an image, got [2, 2]."),
        ({"verdict": torch.tensor([0, 7])}, "Findings.verdict must hold values of Verdict, got [7]."),
        ({"verdict": torch.tensor([-1, 300])}, "Findings.verdict must hold values of Verdict, got [-1, 300]."),
        ({"reason": ["why"]}, "Findings.reason must have 2 entries, got 1."),
        ({"evidence": {"margin": torch.ones(3)}}, "Findings.evidence['margin'] must have 2 entries, got 3."),
        ({"forward_passes": torch.ones(3)}, "Findings.forward_passes must have shape [2]"),
        ({"bound_passes": torch.ones(3)}, "Findings.bound_passes must have shape [2]"),
        (
            {"failure_probability": 0.1},
            "A deterministic guarantee has failure probability 0; declare guarantee = PROBABILISTIC.",
        ),
        (
            {"failure_probability": math.nan},
            "A deterministic guarantee has failure probability 0; declare guarantee = PROBABILISTIC.",
        ),
    ],
)
def test_findings_of_a_wrong_form_are_the_authors_mistake(findings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        sanitized(Findings(**{"radius": torch.ones(2), **findings}), DETERMINISTIC, 2, clean([0, 0]), 1, 0.0)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, math.nan])
def test_probabilistic_guarantee_states_its_alpha(alpha: float) -> None:
    found = Findings(radius=torch.ones(1), prediction=torch.tensor([0]), failure_probability=alpha)
    with pytest.raises(ValueError, match=rf"A probabilistic guarantee states its alpha in \(0, 1\), got {alpha}\."):
        sanitized(found, PROBABILISTIC, 1, None, 1, 0.0)


def test_probabilistic_guarantee_states_its_predictions() -> None:
    with pytest.raises(ValueError, match="A probabilistic certifier must return the predictions that its radii speak"):
        sanitized(Findings(radius=torch.ones(1), failure_probability=0.1), PROBABILISTIC, 1, None, 1, 0.0)
