"""Keep probabilities of priority dropout by hand, and what is refused."""

import math
import re
from typing import Any

import pytest
import torch

from ensembles import Ensemble, ParameterError
from ensembles.training.priority_dropout import LPD, PDD, PDDWithDEG, PriorityDropout
from tests.ensembles.training.priority_dropout_papers import close, keep_of

# By hand: two members, six units


def test_lpd_keeps_by_hand() -> None:
    # Intervals of .1 and their middles: .03 -> .05; .32, .38, .37, .33 -> .35; 1.21, 1.22, 1.28 -> 1.25; 0 is idle.
    first = [0.0, 0.03, 0.32, 0.38, 0.37, 1.21]  # C = 5: n(.05) = 1, n(.35) = 3, n(1.25) = 1
    second = [0.33, 1.22, 1.28, 0.0, 0.0, 0.03]  # C = 4: n(.05) = 1, n(.35) = 1, n(1.25) = 2
    # Together N(.35) = 4, N(1.25) = 3, N(.05) = 2: the first member has priority r = .35, the second r = 1.25.
    # z = n / C (r - mu)^2 and keep = .85 exp(-2 z) + .127, as 2 l = 1:
    #   first, .05: z = 1/5 (.3)^2 = .018    exp(-.036) = .9646403    keep .9469442
    #   first, .35: z = 0                                             keep .977
    #   first, 1.25: z = 1/5 (.9)^2 = .162   exp(-.324) = .7232502    keep .7417627
    #   second, .35: z = 1/4 (.9)^2 = .2025  exp(-.405) = .6669768    keep .6939303
    #   second, 1.25: z = 0                                           keep .977
    #   second, .05: z = 1/4 (1.2)^2 = .36   exp(-.72) = .4867523     keep .5407394
    assert keep_of(LPD(), first, second) == close(
        [1.0, 0.9469442, 0.977, 0.977, 0.977, 0.7417627],
        [0.6939303, 0.977, 0.977, 1.0, 1.0, 0.5407394],
    )
    # gamma = 2 doubles z, and so squares the exponentials.
    assert keep_of(LPD(gamma=2.0), first, second)[1][5] == pytest.approx(0.85 * 0.4867523**2 + 0.127, abs=1e-6)
    # scale = 1 halves the exponent and the height: .85 / 2 exp(-.36) + .127.
    assert keep_of(LPD(scale=1.0), first, second)[1][5] == pytest.approx(0.425 * math.exp(-0.36) + 0.127, abs=1e-6)
    # The second member has the second priority because it is the second.
    assert keep_of(LPD(), second, first)[0][:2] == close([0.977, 0.85 * math.exp(-2 * 2 / 4 * 0.9**2) + 0.127])[0]


def test_pdd_keeps_by_hand() -> None:
    # The least feature of all is 0, the greatest 1: bin = floor(10 v), the last one closed.
    first = [0.0, 0.0, 0.0, 0.0, 1.0, 0.55]  # n: bin 0 four, bin 9 one, bin 5 one
    second = [0.02, 0.12, 0.93, 0.97, 0.92, 0.53]  # n: bin 0 one, bin 1 one, bin 9 three, bin 5 one
    # Together bin 0 has five, bin 9 four, bin 5 two, bin 1 one: priorities 0 for the first member, 9 for the second.
    # Elsewhere keep = .1 (1 - 1/6) = .0833333.
    rest = 0.1 * 5 / 6
    assert keep_of(PDD(), first, second) == close(
        [0.9, 0.9, 0.9, 0.9, rest, rest],
        [rest, rest, 0.9, 0.9, 0.9, rest],
    )
    # Without the idle units bin 9 has four, bin 5 two, bins 0 and 1 one: priorities 9 and 5. The first member has two
    # active units, one in bin 9 and one in bin 5.
    assert keep_of(PDD(active_only=True), first, second) == close(
        [0.1, 0.1, 0.1, 0.1, 0.9, 0.1 * 1 / 2],
        [rest, rest, 0.1 * 3 / 6, 0.1 * 3 / 6, 0.1 * 3 / 6, 0.9],
    )
    assert keep_of(PDD(high=0.6, low=0.3), first, second)[0] == close([0.6] * 4 + [0.25, 0.25])[0]
    # Two bins: 0 up to .5. The first member has four and two, the second two and four; a tie of six.
    assert keep_of(PDD(bins=2), first, second) == close(
        [0.9, 0.9, 0.9, 0.9, 0.1 * 4 / 6, 0.1 * 4 / 6],
        [0.1 * 4 / 6, 0.1 * 4 / 6, 0.9, 0.9, 0.9, 0.9],
    )


