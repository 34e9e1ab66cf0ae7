"""Certifiers of ours held against the kit, at the level that boards ask for."""

import warnings
from importlib.util import find_spec
from typing import Any

import pytest

import certifiers
from certifiers import conformance
from certifiers.conformance import Level, Subject

LIRPA = {"ibp", "crown-ibp", "crown", "alpha-crown"}

#: What costs less and proves in the same way: each step of Adam is like the one before, and so is each sample.
SMALLER: dict[str, dict[str, Any]] = {
    "alpha-crown": {"steps": 2},
    # Without alpha-CROWN, which is held against the kit by itself and would be half of the cascade's time.
    "cascade": {"steps": 2, "stages": ("native-ibp", "native-crown-ibp", "attack", "native-crown", "milp")},
    "smoothing-adaptive": {"n": 300},
    "smoothing-phases": {"n": 300},
}


def names(*, relaxations: bool) -> list[str]:
    """Those of `certifiers.relaxation`, or all others; about half of the time each."""
    own = [name for name in certifiers.names() if certifiers.origin(name) == "certbench"]
    return [name for name in own if certifiers.get(name).__module__.startswith("certifiers.relaxation") is relaxations]


def reaches_its_level(name: str) -> None:
    if name in LIRPA and find_spec("auto_LiRPA") is None:
        pytest.skip("auto_LiRPA is not installed")
    certifier = conformance.resolve(name, **SMALLER.get(name, {}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy and scipy, on networks that overflow
        found = conformance.examine(Subject(certifier, quick=True), Level.L2)
    assert [str(result) for result in found.failures] == []
    assert found.level is Level.L2
    assert certifiers.get(name).expected_failures == {}
