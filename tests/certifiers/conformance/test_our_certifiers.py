"""Every registered certifier of ours passes the kit: here those that bound no layers by linear functions."""

import pytest

import certifiers
from tests.certifiers.conformance.our_levels import names, reaches_its_level


@pytest.mark.parametrize("name", names(relaxations=False))
def test_it_reaches_its_level(name: str) -> None:
    reaches_its_level(name)


def test_none_is_left_out() -> None:
    """The relaxations are in a file of their own, which another process can run meanwhile."""
    tested = names(relaxations=False) + names(relaxations=True)
    assert sorted(tested) == [name for name in certifiers.names() if certifiers.origin(name) == "certbench"]
    assert len(names(relaxations=True)) > 5
