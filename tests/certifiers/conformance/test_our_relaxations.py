"""The relaxations of ours pass the kit, too."""

import pytest

from tests.certifiers.conformance.our_levels import names, reaches_its_level


@pytest.mark.parametrize("name", names(relaxations=True))
def test_it_reaches_its_level(name: str) -> None:
    reaches_its_level(name)
