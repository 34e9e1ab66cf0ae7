"""The page "Add a certifier" of CONTRIBUTING, followed literally in an empty folder."""

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from certifiers.conformance import Level, checks

ROOT = Path(__file__).resolve().parents[2]
FILES = ("norm_product.py", "pyproject.toml", "test_norm_product.py", "spec.toml", "plain_smoothing.py")

#: The commands of the page, in one other process, which is where the time goes.
COMMANDS = """
import json, os, sys
from typer.testing import CliRunner
os.chdir(sys.argv[1])
from bench.cli import app
said = []
for words in json.loads(sys.argv[2]):
    result = CliRunner().invoke(app, words)
    said.append([result.exit_code, result.stdout, result.stderr])
print(json.dumps(said))
"""


def page() -> str:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return text[text.index("## Add a certifier") : text.index("## The conformance kit")]


def written(folder: Path) -> dict[str, str]:
    """The files of the page in a folder; the first line of each block is its name."""
    blocks = re.findall(r"```(?:python|toml)\n# (\S+)\n(.*?)```", page(), flags=re.DOTALL)
    for name, text in blocks:
        (folder / name).write_text(text, encoding="utf-8")
    return dict(blocks)


def installed(folder: Path, files: dict[str, str]) -> None:
    """What `pip install` of that project leaves beside it."""
    project = tomllib.loads(files["pyproject.toml"])["project"]
    information = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    ((group, points),) = project["entry-points"].items()
    lines = [f"{name} = {value}\n" for name, value in points.items()]
    (information / "entry_points.txt").write_text(f"[{group}]\n" + "".join(lines))


@pytest.mark.parametrize(("name", "lines"), [("norm_product", 30), ("plain_smoothing", 45)])
def test_it_is_short(name: str, lines: int) -> None:
    (code,) = re.findall(rf"```python\n# {name}\.py\n(.*?)```", page(), flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) < lines


@pytest.mark.slow
def test_it_ends_with_a_checked_row_on_a_board(tmp_path: Path, plain_python: Callable[..., str]) -> None:
    files = written(tmp_path)
    assert tuple(files) == FILES
    before = ["check", "norm_product:NormProduct", "--level", "L0", "--quick"]
    # What the page says of statistics: they see a radius that is 5 % too large.
    larger = files["plain_smoothing.py"].replace("append(gaussian_radius", "append(1.05 * gaussian_radius")
    assert larger != files["plain_smoothing.py"]
    (tmp_path / "larger_smoothing.py").write_text(larger, encoding="utf-8")
    counting = [
        ["check", f"{name}:PlainSmoothing", "--level", "L4", "--quick"]
        for name in ("plain_smoothing", "larger_smoothing")
    ]
    early, sound, unsound = json.loads(plain_python(COMMANDS, tmp_path, json.dumps([before, *counting])))
    assert early[0] == 0, early[1]
    assert sound[0] == 0, sound[1]
    assert "level reached: L4 of L4 asked" in sound[1]
    assert unsound[0] == 1, unsound[1]
    assert "L4 largest-radius: failed: 1000 equal votes give the l2 radius" in unsound[1]
    assert "level reached: L3 of L4 asked" in unsound[1]

    installed(tmp_path, files)
    commands = [
        ["list", "certifiers"],
        ["check", "norm-product", "--quick"],
        ["check", "norm-product", "--level", "L0", "--json"],
        ["run", "spec.toml"],
    ]
    answers = json.loads(plain_python(COMMANDS, tmp_path, json.dumps(commands), path=tmp_path))
    (listed, names, _), (checked, shown, _), (_, data, _), (ran, table, said) = answers
    assert listed == 0
    assert "  norm-product  [norm-product 1.0]\n" in names
    assert checked == 0, shown
    assert "level reached: L2 of L2 asked" in shown
    assert json.loads(data)["level"] == "L0"
    assert ran == 0, said
    assert "│ small · single · norm-product " in table
    board = json.loads((tmp_path / "results" / "boards" / "norm-product" / "board.json").read_text())
    lines = {line["certifier"]: line for line in board["entries"]}
    assert lines["norm-product"]["status"] == "complete"

    suite = """
import sys, pytest
sys.path.insert(0, sys.argv[1])
collected = []
class Plugin:
    def pytest_collection_modifyitems(self, items):
        collected.extend(item.name for item in items)
code = pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", sys.argv[1]], plugins=[Plugin()])
print("collected", int(code), *collected, sep="\\n")
"""
    found = plain_python(suite, tmp_path, path=tmp_path).split("collected\n")[1].split()
    expected = [f"test_conformance[{own.level.name}-{own.name}]" for own in checks(Level.L2)]
    assert found == ["0", *expected]
