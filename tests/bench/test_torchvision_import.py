import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from bench.torchvision_import import import_torchvision

ROOT = Path(__file__).parents[2]
needs_torchvision = pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed (certbench[vision])"
)


def in_new_process(program: str, folder: Path) -> str:
    """What a program prints that has `folder` first on its path: schemas, once declared, stay for the process."""
    prelude = f"import sys; sys.path[:0] = [{str(folder)!r}, {str(ROOT)!r}]\n"
    done = subprocess.run([sys.executable, "-c", prelude + program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fake_torchvision(folder: Path, source: str) -> None:
    (folder / "torchvision").mkdir()
    (folder / "torchvision" / "__init__.py").write_text(source)
    (folder / "torchvision" / "half.py").write_text("")


@needs_torchvision
def test_datasets_models_and_transforms_are_usable() -> None:
    torchvision = import_torchvision()
    assert torchvision.datasets.CIFAR10.base_folder == "cifar-10-batches-py"
    assert torchvision.transforms.CenterCrop(224).size == (224, 224)
    assert callable(torchvision.models.resnet50)
    assert import_torchvision() is torchvision


def test_a_torchvision_that_lacks_its_operators_is_repaired(tmp_path: Path) -> None:
    # What torchvision 0.28 does: register a fake kernel, which needs the schema.
    fake_torchvision(
        tmp_path,
        "import torch, torchvision.half\n"
        "torch.library.register_fake('torchvision::nms')(lambda d, s, t: d)\n"
        "torch.library.register_fake('torchvision::qnms')(lambda d, s, t: d)\n",
    )
    program = """
from bench.torchvision_import import import_torchvision
import gc, torch
torchvision = import_torchvision()
gc.collect()
print(torch.ops.torchvision.nms.default._schema)
print(torchvision is sys.modules["torchvision"] is import_torchvision(), torchvision.half.__name__)
"""
    assert in_new_process(program, tmp_path).splitlines() == [
        "torchvision::nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "True torchvision.half",
    ]


def test_a_torchvision_that_works_is_left_alone(tmp_path: Path) -> None:
    fake_torchvision(tmp_path, "whole = True")
    program = """
from bench.torchvision_import import import_torchvision
import torch
print(import_torchvision().whole, hasattr(torch.ops.torchvision, "nms"))
"""
    assert in_new_process(program, tmp_path) == "True False\n"


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("raise RuntimeError('another fault')", RuntimeError("another fault")),
        ("import not_there_at_all", ModuleNotFoundError("No module named 'not_there_at_all'")),
    ],
)
def test_other_faults_of_torchvision_are_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, error: Exception
) -> None:
    fake_torchvision(tmp_path, source)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(type(error), match=str(error)):
        import_torchvision()


def test_absent_torchvision_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ImportError, match=r"Install it: pip install 'certbench\[vision\]'\."):
        import_torchvision()
