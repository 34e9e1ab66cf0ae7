import json
import re
import shlex
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from bench import cli, endings
from bench.spec import packaged_specs
from leaderboards import read_run

ENTRIES = ["single", "three · weighted-average · smoothing", "three · max-margin · smoothing"]
FILES = ["board.html", "board.md", "board.csv", "board.json", "board.tex", "curves.svg", "curves.png"]
LOADED = """
import contextlib, io, sys
sys.argv = ["certbench", *sys.argv[1:]]
from bench.cli import main
said = io.StringIO()
with contextlib.redirect_stdout(said):
    try:
        main()
    except SystemExit as exit:
        code = exit.code
print(code, "torch" in sys.modules, len(said.getvalue()))
"""
Certbench = Callable[..., Result]


def test_the_installed_command_is_main() -> None:
    (script,) = [point for point in metadata.distribution("certbench").entry_points if point.group == "console_scripts"]
    assert (script.name, script.value, script.load()) == ("certbench", "bench.cli:main", cli.main)


# ---- streams


def test_data_go_to_stdout_and_progress_to_stderr(finished: tuple[Path, Result]) -> None:
    folder, result = finished
    lines = result.stdout.splitlines()
    assert lines[0].strip() == "A tiny board"
    for name in ENTRIES:
        assert sum(f"│ {name} " in line for line in lines) == 1
    paths = [line.split(maxsplit=1) for line in lines[-len(FILES) :]]
    assert [tuple(words) for words in paths] == [(name, str(folder / "boards" / "tiny" / name)) for name in FILES]
    assert all(Path(path).stat().st_size > 100 for _, path in paths)
    table = [line for line in lines[1 : -len(FILES)] if line.strip()]
    borders = [line for line in table if line[0] in "┏┃┡│└├"]
    assert len(borders) == 8  # three of frame, the head, three entries, and the line above those that are unverified
    assert "Ranked by the mean of the certified accuracies" in " ".join(" ".join(table[len(borders) :]).split())

    lines = result.stderr.splitlines()
    patterns = [
        *(
            rf"train three member {number} of 3: 3/3, [\d.]+ s, loss [\d.]+, noisy validation .*"
            for number in (1, 2, 3)
        ),
        rf"certify {', '.join(ENTRIES)}: 20/20, [\d.]+ s, 3 entries",
        r"60 rows computed, 0 were stored\.",
    ]
    told = [line for line in lines if " left" not in line]
    assert len(told) == len(patterns)
    for line, pattern in zip(told, patterns, strict=True):
        assert re.fullmatch(pattern, line)
    assert "\x1b" not in result.stdout + result.stderr


def test_again_says_that_nothing_was_computed(copied: Path, tmp_path: Path, tiny: str, certbench: Certbench) -> None:
    (tmp_path / "tiny.toml").write_text(tiny)
    result = certbench("run", tmp_path / "tiny.toml", "--output", copied)
    assert (result.exit_code, result.stderr) == (0, "0 rows computed, 60 were stored.\n")


def test_names_with_markup_and_strange_letters_reach_the_board_as_text(
    copied: Path, tmp_path: Path, edited: Callable[..., str], certbench: Certbench
) -> None:
    hostile = '[red]a[/] <b>b</b> :key: {x} %s $y$ \\ "q" ../z \U0001f600'
    text = edited(('name = "single"', f"name = '{hostile}'"), ('title = "A tiny board"', f"title = '{hostile}'"))
    (tmp_path / "tiny.toml").write_text(text)
    result = certbench("run", tmp_path / "tiny.toml", "--output", copied)
    assert result.exit_code == 0
    assert f"│ {hostile} " in result.stdout
    assert " ".join(result.stdout.split()).startswith(hostile)
    board = json.loads((copied / "boards" / "tiny" / "board.json").read_text())
    assert (board["title"], hostile in [line["name"] for line in board["entries"]]) == (hostile, True)
    assert read_run(copied / "runs" / "tiny" / "run.json").entries[0].name == hostile
    assert "<b>b</b>" not in (copied / "boards" / "tiny" / "board.html").read_text()
    # The rows are the same cell's: a name is not part of a key.
    assert "0 rows computed, 60 were stored." in result.stderr
    # And where it is told what is being done.
    for path in (copied / "cells").glob("*/rows-*"):
        path.unlink()
    assert f"certify {hostile}, three" in certbench("run", tmp_path / "tiny.toml", "--output", copied).stderr


# ---- run


def test_a_dry_run_tells_what_is_stored_and_writes_nothing(
    finished: tuple[Path, Result], tmp_path: Path, tiny: str, certbench: Certbench
) -> None:
    (tmp_path / "tiny.toml").write_text(tiny)
    output = tmp_path / "nowhere" / "results"
    result = certbench("run", tmp_path / "tiny.toml", "--output", output, "--dry-run")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.count("to certify: 20 images, after training") == 3
    assert not output.parent.exists()
    result = certbench("run", tmp_path / "tiny.toml", "--output", finished[0], "--dry-run")
    assert result.stdout.count(": stored") == 6
    assert "to certify" not in result.stdout


