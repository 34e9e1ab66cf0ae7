"""Planted ensembles: built from trained members, and certified like any other."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.dry_run import describe_plan
from bench.options import Options
from bench.plan import Plan
from bench.runner import run
from bench.spec import SpecError, read_spec
from leaderboards import read_run

PAIR = """
[planted.pair]
cancelling_pair_of = "three"

[[entries]]
ensemble = "pair"
aggregation = [{ name = "weighted-average", of = "logit" }, { name = "single", member = 1 }]
certifier = "native-crown"

[[entries]]
ensemble = "three"
aggregation = "single"
certifier = "native-crown"

[certifiers.native-crown]
"""


@pytest.fixture
def with_pair(tiny: str) -> str:
    return tiny + PAIR


def test_a_pair_is_built_from_the_first_member_and_certified(
    with_pair: str, plan_of: Callable[..., Plan], tmp_path: Path, reporter: Any
) -> None:
    plan, options = plan_of(with_pair), Options(output=tmp_path / "out")
    assert "  pair: to build" in describe_plan(plan, options)
    outcome = run(plan, options, reporter)
    entries = {entry.name: entry for entry in read_run(outcome.manifest).entries}
    pair, alone = entries["pair · weighted-average(of=logit) · native-crown"], entries["three · single · native-crown"]
    assert pair.rows["clean_prediction"].tolist() == alone.rows["clean_prediction"].tolist()
    assert pair.rows["radius"].tolist() == alone.rows["radius"].tolist()
    assert pair.rows["radius"].max() > 0
    member = entries["pair · single(member=1) · native-crown"]
    assert member.rows["clean_prediction"].tolist() != alone.rows["clean_prediction"].tolist()
    assert pair.warnings == ()
    assert "  pair: stored" in describe_plan(plan, options)
    again = run(plan, options, reporter)
    assert again.computed == 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('of = "three"', 'of = "thre"', "[planted.pair] unknown ensemble 'thre'. Did you mean 'three'?"),
        ("[planted.pair]", "[planted.three]", "[planted.three] there is an ensemble of that name. Choose another."),
        (
            '"mlp"\noptions = { hidden = [16] }',
            '"conv_small"',
            "is made of an ensemble with architecture 'mlp', with hidden",
        ),
        (
            "cancelling_pair_of",
            "cancelling",
            "planted.pair: unknown key 'cancelling'. Did you mean 'cancelling_pair_of'",
        ),
        (
            "{ hidden = [16] }",
            "{ hidden = [] }",
            "with hidden layers and without a grid, got 'mlp', options {'hidden': []}.",
        ),
        ("member = 1 }", "member = 2 }", "ensemble 'pair': Single: member 2 of 2; they are counted from 0."),
    ],
)
def test_mistakes_are_told(with_pair: str, write_spec: Callable[..., Path], old: str, new: str, message: str) -> None:
    assert old in with_pair
    with pytest.raises(SpecError) as caught:
        read_spec(write_spec(with_pair.replace(old, new)))
    assert message in str(caught.value)
