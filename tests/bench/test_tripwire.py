import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from bench.tripwire import ratios_of, speeds, tripwire


@pytest.fixture
def tripped(tmp_path: Path) -> Callable[..., Result]:
    """The command on measured ratios, beside a table of two."""
    table = tmp_path / "ratios.json"
    table.write_text(json.dumps({"ratios": {"votes": 5.0, "bounds": 1.0}}))

    def run(ratios: dict[str, float | None], *words: str) -> Result:
        benchmarks: list[dict[str, Any]] = [
            {"name": name, "extra_info": {} if ratio is None else {"ratio": ratio}} for name, ratio in ratios.items()
        ]
        (tmp_path / "perf.json").write_text(json.dumps({"benchmarks": benchmarks}))
        app = typer.Typer()
        app.command()(tripwire)
        return CliRunner().invoke(app, [str(tmp_path / "perf.json"), "--table", str(table), *words])

    return run


@pytest.mark.parametrize(("votes", "code"), [(5.0, 0), (4.0, 0), (3.99, 1), (50.0, 0)])
def test_a_ratio_may_fall_by_a_quarter(tripped: Callable[..., Result], votes: float, code: int) -> None:
    result = tripped({"votes": votes, "bounds": 1.1, "share": None, "new": 2.0})
    assert result.exit_code == code
    assert "new: 2.00x, not in the table" in result.output
    assert ("TRIPPED votes" in result.output) is bool(code)


def test_a_benchmark_that_vanished_trips(tripped: Callable[..., Result]) -> None:
    result = tripped({"votes": 5.0})
    assert result.exit_code == 1
    assert "TRIPPED bounds: committed 1.00x, not measured" in result.output
    assert [speed.tripped for speed in speeds({"votes": math.nan}, {"votes": 1.0})] == [True]


def test_nothing_measured_is_exit_4_and_no_file_exit_2(tripped: Callable[..., Result], tmp_path: Path) -> None:
    assert tripped({"share": None}).exit_code == 4
    assert tripped({}).exit_code == 4
    assert tripped({"votes": 5.0}, "--table", str(tmp_path / "nowhere.json")).exit_code == 2
    with pytest.raises(ValueError, match="it has no list of benchmarks"):
        ratios_of({})


def test_measured_ratios_become_the_table(tripped: Callable[..., Result], tmp_path: Path) -> None:
    assert tripped({"votes": 4.0, "bounds": 2.0}, "--write").exit_code == 0
    assert json.loads((tmp_path / "ratios.json").read_text())["ratios"] == {"bounds": 2.0, "votes": 4.0}
    assert tripped({"votes": 4.0, "bounds": 1.0}).exit_code == 1
