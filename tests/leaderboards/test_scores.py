from collections.abc import Callable
from fractions import Fraction

import pandas as pd
import pytest

from leaderboards.metrics import Share
from leaderboards.scores import score


def test_scores_are_the_metrics_side_by_side(make_rows: Callable[..., pd.DataFrame]) -> None:
    found = score(make_rows([0.5, 1.0, None, -2.0]), [Fraction(0), Fraction(3, 4)])
    assert found.certified == (Share(2, 4), Share(1, 4))
    assert found.mean_certified_accuracy == (2 / 4 + 1 / 4) / 2
    assert (found.average_radius, found.median_radius) == (1.5 / 4, 0.25)
    assert found.clean == Share(4, 4)
    assert found.abstention == Share(1, 4)
    assert found.verdicts == {"ABSTAINED": 1, "CERTIFIED": 3}
    assert (found.forward_passes, found.bound_passes, found.seconds) == (100.0, 0.0, 0.5)
    assert found.expected_false_certificates == pytest.approx(0.004)
    assert found.curve.radius.tolist() == [0.0, 0.5, 1.0]


def test_no_radius_is_refused(make_rows: Callable[..., pd.DataFrame]) -> None:
    with pytest.raises(ValueError, match="No radius to score at"):
        score(make_rows([0.5]), [])
