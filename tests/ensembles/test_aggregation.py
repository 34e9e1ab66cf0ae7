import math
from typing import Any

import mpmath
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from ensembles import Aggregation, MaxMargin, ParameterError, Single, UnknownNameError, WeightedAverage, aggregation

Logits = list[list[list[float]]]  # [member][image][class]


@st.composite
def logits(draw: st.DrawFn, largest: float = 20.0) -> Logits:
    members, batch, classes = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(2, 5))
    number = st.floats(-largest, largest, allow_nan=False)
    row = st.lists(number, min_size=classes, max_size=classes)
    image = st.lists(row, min_size=batch, max_size=batch)
    return draw(st.lists(image, min_size=members, max_size=members))


def softmax(row: list[float]) -> list[float]:
    exponentials = [math.exp(value) for value in row]
    return [value / math.fsum(exponentials) for value in exponentials]


def outputs_of(values: Logits, of: str) -> Logits:
    return [[softmax(row) if of == "confidence" else row for row in member] for member in values]


def double(values: Logits) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(actual: Tensor, expected: list[list[float]]) -> bool:
    return torch.allclose(actual, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("of", ["confidence", "logit"])
@given(values=logits(), data=st.data())
def test_weighted_average_equals_its_formula(of: Any, values: Logits, data: st.DataObject) -> None:
    weights = tuple(data.draw(st.lists(st.floats(0, 5), min_size=len(values), max_size=len(values))))
    assume(sum(weights) > 1e-3)
    outputs = outputs_of(values, of)
    expected = [
        [
            sum(weights[i] * outputs[i][b][c] for i in range(len(values))) / sum(weights)
            for c in range(len(values[0][0]))
        ]
        for b in range(len(values[0]))
    ]
    assert close(WeightedAverage(weights=weights, of=of).scores(double(values)), expected)


@pytest.mark.parametrize("of", ["confidence", "logit"])
@given(values=logits())
def test_average_is_the_weighted_average_of_equal_weights(of: Any, values: Logits) -> None:
    outputs = outputs_of(values, of)
    expected = [
        [sum(member[b][c] for member in outputs) / len(outputs) for c in range(len(values[0][0]))]
        for b in range(len(values[0]))
    ]
    assert close(WeightedAverage(of=of).scores(double(values)), expected)


@pytest.mark.parametrize("of", ["confidence", "logit"])
@given(values=logits())
def test_max_margin_answers_with_the_member_of_the_largest_gap(of: Any, values: Logits) -> None:
    outputs = outputs_of(values, of)
    scores = MaxMargin(of=of).scores(double(values))
    for image in range(len(values[0])):
        gaps = []
        for member in outputs:
            first, second, *_ = sorted(member[image], reverse=True)
            gaps.append(first - second)
        best = max(gaps)
        # Members whose gaps a float64 cannot tell apart are both right answers.
        allowed = [member[image] for member, gap in zip(outputs, gaps, strict=True) if gap >= best - 1e-12]
        assert any(close(scores[image], row) for row in allowed)


@given(values=logits(), data=st.data())
def test_single_is_the_logits_of_its_member(values: Logits, data: st.DataObject) -> None:
    member = data.draw(st.integers(0, len(values) - 1))
    single = Single(member=member)
    assert single.uses(len(values)) == (member,)
    assert torch.equal(single.scores(double(values)[[member]]), double(values)[member])


def test_max_margin_of_confidences_and_of_logits_differ() -> None:
    # Confidences are bounded: a logit gap of 4 among many near classes gives a smaller confidence gap than 3 among two.
    values = double([[[4.0, 0.0, 0.0, 0.0, 0.0]], [[3.0, 0.0, -90.0, -90.0, -90.0]]])
    values[0, 0, 1:] = 0.0
    assert MaxMargin(of="logit").scores(values)[0, 0] == 4.0
    gaps = [math.exp(4) - 1, math.exp(3) - 1]
    sums = [math.exp(4) + 4, math.exp(3) + 1]
    larger = max(range(2), key=lambda member: gaps[member] / sums[member])
    assert torch.allclose(MaxMargin().scores(values)[0], values[larger, 0].softmax(-1))


@pytest.mark.parametrize("sure", [(18.0, 30.0), (30.0, 18.0), (25.0, 25.5), (60.0, 59.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_max_margin_tells_members_apart_whose_confidence_rounds_to_one(
    sure: tuple[float, float], dtype: torch.dtype
) -> None:
    # Members that are sure of different classes: the scores show which one answered.
    rows = [[sure[0], 0.0, 1.0], [0.0, sure[1], 1.0]]
    with mpmath.workdps(60):
        gaps = []
        for row in rows:
            parts = sorted((mpmath.exp(value) for value in row), reverse=True)
            gaps.append((parts[0] - parts[1]) / sum(parts))
        truth = int(gaps[1] > gaps[0])
        assert gaps[0] != gaps[1]
    values = torch.tensor(rows, dtype=dtype)[:, None, :]
    if dtype == torch.float32:
        assert bool((values.softmax(-1).amax(-1) > 1 - 1e-7).all())
    scores = MaxMargin().scores(values)
    assert int(scores.argmax()) == truth
    assert torch.equal(scores[0], values[truth, 0].softmax(-1))


def test_equal_gaps_are_answered_by_the_first_member() -> None:
    values = torch.tensor([[[0.0, 2.0, 0.0]], [[2.0, 0.0, 0.0]], [[0.0, 0.0, 2.0]]])
    for of in ("confidence", "logit"):
        assert int(MaxMargin(of=of).scores(values).argmax()) == 1
        assert int(MaxMargin(of=of).scores(values[[1, 0, 2]]).argmax()) == 0


@pytest.mark.parametrize("of", ["confidence", "logit"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_broken_member_breaks_the_scores_of_the_ensemble(of: Any, bad: float) -> None:
    # Fail-closed: whoever reads the scores sees that something is wrong, however sure the other member is.
    for values in (
        torch.tensor([[[9.0, 0.0, 0.0]], [[0.0, bad, 1.0]]]),
        torch.tensor([[[bad, bad, bad]], [[9.0, 0.0, 0.0]]]),
    ):
        for how in (WeightedAverage(of=of), MaxMargin(of=of)):
            assert not bool(torch.isfinite(how.scores(values)).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scores_keep_dtype_and_shape(dtype: torch.dtype) -> None:
    values = torch.rand(3, 4, 5, dtype=dtype)
    for how in (WeightedAverage(), WeightedAverage(weights=(1.0, 0.0, 2.0), of="logit"), MaxMargin(), Single()):
        scores = how.scores(values)
        assert (scores.shape, scores.dtype) == ((4, 5), dtype)


def test_weights_are_checked() -> None:
    with pytest.raises(ParameterError, match=r"weights = \(0\.0, 0\.0\) are all zero\. Give one a positive weight\."):
        WeightedAverage(weights=(0.0, 0.0))
    with pytest.raises(ParameterError, match=r"weights = \(1\.0, -0\.5\) is not allowed.*greater than or equal to 0"):
        WeightedAverage(weights=(1.0, -0.5))
    with pytest.raises(ParameterError, match=r"WeightedAverage: 2 weights for 3 members\. Give one weight a member\."):
        WeightedAverage(weights=(1.0, 0.5)).uses(3)
    assert WeightedAverage(weights=(1.0, 0.5)).uses(2) == (0, 1)


def test_single_checks_its_member() -> None:
    with pytest.raises(ParameterError, match="Single: member 3 of 3; they are counted from 0"):
        Single(member=3).uses(3)
    with pytest.raises(ParameterError, match="member = -1 is not allowed"):
        Single(member=-1)
    assert MaxMargin().uses(3) == (0, 1, 2)


def test_aggregations_by_name() -> None:
    assert {"max-margin", "single", "weighted-average"} <= set(aggregation.names())
    assert aggregation.get("MAX_MARGIN") is MaxMargin
    assert aggregation.origin("single") == "certbench"
    assert aggregation.create("max-margin") == MaxMargin()
    table = {"name": "weighted-average", "weights": [1.0, 3.0], "of": "logit"}
    made = aggregation.create(table)
    assert made == WeightedAverage(weights=(1.0, 3.0), of="logit")
    assert made.describe() == {"name": "weighted-average", "weights": (1.0, 3.0), "of": "logit"}
    assert aggregation.create(made.describe()) == made
    assert table["name"] == "weighted-average"


def test_wrong_names_get_the_nearest_right_one() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown aggregation 'max-magrin'\. Did you mean 'max-margin'\? Avail"):
        aggregation.create("max-magrin")
    with pytest.raises(ParameterError, match=r"Unknown parameter 'weight' of aggregation 'weighted-average'\. Did you"):
        aggregation.create({"name": "weighted-average", "weight": [1.0]})
    with pytest.raises(ParameterError, match=r"An aggregation needs a name, got \{'of': 'logit'\}\. Available: .*max-"):
        aggregation.create({"of": "logit"})


def test_new_aggregation_needs_only_scores() -> None:
    class Least(Aggregation):
        name = "least"

        def scores(self, logits: Tensor) -> Tensor:
            return logits.amin(0)

    assert Least().uses(2) == (0, 1)
    assert Least().describe() == {"name": "least"}


def test_members_of_weight_zero_take_no_part() -> None:
    average = WeightedAverage(weights=(0.0, 1.0, 3.0))
    assert average.uses(3) == (1, 2)
    assert average.used_weights == (1.0, 3.0)
    assert WeightedAverage().used_weights is None
    some = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0)).double()
    assert torch.equal(average.scores(some[1:]), WeightedAverage(weights=(1.0, 3.0)).scores(some[1:]))
    assert torch.allclose(average.scores(some), average.scores(some[1:]))
