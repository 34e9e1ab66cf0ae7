"""The classifier and the process stay as they are, and where auto_LiRPA is missing that is said."""

import importlib.metadata
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

import certifiers
from certifiers import Verdict
from certifiers.relaxation import lirpa
from tests.certifiers.relaxation.lirpa_under_test import LINF, METHODS


def test_dropout_stays_in_train_mode(models: Any) -> None:
    layers = [nn.Flatten(), nn.Linear(72, 10), nn.ReLU(), nn.Dropout(0.5), nn.Linear(10, 3)]
    classifier, x = nn.Sequential(*layers).train(), models.images(3, 1).float()
    found = certifiers.create("crown").certify(classifier, x, LINF, radii=[0.001, 0.01])
    assert all(module.training for module in classifier.modules())
    layers[3] = nn.Identity()
    same = certifiers.create("crown").certify(nn.Sequential(*layers).eval(), x, LINF, radii=[0.001, 0.01])
    assert bool(found.certified.any())
    torch.testing.assert_close(found.radius, same.radius, atol=0, rtol=0)


def run(code: str) -> str:
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


def test_it_is_imported_only_when_bounds_are_asked_for() -> None:
    code = "import sys, certifiers; certifiers.create('crown'); print('auto_LiRPA' in sys.modules)"
    assert run(code) == "False"


def test_the_process_stays_as_it_is(tmp_path: Any) -> None:
    code = f"""
import logging, os, sys, warnings
os.environ["HOME"], before_home = {str(tmp_path)!r}, os.environ.pop("XDG_DATA_HOME", None)
import torch, certifiers
from torch import nn
from torch.onnx._internal.torchscript_exporter._globals import GLOBALS
torch.export.export(nn.Linear(1, 1), (torch.zeros(2, 1),))  # what reading a network leaves is not asked here

def state():
    executor, mode = torch._C._jit_set_profiling_executor(True), torch._C._jit_set_profiling_mode(True)
    torch._C._jit_set_profiling_executor(executor), torch._C._jit_set_profiling_mode(mode)
    return (
        list(warnings.filters), list(logging.getLogger().handlers), logging.getLogger().level,
        torch.get_default_dtype(),
        GLOBALS.export_onnx_opset_version, executor, mode, hasattr(torch._C.Node, "__getitem__"), dict(os.environ),
        hasattr(sys.modules.get("torch.onnx.symbolic_helper"), "_set_opset_version"),
        "numpy.lib.arraysetops" in sys.modules, torch.is_grad_enabled(), torch.get_num_threads(),
    )

before = state()
x = torch.rand(2, 4)
model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)).eval()
for name in ("ibp", "crown-ibp", "crown", "alpha-crown"):
    found = certifiers.create(name).certify(model, x, certifiers.ThreatModel("linf"), radii=[1e-4, 0.3])
    assert bool(found.certified.any()), found.reason
assert "auto_LiRPA" in sys.modules
for number, (was, now) in enumerate(zip(before, state())):
    assert was == now, (number, was, now)
assert not os.listdir(os.environ["HOME"]), os.listdir(os.environ["HOME"])
"""
    assert run(code) == "", "prints nothing"


def test_without_the_package_it_says_how_to_install_it(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "auto_LiRPA", None)
    classifier, x = models.model("mlp", 40), models.images(2, 1)
    for method in METHODS:
        found = certifiers.create(method).certify(classifier, x, LINF, radii=[0.001])
        assert found.verdict.tolist() == [Verdict.UNSUPPORTED] * 2
        assert "auto_LiRPA is not installed" in found.reason[0]
        assert "`pip install --no-deps auto-LiRPA==0.3`; native-crown needs nothing." in found.reason[0]


def test_what_it_needs_is_named_where_it_is_missing() -> None:
    code = """
import sys
sys.modules["tqdm"] = None
from certifiers import Unsupported
from certifiers.relaxation import lirpa
try:
    lirpa.library()
except Unsupported as reason:
    print(reason)
"""
    found = run(code)
    assert found.startswith("auto_LiRPA cannot be imported (")
    assert "tqdm" in found
    assert found.endswith("Install what it needs; native-crown needs nothing.")


def test_only_0_3_is_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(text: str | None) -> Any:
        def found(name: str) -> str:
            if text is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return text

        return found

    for text, old in [
        ("0.3", True),
        ("0.2.1", True),
        ("0.7.1", False),
        ("0.10.0", False),
        ("1.0", False),
        (None, False),
    ]:
        monkeypatch.setattr(importlib.metadata, "version", version(text))
        assert lirpa._is_old() is old
