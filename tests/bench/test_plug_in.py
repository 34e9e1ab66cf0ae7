import json
from collections.abc import Callable
from pathlib import Path

import certifiers
from leaderboards import read_run

PYPROJECT = """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "certify-outside"
version = "1.2"
dependencies = ["certbench"]

[project.entry-points."certbench.certifiers"]
confidence-gap = "certify_outside:ConfidenceGap"
"""

# The whole package of somebody who has never seen ours, but for its contract.
MODULE = '''
"""A certifier from outside."""
from dataclasses import dataclass

from certifiers import Norm, RadiusCertifier, Unsupported


@dataclass(frozen=True, kw_only=True)
class ConfidenceGap(RadiusCertifier):
    """A radius that is no proof of anything, from the gap of the two top scores."""

    norms = frozenset({Norm.L2})
    version = 3
    scale: float = 1.0

    def radii(self, classifier, x, threat, rng):
        top = classifier(x).topk(2).values
        if self.scale > 100:
            raise Unsupported("scale is above 100; choose a smaller one")
        return self.scale * (top[:, 0] - top[:, 1])
'''

CERTIFIERS = """
[certifiers.gap]
method = "confidence-gap"
scale = 0.125

[certifiers.huge]
method = "confidence-gap"
scale = 1e3

[certifiers.smoothing]
"""


#: Two commands in one other process, which is where the time goes.
COMMANDS = """
import json, sys
from typer.testing import CliRunner
from bench.cli import app
spec, output = sys.argv[1:]
said = [CliRunner().invoke(app, words) for words in (["list", "certifiers"], ["run", spec, "--output", output])]
print(json.dumps([[result.exit_code, result.stdout, result.stderr] for result in said]))
"""


def installed(folder: Path) -> Path:
    """What `pip install` of that project leaves in site-packages."""
    project, site = folder / "project", folder / "site-packages"
    information = site / "certify_outside-1.2.dist-info"
    information.mkdir(parents=True)
    project.mkdir()
    (project / "pyproject.toml").write_text(PYPROJECT)
    (site / "certify_outside.py").write_text(MODULE)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: certify-outside\nVersion: 1.2\n")
    (information / "entry_points.txt").write_text(
        "[certbench.certifiers]\nconfidence-gap = certify_outside:ConfidenceGap\n"
    )
    return site


def test_a_certifier_of_another_package_is_listed_and_on_a_board(
    copied: Path, tmp_path: Path, edited: Callable[..., str], plain_python: Callable[..., str]
) -> None:
    spec = tmp_path / "outside.toml"
    spec.write_text(
        edited(
            ('name = "tiny"\n', 'name = "outside"\n'),
            ("\n[certifiers.smoothing]\n", CERTIFIERS),
            (
                '["weighted-average", "max-margin"]\ncertifier = "smoothing"',
                '"max-margin"\ncertifier = ["gap", "huge"]',
            ),
        )
    )
    answers = json.loads(plain_python(COMMANDS, spec, copied, path=installed(tmp_path / "outside")))
    (listed, stdout, _), (ran, board_table, stderr) = answers
    assert listed == 0
    start = stdout.index("  confidence-gap  [certify-outside 1.2]\n")
    assert "A radius that is no proof of anything, from the gap" in stdout[start:].splitlines()[1]
    assert "      scale: float = 1.0" in stdout[start:]

    assert ran == 0, stderr
    assert "│ three · max-margin · gap " in board_table
    assert "three · max-margin · huge (unsupported)" in board_table
    board = json.loads((copied / "boards" / "outside" / "board.json").read_text())
    lines = {line["name"]: line for line in board["entries"]}
    ours = lines["three · max-margin · gap"]
    assert (ours["certifier"], ours["guarantee"], ours["status"]) == ("confidence-gap", "deterministic", "complete")
    assert ours["parameters"] == {"scale": 0.125}
    assert ours["details"]["certifier"]["version"] == 3
    assert lines["three · max-margin · huge"]["reason"] == "scale is above 100; choose a smaller one"
    entry = {entry.name: entry for entry in read_run(copied / "runs" / "outside" / "run.json").entries}[ours["name"]]
    certified = entry.rows[entry.rows["verdict"] == "CERTIFIED"]
    assert len(certified) == 20
    assert certified["radius"].between(0, 0.125).all()
    assert certified["prediction"].tolist() == certified["clean_prediction"].tolist()

    # Without the package there is no such name: it came from there and from nowhere else.
    assert "confidence-gap" not in certifiers.names()
