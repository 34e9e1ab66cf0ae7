import hashlib
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.keys import canonical_json, digest

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def reversed_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return [reversed_keys(item) for item in value] if isinstance(value, list) else value


@given(VALUES)
def test_canonical_json_is_json_without_spaces_in_ascii(value: Any) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert text.isascii()
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))


@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_the_order_in_which_keys_were_written_does_not_matter(value: dict[str, Any]) -> None:
    assert canonical_json(reversed_keys(value)) == canonical_json(value)
    assert digest(reversed_keys(value)) == digest(value)


def test_the_order_of_a_list_and_the_type_of_a_number_matter() -> None:
    different = [{"a": [1, 2]}, {"a": [2, 1]}, {"a": [1, 2.0]}, {"a": [True, 2]}, {"a": ["1", 2]}, {"b": [1, 2]}]
    assert len({digest(fields) for fields in different}) == len(different)


def test_tuples_are_lists() -> None:
    assert canonical_json((1, (2,))) == "[1,[2]]"


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused(number: float) -> None:
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        digest({"alpha": [number]})


def test_what_is_not_json_is_refused() -> None:
    with pytest.raises(TypeError, match="Object of type object is not JSON serializable"):
        digest({"alpha": object()})


def test_the_digest_is_sha_256_of_the_canonical_text() -> None:
    assert digest({"b": 1, "a": "\u00b7"}) == hashlib.sha256(b'{"a":"\\u00b7","b":1}').hexdigest()
