"""What the README says of specs is what the specs say."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_spec_of_the_readme_trains_what_the_quickstart_trains() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (shown,) = (
        tomllib.loads(block)
        for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
        if 'name = "quickstart"' in block
    )
    spec = tomllib.loads((ROOT / "bench" / "specs" / "quickstart.toml").read_text(encoding="utf-8"))
    assert shown["ensembles"] == spec["ensembles"]
    assert shown["data"] == spec["data"]
    assert shown["seed"] == spec["seed"]
    assert shown["certifiers"]["smoothing"].items() <= spec["certifiers"]["smoothing"].items()