def test_a_limit_is_a_run_of_its_own_beside_the_full_one(
    copied: Path, tmp_path: Path, tiny: str, certbench: Certbench
) -> None:
    (tmp_path / "tiny.toml").write_text(tiny)
    before = (copied / "runs" / "tiny" / "run.json").read_bytes()
    result = certbench("run", tmp_path / "tiny.toml", "--output", copied, "--limit", 3)
    assert result.exit_code == 0
    assert "9 rows computed, 0 were stored." in result.stderr
    assert (copied / "runs" / "tiny" / "run.json").read_bytes() == before
    few = read_run(copied / "runs" / "tiny-limit3" / "run.json")
    whole = read_run(copied / "runs" / "tiny" / "run.json")
    assert few.entries[0].images == 3
    ids = whole.entries[0].rows["image_id"].tolist()
    assert few.entries[0].rows["image_id"].tolist() == [ids[0], ids[6], ids[13]]
    assert (copied / "boards" / "tiny-limit3" / "board.html").is_file()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--device", "cuda:99"], "error: Device 'cuda:99' is not here. Available: cpu"),
        (["--device", "tpu"], "error: Device 'tpu' is not here. Available: cpu"),
        (["--limit", "0"], "Invalid value for '--limit': "),
        (["--block-size", "0"], "Invalid value for '--block-size': "),
        (["--batch-size", "-1"], "Invalid value for '--batch-size': "),
        (["--limit", "few"], "Invalid value for '--limit': "),
        (["--outptu", "x"], "No such option: --outptu"),
    ],
)
def test_bad_usage_is_exit_2(words: list[str], text: str, certbench: Certbench) -> None:
    result = certbench("run", *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert text in " ".join(re.sub("[│╭╰─╮╯]", " ", result.stderr).split())


def test_a_missing_data_folder_is_exit_2_and_says_what_was_looked_for_where_and_what_to_do(
    tmp_path: Path, edited: Callable[..., str], certbench: Certbench
) -> None:
    nowhere = tmp_path / "nowhere"
    for name, wanted, source in (
        ("mnist", "MNIST/raw/train-images-idx3-ubyte", "Get it with torchvision.datasets.MNIST("),
        ("fashion-mnist", "train-images-idx3-ubyte", "Install Debian's package (apt-get install dataset-fashion-mni"),
    ):
        (tmp_path / "tiny.toml").write_text(edited(('name = "digits"', f'name = "{name}"\nroot = "{nowhere}"')))
        result = certbench("run", tmp_path / "tiny.toml", "--output", tmp_path / "results")
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        assert str(nowhere) in result.stderr
        assert wanted in result.stderr
        assert source in result.stderr
    assert not (tmp_path / "results").exists()


# ---- board


def test_a_board_as_json_is_the_published_document(copied: Path, certbench: Certbench) -> None:
    published = copied / "boards" / "tiny" / "board.json"
    before = published.read_text()
    published.unlink()
    result = certbench("board", "tiny", "--output", copied, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == published.read_text() == before
    document = json.loads(result.stdout)
    assert [line["name"] for line in document["entries"] if line["rank"] == 1]
    assert sorted(line["name"] for line in document["entries"]) == sorted(ENTRIES)
    assert document["radii"] == ["0", "0.25", "0.5"]


def test_a_board_again_is_the_table_of_the_run(finished: tuple[Path, Result], certbench: Certbench) -> None:
    result = certbench("board", "tiny", "--output", finished[0])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == finished[1].stdout


def test_a_board_by_the_path_of_its_run(
    copied: Path, certbench: Certbench, monkeypatch: pytest.MonkeyPatch, finished: tuple[Path, Result]
) -> None:
    by_path = certbench("board", copied / "runs" / "tiny" / "run.json")
    assert by_path.exit_code == 0
    monkeypatch.chdir(copied / "runs" / "tiny")
    beside = certbench("board", "run.json")
    assert (beside.exit_code, beside.stdout) == (0, by_path.stdout)
    assert by_path.stdout.replace(str(copied), str(finished[0])) == finished[1].stdout
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["run.json", "spec.toml"]


@pytest.mark.parametrize(("name", "guess"), [("tinny", "Did you mean 'tiny'? "), ("zzz", "")])
def test_an_unknown_run_is_exit_2_with_the_nearest(
    name: str, guess: str, finished: tuple[Path, Result], certbench: Certbench
) -> None:
    result = certbench("board", name, "--output", finished[0])
    assert (result.exit_code, result.stdout) == (2, "")
    expected = f"No run at {finished[0]}/runs/{name}/run.json. {guess}Stored in {finished[0]}: tiny."
    assert result.stderr == f"error: {expected}\n"


def test_an_empty_store_has_no_runs(tmp_path: Path, certbench: Certbench) -> None:
    result = certbench("board", "tiny", "--output", tmp_path)
    assert result.exit_code == 2
    assert result.stderr.endswith(f"Stored in {tmp_path}: none.\n")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("{", "not the description of a run"),
        ("[]", "not the description of a run"),
        ('{"schema": 99}', "written with schema 99, this program reads schema 1. Run the spec again."),
    ],
)
def test_a_damaged_manifest_is_exit_1(content: str, text: str, copied: Path, certbench: Certbench) -> None:
    (copied / "runs" / "tiny" / "run.json").write_text(content)
    result = certbench("board", "tiny", "--output", copied)
    assert (result.exit_code, result.stdout) == (1, "")
    assert text in result.stderr


