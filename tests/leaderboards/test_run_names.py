import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaderboards.run_names import RUN_NAME, is_run_name


@given(st.from_regex(RUN_NAME, fullmatch=True), st.sampled_from(["", "-limit3", "-selection-DRT_1.5"]))
def test_what_a_spec_may_be_called_and_what_is_appended_may_be_stored(name: str, appended: str) -> None:
    assert is_run_name(name + appended)


@given(st.text(alphabet="aA0._-/\\~: \n\0", max_size=8))
def test_a_run_of_any_name_lies_in_the_folder_that_it_is_joined_to(name: str) -> None:
    if is_run_name(name):
        joined = Path("/store/runs") / name
        assert joined.parent == joined.resolve().parent == Path("/store/runs")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "/x", "a/b", "a\\b", ".hidden", "-x", "a b", "a\n", "ä", "a" * 251, None, 3, ["a"]]
)
def test_what_is_no_name_of_a_folder_is_no_name_of_a_run(name: object) -> None:
    assert not is_run_name(name)
    assert not (isinstance(name, str) and re.fullmatch(RUN_NAME, name))
