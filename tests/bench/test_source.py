"""Digests of the code of certifiers."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bench.source import libraries, own_source, shared_source
from certifiers import Certifier, create

MODULE = """
from dataclasses import dataclass
from certifiers import Norm, RadiusCertifier

@dataclass(frozen=True, kw_only=True)
class Own(RadiusCertifier):
    norms = frozenset({Norm.L2})
    def radii(self, classifier, x, threat, rng):
        return 0.0 * classifier(x)[:, 0]
"""

STAGE = MODULE.replace("RadiusCertifier", "DecisionCertifier").replace(
    """    def radii(self, classifier, x, threat, rng):
        return 0.0 * classifier(x)[:, 0]
""",
    """    def margins(self, classifier, x, prediction, radius, threat, rng):
        return 0.0 * classifier(x)
""",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def imported(name: str) -> Certifier:
    importlib.invalidate_caches()
    made: Certifier = importlib.import_module(name).Own()
    return made


def test_certbenchs_own_certifiers_have_no_code_of_their_own() -> None:
    assert own_source(create("smoothing", sigma=0.5)) == ""
    assert len(shared_source()) == 64


def test_the_code_of_a_module_is_its_file(folder: Path) -> None:
    path = folder / "outside_module.py"
    path.write_text(MODULE)
    (folder / "beside_it.py").write_text("x = 1")
    certifier = imported("outside_module")
    before = own_source(certifier)
    (folder / "beside_it.py").write_text("x = 2")
    assert own_source(certifier) == before != ""
    path.write_text(MODULE.replace("0.0 *", "1.5 *"))
    assert own_source(certifier) != before


def test_the_code_of_a_package_is_all_of_its_files(folder: Path) -> None:
    package = folder / "outside_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "own.py").write_text(MODULE)
    (package / "helper.py").write_text("x = 1")
    certifier = imported("outside_package.own")
    before = own_source(certifier)
    (package / "helper.py").write_text("x = 2")
    assert own_source(certifier) != before
    (package / "helper.py").write_text("x = 1")
    assert own_source(certifier) == before


def test_what_a_certifier_inherits_is_its_code_too(folder: Path) -> None:
    (folder / "outside_base.py").write_text(MODULE)
    (folder / "outside_heir.py").write_text("import outside_base\n\nclass Own(outside_base.Own):\n    pass\n")
    certifier = imported("outside_heir")
    before = own_source(certifier)
    (folder / "outside_base.py").write_text(MODULE + "\n")
    assert own_source(certifier) != before
    assert "outside_base" in sys.modules


def test_the_code_of_a_stage_is_code_of_the_cascade(folder: Path, offered: Callable[..., None]) -> None:
    path = folder / "outside_stage.py"
    path.write_text(STAGE)
    importlib.invalidate_caches()
    offered("my-stage", importlib.import_module("outside_stage").Own)
    cascade = create("cascade", stages=("native-ibp", "my-stage"))
    before = own_source(cascade)
    assert before != own_source(create("cascade")) == ""
    path.write_text(STAGE + "\n")
    assert own_source(cascade) != before


def test_versions_of_libraries_are_told() -> None:
    assert libraries().startswith(f"torch {torch.__version__.partition('+')[0]}")
    assert all(name in libraries() for name in ("scipy", "highspy", "auto-LiRPA"))
