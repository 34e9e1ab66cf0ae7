"""Every registered certifier of ours passes the kit, at the level that boards ask for."""

import warnings
from importlib.util import find_spec

import pytest

import certifiers
from certifiers import conformance
from certifiers.conformance import Level, Subject

NAMES = [name for name in certifiers.names() if certifiers.origin(name) == "certbench"]
LIRPA = {"ibp", "crown-ibp", "crown", "alpha-crown"}


@pytest.mark.parametrize("name", NAMES)
def test_it_reaches_its_level(name: str) -> None:
    if name in LIRPA and find_spec("auto_LiRPA") is None:
        pytest.skip("auto_LiRPA is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy and scipy, on networks that overflow
        found = conformance.examine(Subject(conformance.resolve(name), quick=True), Level.L2)
    assert [str(result) for result in found.failures] == []
    assert found.level is Level.L2
    assert certifiers.get(name).expected_failures == {}
