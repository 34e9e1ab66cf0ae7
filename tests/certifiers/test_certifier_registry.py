import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import certifiers
from certifiers.certifier import Certifier
from certifiers.registry import _registry
from certifiers.smoothing import Smoothing
from ensembles import ParameterError, RegistryError, UnknownNameError

OUTSIDER = """
from dataclasses import dataclass
from certifiers import Norm, RadiusCertifier
from certifiers.exact import ClosedForm

@dataclass(frozen=True, kw_only=True)
class Outside(RadiusCertifier):
    norms = frozenset({Norm.L2})
    factor: float = 0.5

    def radii(self, classifier, x, threat, rng):
        scores = classifier(x).sort(dim=1).values
        return self.factor * (scores[:, -1] - scores[:, -2])

class Derived(ClosedForm):
    pass

class NotOne:
    pass
"""


@pytest.fixture
def outsider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a distribution with a certifier on sys.path, as pip leaves it there."""

    def install(entry_points: str) -> None:
        info = tmp_path / "outside-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(f"[certbench.certifiers]\n{entry_points}\n")
        (tmp_path / "outside_certifiers.py").write_text(OUTSIDER)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "outside_certifiers", raising=False)

    return install


def test_ours_are_listed() -> None:
    assert {"closed-form", "closed-form-margins", "smoothing"} <= set(certifiers.names())
    assert certifiers.names() == sorted(certifiers.names())
    assert certifiers.origin("smoothing") == "certbench"
    assert certifiers.get("Smoothing") is Smoothing
    assert Smoothing.name == "smoothing"


def test_create_and_from_mapping_agree() -> None:
    table = {"sigma": 0.5, "n": 10}
    made = certifiers.from_mapping("smoothing", table)
    assert made == certifiers.create("smoothing", **table)
    assert isinstance(made, Certifier)
    assert table == {"sigma": 0.5, "n": 10}


@pytest.mark.parametrize(
    ("name", "parameters", "error", "message"),
    [
        (
            "smothing",
            {},
            UnknownNameError,
            r"Unknown certifier 'smothing'\. Did you mean 'smoothing'\? Available: alpha-crown",
        ),
        ("smoothing", {"sigm": 1.0}, ParameterError, "Unknown parameter 'sigm' of certifier 'smoothing'. Did you mean"),
        ("smoothing", {}, ParameterError, r"certifier 'smoothing' needs 'sigma'\. Add sigma = \.\.\. to its table"),
        ("smoothing", {"sigma": 0.0}, ParameterError, r"Smoothing: sigma = 0\.0 is not allowed"),
    ],
)
def test_wrong_words_say_what_is_right(
    name: str, parameters: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        certifiers.create(name, **parameters)


def test_register_names_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_registry, "_registered", dict(_registry._registered))
    monkeypatch.setattr(_registry, "_spelling", dict(_registry._spelling))

    @certifiers.register("mine")
    class Mine(Smoothing):
        pass

    assert Mine.name == "mine"
    assert certifiers.get("mine") is Mine
    assert Smoothing.name == "smoothing"
    with pytest.raises(RegistryError, match="The certifier name 'smoothing' is taken by certifiers"):
        certifiers.register("smoothing")(Mine)


def test_outsiders_certifier_is_found_by_its_entry_point(outsider: Callable[[str], None]) -> None:
    outsider("Half_Margin = outside_certifiers:Outside")
    assert "half-margin" in certifiers.names()
    assert certifiers.origin("half-margin") == "outside 1.5"
    made = certifiers.create("half-margin", factor=0.25)
    assert made.describe() == {"name": "half-margin", "version": 1, "parameters": {"factor": 0.25}}


def test_outsiders_certifier_that_derives_from_ours_has_a_name_of_its_own(outsider: Callable[[str], None]) -> None:
    # Rows are stored under the name: an inherited one would hand out the results of the other method.
    outsider("derived = outside_certifiers:Derived")
    assert certifiers.create("derived").name == "derived"
    assert certifiers.get("closed-form").name == "closed-form"


def test_outsiders_class_that_is_no_certifier_is_refused(outsider: Callable[[str], None]) -> None:
    outsider("odd = outside_certifiers:NotOne")
    message = (
        r"The certifier 'odd' of outside 1\.5 is <class '.*NotOne'>, which does not derive from Certifier\. Name a"
    )
    with pytest.raises(RegistryError, match=message):
        certifiers.create("odd")