def test_swapped_folders_of_entries_are_exit_1(copied: Path, certbench: Certbench) -> None:
    manifest = copied / "runs" / "tiny" / "run.json"
    document = json.loads(manifest.read_text())
    first, second = document["entries"][:2]
    first["folder"], second["folder"] = second["folder"], first["folder"]
    manifest.write_text(json.dumps(document))
    result = certbench("board", "tiny", "--output", copied)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"Entry {first['name']!r} takes its rows from {first['folder']!r}" in result.stderr


def test_rows_that_vanished_are_exit_1(copied: Path, certbench: Certbench) -> None:
    next(copied.glob("cells/*/rows-*")).unlink()
    result = certbench("board", "tiny", "--output", copied)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "is complete for 20 images but has 10 rows. Run its spec again." in result.stderr


# ---- list and help


def test_certifiers_as_json(certbench: Certbench) -> None:
    result = certbench("list", "certifiers", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert list(found) == ["certifiers"]
    assert {"smoothing", "closed-form", "closed-form-margins"} <= {item["name"] for item in found["certifiers"]}


def test_the_list_shows_names_summaries_and_parameters(certbench: Certbench) -> None:
    result = certbench("list")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    for kind in ("certifiers", "objectives", "aggregations", "architectures", "datasets", "specs"):
        assert f"{kind}:" in lines
    start = lines.index("  smoothing")
    assert lines[start + 1].startswith("      Randomized smoothing, certified by the Neyman-Pearson lemma")
    assert "      sigma: float = required" in lines[start:]
    assert all(f"  {name}" in lines for name in packaged_specs())


def test_an_unknown_kind_is_exit_2_with_the_nearest(certbench: Certbench) -> None:
    result = certbench("list", "certifers")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "error: Unknown kind 'certifers'. Did you mean 'certifiers'? Available: certifiers, objectives, aggregations, "
        "architectures, datasets, specs.\n"
    )


@pytest.mark.parametrize("command", ["run", "board", "list"])
def test_help_has_examples_that_can_be_typed(command: str, certbench: Certbench) -> None:
    result = certbench(command, "--help")
    assert result.exit_code == 0
    assert "Examples:" in result.stdout
    examples = re.findall(rf"^ *(certbench {command}.*?)(?:  .*)?$", result.stdout, re.MULTILINE)
    assert len(examples) >= 3
    options = set(re.findall(r"--[a-z-]+", result.stdout.partition("Options")[2]))
    for example in examples:
        words = shlex.split(example.partition(" | ")[0])
        assert {word for word in words if word.startswith("--")} <= options


def test_help_tells_the_exit_codes(certbench: Certbench) -> None:
    result = certbench("--help")
    told = " ".join(result.stdout.split())
    for text in ("0 ok", "1 a check failed", "2 bad usage or spec", "3 finished with ERROR", "4 nothing", "130 interr"):
        assert text in told
    codes = (endings.OK, endings.CHECK_FAILED, endings.USAGE, endings.UNFINISHED)
    codes += (endings.NOTHING_MEASURED, endings.INTERRUPTED)
    assert codes == (0, 1, 2, 3, 4, 130)


def test_no_command_is_help(certbench: Certbench) -> None:
    result = certbench()
    assert result.exit_code == 2
    assert "Usage: " in result.output


def test_help_and_boards_do_not_load_torch(copied: Path, plain_python: Callable[..., str]) -> None:
    for words in (["--help"], ["board", "tiny", "--output", str(copied)]):
        code, loaded, said = plain_python(LOADED, *words).split()
        assert (code, loaded) == ("0", "False")
        assert int(said) > 500


def test_ctrl_c_is_exit_130_whatever_it_interrupts(
    tmp_path: Path, tiny: str, certbench: Certbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    (tmp_path / "tiny.toml").write_text(tiny)
    for place in (
        "bench.plan.make_plan",
        "bench.training.train",
        "bench.certification._image",
        "leaderboards.build_board",
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, interrupt)
            result = certbench("run", tmp_path / "tiny.toml", "--output", tmp_path / "results")
        assert result.exit_code == 130
        assert result.stderr.endswith("Interrupted. Finished blocks are stored; the same command resumes.\n")
        assert result.stdout == ""