def test_statistics_of_a_sample_or_of_the_batch_by_hand() -> None:
    # Two samples of two units. A sample at a time: in the first .05 is everybody's, in the second .15 is.
    features = torch.tensor([[[0.05, 0.05], [0.15, 0.15]], [[0.05, 0.15], [0.15, 0.15]]])
    keep = LPD().keep_probabilities(features)
    # First sample: N(.05) = 3, N(.15) = 1, priorities .05 and .15; second: .15 for both, the only one there is.
    far = 0.85 * math.exp(-2 * 1 / 2 * 0.01) + 0.127
    assert keep[0].tolist() == close([0.977, 0.977], [0.977, 0.977])
    assert keep[1].tolist() == close([far, 0.977], [0.977, 0.977])
    # Over the batch: N(.15) = 5, N(.05) = 3, so priorities .15 and .05; the first member has two of each of four, the
    # second one at .05 and three at .15.
    keep = LPD(statistics="batch").keep_probabilities(features)
    half, three = 0.85 * math.exp(-2 * 2 / 4 * 0.01) + 0.127, 0.85 * math.exp(-2 * 3 / 4 * 0.01) + 0.127
    assert keep[0].tolist() == close([half, half], [0.977, 0.977])
    assert keep[1].tolist() == close([0.977, three], [three, three])


# What is refused


@pytest.mark.parametrize("objective", [PDD(), PDDWithDEG(), LPD()], ids=lambda objective: objective.name)
def test_a_member_without_features_is_named(literal: Any, objective: PriorityDropout) -> None:
    good = literal.build_ensemble(members=1, shape=(1, 1, 2)).members[0]
    ensemble = Ensemble([good, literal.LinearClassifier([[0.0, 0.0]] * 4)])
    x, y = torch.zeros((2, 1, 1, 2), dtype=torch.float64), torch.tensor([0, 1])
    message = (
        f"Objective {objective.name!r} drops penultimate features, but member 1 (LinearClassifier) has no features(x) "
        "and head. Use an architecture of ensembles.architectures, or add them."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        objective.loss(ensemble, x, y, literal.generator(0))


def test_keep_rates_above_one_are_refused() -> None:
    with pytest.raises(
        ParameterError,
        match=r"^LPD: a / \(2 scale\) \+ b = 1\.827 is a probability above 1\. Lower a or b, or raise scale\.$",
    ):
        LPD(a=1.7)
    with pytest.raises(ParameterError, match=r"LPD: a / \(2 scale\) \+ b = 1\.190 "):
        LPD(scale=0.4)
    assert LPD(a=0.75, b=0.25).a == 0.75, "exactly 1 is a probability"
    with pytest.raises(ParameterError, match=r"LPD: b = 1\.0 is not allowed\. Input should be less than 1\."):
        LPD(b=1.0)
    with pytest.raises(ParameterError, match=r"PDD: high = 1\.5 is not allowed\. Input should be less than 1\."):
        PDD(high=1.5)
    with pytest.raises(ParameterError, match=r"PDD: bins = 0 is not allowed\. Input should be greater than 0\."):
        PDD(bins=0)
    with pytest.raises(ParameterError, match=r"PDDWithDEG: deg = -0\.01 is not allowed"):
        PDDWithDEG(deg=-0.01)


def test_the_defaults_are_the_papers() -> None:
    lpd, pdd, deg = LPD(), PDD(), PDDWithDEG()
    assert (lpd.interval, lpd.gamma, lpd.scale, lpd.a, lpd.b) == (0.1, 1.0, 0.5, 0.85, 0.127)
    assert (lpd.statistics, lpd.inverted_scaling) == ("sample", False)
    assert (pdd.bins, pdd.high, pdd.low, pdd.active_only) == (10, 0.9, 0.1, False)
    assert deg.deg == 0.01
    assert all(kind.pairwise and kind.joint for kind in (PDD, PDDWithDEG, LPD))
