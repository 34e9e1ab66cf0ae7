import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from ensembles import ParameterError, Parameters
from ensembles.parameters import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
    describe,
    execution_field,
)


@dataclass(frozen=True, kw_only=True)
class Recipe(Parameters):
    sigma: PositiveFloat
    alpha: Probability = 0.001
    samples: PositiveInt = 10
    start: NonNegativeInt = 0
    decay: NonNegativeFloat = 0.0
    weights: tuple[NonNegativeFloat, ...] | None = None
    form: Literal["paper", "code"] = "paper"
    sharp: bool = False
    batch_size: PositiveInt = execution_field(100)


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("sigma", 0.0, "should be greater than 0"),
        ("sigma", -1.0, "should be greater than 0"),
        ("sigma", math.nan, "should be a finite number"),
        ("sigma", math.inf, "should be a finite number"),
        ("sigma", "0.5", "should be a valid number"),
        ("sigma", None, "should be a valid number"),
        ("sigma", True, "should be a valid number"),
        ("alpha", 0.0, "should be greater than 0"),
        ("alpha", 1.0, "should be less than 1"),
        ("alpha", math.nan, "should be less than 1"),
        ("samples", 0, "should be greater than 0"),
        ("samples", 10.0, "should be a valid integer"),
        ("samples", True, "should be a valid integer"),
        ("start", -1, "should be greater than or equal to 0"),
        ("decay", -0.1, "should be greater than or equal to 0"),
        ("decay", math.inf, "should be a finite number"),
        ("weights", (1.0, -1.0), "should be greater than or equal to 0"),
        ("weights", (1.0, math.nan), "should be a finite number"),
        ("weights", 1.0, "should be a valid tuple"),
        ("form", "papers", "should be 'paper' or 'code'"),
        ("sharp", 1, "should be a valid boolean"),
        ("batch_size", 0, "should be greater than 0"),
    ],
)
def test_refused_values_are_named_with_what_is_allowed(field: str, value: Any, problem: str) -> None:
    with pytest.raises(ParameterError) as caught:
        Recipe(**{"sigma": 1.0, field: value})
    assert str(caught.value).startswith(f"Recipe: {field} = {value!r} is not allowed. Input ")
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [("sigma", 5e-324), ("alpha", 1e-300), ("alpha", math.nextafter(1, 0)), ("start", 0), ("decay", 0), ("samples", 1)],
)
def test_ends_of_the_ranges_are_allowed(field: str, value: float) -> None:
    assert getattr(Recipe(**{"sigma": 1.0, field: value}), field) == value


def test_parameters_are_frozen_and_equal_by_value() -> None:
    recipe = Recipe(sigma=0.5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.sigma = 1.0  # type: ignore[misc]
    assert recipe == Recipe(sigma=0.5)
    assert hash(recipe) == hash(Recipe(sigma=0.5))
    assert recipe != Recipe(sigma=0.25)


def test_table_of_a_spec_becomes_parameters() -> None:
    made = Recipe.from_mapping({"sigma": 0.5, "weights": [1, 0.5], "form": "code"}, "recipe 'r'")
    assert made == Recipe(sigma=0.5, weights=(1.0, 0.5), form="code")
    assert isinstance(made.weights, tuple)


def test_unknown_name_says_the_nearest_and_the_list() -> None:
    with pytest.raises(ParameterError) as caught:
        Recipe.from_mapping({"sigma": 0.5, "batchsize": 3}, "recipe 'r'")
    assert str(caught.value) == (
        "Unknown parameter 'batchsize' of recipe 'r'. Did you mean 'batch_size'? "
        "Allowed: alpha, batch_size, decay, form, samples, sharp, sigma, start, weights."
    )
    with pytest.raises(ParameterError, match=r"^Unknown parameter 'x' of nothing\. Allowed: none\.$"):
        Parameters.from_mapping({"x": 1}, "nothing")


def test_missing_parameters_are_named() -> None:
    with pytest.raises(ParameterError, match=r"^recipe 'r' needs 'sigma'\. Add sigma = \.\.\. to its table\.$"):
        Recipe.from_mapping({}, "recipe 'r'")


def test_wrong_value_in_a_table_is_refused_like_any_other() -> None:
    with pytest.raises(ParameterError, match=r"^Recipe: sigma = '0\.5' is not allowed"):
        Recipe.from_mapping({"sigma": "0.5"}, "recipe 'r'")


def test_identity_holds_what_decides_the_result_and_nothing_else() -> None:
    identity = Recipe(sigma=0.5).identity()
    assert set(identity) == {"sigma", "alpha", "samples", "start", "decay", "weights", "form", "sharp"}
    assert Recipe(sigma=0.5, batch_size=7).identity() == identity
    assert Recipe(sigma=0.25).identity() != identity


def test_one_and_one_point_zero_are_one_identity() -> None:
    # TOML tells `sigma = 1` from `sigma = 1.0`; a key, which is JSON, must not.
    whole = Recipe(sigma=1, decay=2, weights=(1, 0))
    point = Recipe(sigma=1.0, decay=2.0, weights=(1.0, 0.0))
    assert json.dumps(whole.identity()) == json.dumps(point.identity())


def test_describe_has_a_row_for_each_field() -> None:
    rows = {row["name"]: row for row in describe(Recipe)}
    assert list(rows) == [field.name for field in dataclasses.fields(Recipe)]
    assert rows["sigma"] == {"name": "sigma", "type": "float", "default": "required", "role": "identity"}
    assert rows["form"]["type"] == "'paper' | 'code'"
    assert rows["batch_size"] == {"name": "batch_size", "type": "int", "default": "100", "role": "execution"}
