"""`certbench import`: published logs become entries that nobody can take for verified ones."""

import json
import math
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from leaderboards import read_run
from leaderboards.badges import groups
from leaderboards.board import build_board

Certbench = Callable[..., Result]
WORDS = "published, not verified here"
HEADER = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"


def log_of(rows: list[tuple[int, int, int, float]]) -> str:
    """A log of (image, label, prediction, radius) as `certify.py` of Cohen et al. prints it."""
    lines = [
        f"{image}\t{label}\t{predicted}\t{radius:.3}\t{int(label == predicted)}\t{timedelta(seconds=0.25)}\n"
        for image, label, predicted, radius in rows
    ]
    return HEADER + "".join(lines)


def every_20th(count: int = 500, radius: float = 0.95) -> str:
    """Of CIFAR-10: one in ten abstains, the rest are right, with ever smaller radii."""
    rows = [
        (20 * i, i % 7, -1 if i % 10 == 9 else i % 7, 0.0 if i % 10 == 9 else radius * (1 - i / 1000))
        for i in range(count)
    ]
    return log_of(rows)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str, name: str = "log.tsv") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.fixture
def imported(tmp_path: Path, certbench: Certbench) -> Callable[..., Result]:
    """The command with a store of its own; what every import needs is told unless it is replaced."""

    def run(*words: object, **options: Any) -> Result:
        told = {"source": "https://x.y", "dataset": "cifar10", "output": tmp_path / "results"} | options
        given = [part for name, value in told.items() if value is not None for part in (f"--{name}", value)]
        return certbench("import", *words, *given)

    return run


def test_logs_of_one_table_become_a_board(
    imported: Callable[..., Result], write: Callable[..., Path], tmp_path: Path, certbench: Certbench
) -> None:
    first, second = write(every_20th(), "s25.tsv"), write(every_20th(radius=1.9), "s50.tsv")
    words = (first, second, "--entry", "DRT", "--sigma", 0.25, "--sigma", 0.5, "--n", 100_000, "--name", "drt")
    result = imported(*words)
    assert (result.exit_code, result.stderr) == (0, "")
    run = read_run(tmp_path / "results" / "runs" / "drt" / "run.json")
    assert [entry.name for entry in run.entries] == ["DRT · sigma 0.25", "DRT · sigma 0.5"]
    assert [entry.parameters["sigma"] for entry in run.entries] == [0.25, 0.5]
    assert {(entry.status, entry.source, entry.conformance, entry.images) for entry in run.entries} == {
        ("complete", "https://x.y", None, 500)
    }
    assert run.radii == ("0", "0.25", "0.5", "0.75", "1", "1.25", "1.5", "1.75")
    board = build_board(run)
    assert [(group.heading, len(group.lines)) for group in groups(board)] == [("Published, not verified here", 2)]
    assert result.stdout.count(WORDS) == 2
    # Images 0 to 526 of every thousandth down: 0.95 (1 - i / 1000) - 0.0005 >= 0.75 up to i = 209.
    line = next(line for line in board.lines if line.entry.name == "DRT · sigma 0.25")
    assert line.scores is not None
    assert line.scores.certified[3].successes == sum(
        1 for i in range(500) if i % 10 != 9 and round(950 - 0.95 * i) > 750
    )
    again = certbench("board", "drt", "--output", tmp_path / "results")
    assert (again.exit_code, again.stdout) == (0, result.stdout)
    before = {path: path.read_bytes() for path in (tmp_path / "results").rglob("*") if path.is_file()}
    assert imported(*words).stdout == result.stdout
    assert {path: path.read_bytes() for path in (tmp_path / "results").rglob("*") if path.is_file()} == before


def test_the_document_says_what_became_of_each_log(
    imported: Callable[..., Result], write: Callable[..., Path], tmp_path: Path
) -> None:
    result = imported(write(every_20th()), "--json", source="Cohen et al., ICML 2019")
    assert (result.exit_code, result.stderr) == (0, "")
    document = json.loads(result.stdout)
    (entry,) = document["entries"]
    assert (document["run"], document["incomplete"]) == ("published", 0)
    assert document["board"] == str(tmp_path / "results" / "boards" / "published" / "board.html")
    assert (entry["name"], entry["status"], entry["rows"], entry["images"]) == ("log", "complete", 500, 500)
    assert (entry["source"], entry["certifier"]) == ("Cohen et al., ICML 2019", "smoothing")
    assert entry["printing"].startswith(
        "printed with up to 3 significant digits; half a unit of the last is subtracted"
    )
    cell = json.loads((tmp_path / "results" / "cells" / entry["key"][:32] / "cell.json").read_text())
    assert cell["key_fields"]["published"]["bytes"] == entry["sha256"]


def test_missing_images_leave_an_entry_without_numbers_and_say_how_many(
    imported: Callable[..., Result], write: Callable[..., Path], tmp_path: Path
) -> None:
    result = imported(write(every_20th(427), "cut.tsv"), write(every_20th(), "whole.tsv"))
    missing = "73 of 500 images are missing: 8540, 8560, 8580, ..."
    assert result.exit_code == 3
    assert result.stderr == f"cut: incomplete: {missing}\n"
    column = " ".join(line.split("│")[2].strip() for line in result.stdout.splitlines() if line.startswith("│"))
    assert f"cut ({WORDS}; incomplete: {missing})" in column
    folder = tmp_path / "results" / "boards" / "published"
    for name in ("board.html", "board.md", "board.csv", "board.json", "board.tex"):
        assert "73 of 500 images are missing" in (folder / name).read_text(), name
    entries = {entry["name"]: entry for entry in json.loads((folder / "board.json").read_text())["entries"]}
    assert (entries["cut"]["scores"], entries["cut"]["rank"], entries["cut"]["rows"]) == (None, None, 427)
    assert entries["whole"]["rank"] == 1
    # Whoever knows that the log was meant to have so many says it.
    alone = imported(tmp_path / "cut.tsv", images=427, name="meant")
    assert (alone.exit_code, alone.stderr) == (0, "")


def test_text_files_of_dsrs_need_labels_and_get_them_from_a_log(
    imported: Callable[..., Result], write: Callable[..., Path], tmp_path: Path
) -> None:
    labels = write(log_of([(i, i % 10, i % 10, 0.5) for i in range(10_000)]), "labels.tsv")
    # Half of them lie on the grid of radii that is tried.
    found = [1.1 if i % 20 else math.sqrt(i) / 100 for i in range(0, 10_000, 10)]
    radii = write("".join(f"{10 * i} {radius} 0.0 0.0\n" for i, radius in enumerate(found)), "new-rad-x.txt")
    refused = imported(radii, dataset="mnist")
    assert refused.exit_code == 2
    assert (
        "new-rad-x.txt: a text file of DSRS names no classes. Say where the labels of the images are" in refused.stderr
    )
    result = imported(radii, dataset="mnist", labels=labels, radii="0,1.1")
    assert (result.exit_code, result.stderr) == (0, "")
    (entry,) = read_run(tmp_path / "results" / "runs" / "published" / "run.json").entries
    assert (entry.certifier, entry.images, entry.ensemble) == ("dsrs", 1000, "new-rad-x")
    scores = build_board(read_run(tmp_path / "results" / "runs" / "published" / "run.json")).lines[0].scores
    assert scores is not None
    assert [share.successes for share in scores.certified] == [999, 500]


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("", {}, "log.tsv: the file is empty"),
    ("hello\n", {}, "log.tsv:1: no column 'idx'"),
    (every_20th().replace("\n", "\r\n"), {}, "log.tsv:1: the line ends in a carriage return (CRLF)"),
    (every_20th() + "0\t0\t0\t3.9\t1\t0\n", {}, "1 of 500 images occur more than once: 0 (lines 2, 502)"),
    (every_20th(), {"source": None}, "Say where the logs come from: --source with an address or a citation"),
    (every_20th(), {"source": "  "}, "Say where the logs come from"),
    (every_20th(), {"dataset": None}, "Say what the images are of: --dataset mnist"),
    (every_20th(), {"dataset": "shapes"}, "how many images 'shapes' has is not known here"),
    (every_20th(), {"images": 427}, "the logs have 500 images, more than the 427 of --images"),
    (log_of([(10_000, 1, 1, 0.5)]), {}, "image 10000 is not one of the 10000 of cifar10"),
    (every_20th(), {"name": "../x"}, "--name is '../x': use small letters, digits"),
    (every_20th(), {"radii": "0,eps"}, "Radius 'eps' is not a number"),
    (every_20th(), {"radii": "1,0"}, "--radii must ascend without repetition, got 1,0"),
    (every_20th(), {"alpha": 2.0}, "alpha is 2.0, not a probability between 0 and 1"),
    (every_20th(), {"sigma": 0.0}, "--sigma is 0.0, not a positive number"),
    # Sigma 0.2 reaches 0.76 with so many samples.
    (
        every_20th(),
        {"sigma": 0.2, "n": 100_000},
        "image 0 has radius 0.95, but sigma 0.2, n 100000 and alpha 0.001 reach",
    ),
    (log_of([(0, 1, 1, 3e5)]), {"images": 1}, "The largest radius is 250000: say which radii the board shows, --radii"),
]


@pytest.mark.parametrize(("text", "options", "message"), REFUSED)
def test_what_is_refused_is_exit_2_and_leaves_nothing(
    text: str,
    options: dict[str, Any],
    message: str,
    imported: Callable[..., Result],
    write: Callable[..., Path],
    tmp_path: Path,
) -> None:
    result = imported(write(text), **options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert not (tmp_path / "results").exists()


def test_files_that_do_not_fit_together_are_exit_2(
    imported: Callable[..., Result], write: Callable[..., Path], tmp_path: Path
) -> None:
    one = write(every_20th(), "one.tsv")
    result = imported(tmp_path / "none.tsv")
    assert (result.exit_code, result.stderr) == (
        2,
        f"error: No file at {tmp_path}/none.tsv. Give the paths of the logs.\n",
    )
    result = imported(one, one)
    assert "Two entries are named 'one'. Name each: --entry NAME, once a file" in result.stderr
    result = imported(one, one, one, "--sigma", 1, "--sigma", 2)
    assert "--sigma was given 2 times for 3 files: give it once for all of them, or once a file" in result.stderr
    other = write(every_20th().replace("40\t2\t2\t", "40\t3\t3\t"), "other.tsv")
    result = imported(one, other)
    assert result.exit_code == 2
    assert f"other.tsv: image 40 has label 3, in {one} it has 2. They are not about the same images" in result.stderr
    assert imported(one, norm="l3").exit_code == 2
    # Labels that were told are held against those of a log, too.
    result = imported(one, labels=other)
    assert result.exit_code == 2
    assert f"one.tsv: image 40 has label 2, in {other} it has 3" in result.stderr


def test_the_method_that_is_named_may_reach_further(
    imported: Callable[..., Result], write: Callable[..., Path]
) -> None:
    result = imported(write(every_20th()), sigma=0.2, n=100_000, certifier="boosted")
    assert (result.exit_code, result.stderr) == (0, "")


def test_stored_rows_that_were_altered_are_written_anew(
    imported: Callable[..., Result], write: Callable[..., Path], tmp_path: Path, certbench: Certbench
) -> None:
    log = write(every_20th())
    first = imported(log)
    (rows,) = (tmp_path / "results" / "cells").glob("*/rows-*.parquet")
    rows.write_bytes(rows.read_bytes()[:-7] + b"damaged")
    assert certbench("board", "published", "--output", tmp_path / "results").exit_code == 1
    assert imported(log).stdout == first.stdout


def test_no_description_of_a_run_can_hide_where_rows_come_from(
    imported: Callable[..., Result], write: Callable[..., Path], tmp_path: Path
) -> None:
    imported(write(every_20th()))
    manifest = tmp_path / "results" / "runs" / "published" / "run.json"
    document = json.loads(manifest.read_text())
    certifier = {"name": "smoothing", "version": 1, "parameters": {}}
    document["entries"][0] |= {"source": "", "details": {"certifier": certifier}}
    manifest.write_text(json.dumps(document))
    check = {"document": "certbench-conformance", "document_version": 1, "certifier": certifier, "kit": 2, "seed": 7}
    levels = [{"level": f"L{n}", "name": "x", "status": "passed", "measured": 1} for n in range(3)]
    (tmp_path / "results" / "conformance").mkdir()
    (tmp_path / "results" / "conformance" / "x.json").write_text(json.dumps(check | {"quick": False, "checks": levels}))
    (entry,) = read_run(manifest).entries
    assert (entry.imported, entry.conformance) == (True, None)
    assert groups(build_board(read_run(manifest)))[0].heading == "Published, not verified here"


# ---- beside a run of one's own


def log_beside(finished: Path, radius: float = 9.0) -> str:
    """Whoever published it certifies every image of the tiny run, better than the run does."""
    rows = read_run(finished / "runs" / "tiny" / "run.json").entries[0].rows
    return log_of([(int(i), int(y), int(y), radius) for i, y in zip(rows["image_id"], rows["label"], strict=True)])


def test_published_entries_stand_beside_computed_ones_and_take_no_rank_from_them(
    copied: Path, write: Callable[..., Path], certbench: Certbench
) -> None:
    before = json.loads((copied / "boards" / "tiny" / "board.json").read_text())
    manifest = (copied / "runs" / "tiny" / "run.json").read_bytes()
    words = ("--beside", "tiny", "--name", "tiny-beside", "--source", "https://x.y", "--output", copied)
    result = certbench("import", write(log_beside(copied)), *words)
    assert (result.exit_code, result.stderr) == (0, "")
    assert (copied / "runs" / "tiny" / "run.json").read_bytes() == manifest
    after = json.loads((copied / "boards" / "tiny-beside" / "board.json").read_text())
    own = [entry for entry in after["entries"] if "published" not in entry]
    assert own == before["entries"]
    assert (after["spec_text"], after["radii"]) == (before["spec_text"], before["radii"])
    (theirs,) = (entry for entry in after["entries"] if "published" in entry)
    assert (theirs["rank"], theirs["scores"]["mean_certified_accuracy"], theirs["conformance"]) == (1, 1.0, None)
    assert after["entries"][-1] == theirs
    # And another beside both.
    words = ("--beside", "tiny-beside", "--name", "both", "--source", "z", "--output", copied)
    more = certbench("import", write(log_beside(copied, 8.0), "more.tsv"), *words)
    assert (more.exit_code, more.stderr) == (0, "")
    names = [entry.name for entry in read_run(copied / "runs" / "both" / "run.json").entries if entry.imported]
    assert names == ["log", "more"]


def test_images_that_the_run_lacks_are_left_out_and_ones_the_log_lacks_are_missing(
    copied: Path, write: Callable[..., Path], certbench: Certbench
) -> None:
    lines = log_beside(copied).splitlines(keepends=True)
    more = "".join(lines[:-2]) + "1\t5\t5\t0.5\t1\t0\n2\t5\t5\t0.5\t1\t0\n"
    words = ("--beside", "tiny", "--name", "x", "--source", "s", "--output", copied)
    result = certbench("import", write(more), *words)
    assert result.exit_code == 3
    told = result.stderr.splitlines()
    assert told[0] == "log: 2 images of the log are not the run's, and left out."
    assert told[1].startswith("log: incomplete: 2 of 20 images are missing: ")


def test_a_log_that_is_not_about_the_images_of_the_run_is_refused(
    copied: Path, write: Callable[..., Path], certbench: Certbench
) -> None:
    text = log_beside(copied)
    words = ("--beside", "tiny", "--name", "x", "--source", "s", "--output", copied)
    image, label = text.splitlines()[1].split("\t")[:2]
    wrong = text.replace(f"\n{image}\t{label}\t{label}\t", f"\n{image}\t11\t11\t")
    result = certbench("import", write(wrong), *words)
    assert result.exit_code == 2
    assert f"image {image} has label 11, in the run beside it has {label}" in result.stderr
    result = certbench("import", write(text), *words, "--first-id", 5000)
    assert result.exit_code == 2
    assert "none of its 20 images is one of the run's" in result.stderr
    for option, value in (("--dataset", "mnist"), ("--norm", "linf"), ("--split", "validation")):
        result = certbench("import", write(text), *words, option, value)
        assert result.exit_code == 2
        assert f"not {value!r}: they are not comparable" in result.stderr
    result = certbench("import", write(text), *words, "--images", 20)
    assert "The run beside says which images there are, so that --images has no meaning" in result.stderr
    assert not (copied / "runs" / "x").exists()


def test_a_computed_run_is_never_replaced(copied: Path, write: Callable[..., Path], certbench: Certbench) -> None:
    before = (copied / "runs" / "tiny" / "run.json").read_bytes()
    told = ("--source", "s", "--dataset", "cifar10", "--output", copied)
    result = certbench("import", write(every_20th()), "--name", "tiny", *told)
    assert result.exit_code == 2
    assert "run.json describes a run that was not imported; it is not replaced. Choose another --name." in result.stderr
    result = certbench("import", write(log_beside(copied)), "--name", "tiny", "--beside", "tiny", *told[:2], *told[4:])
    assert result.exit_code == 2
    assert "A run cannot stand beside itself. Choose another --name than 'tiny'." in result.stderr
    assert (copied / "runs" / "tiny" / "run.json").read_bytes() == before


def test_an_audit_attacks_nothing_of_what_others_published(
    copied: Path, write: Callable[..., Path], certbench: Certbench
) -> None:
    log = write(log_beside(copied))
    certbench("import", log, "--source", "s", "--dataset", "x", "--images", 20, "--output", copied)
    result = certbench("audit", "published", "--output", copied)
    assert result.exit_code == 4
    assert "log: published; its weights are not here, and nothing of it is attacked." in result.stderr


def test_an_audit_of_both_attacks_what_was_computed(
    copied: Path, write: Callable[..., Path], certbench: Certbench
) -> None:
    words = ("--beside", "tiny", "--name", "both", "--source", "s", "--output", copied)
    assert certbench("import", write(log_beside(copied)), *words).exit_code == 0
    effort = ("--images", 1, "--steps", 1, "--restarts", 1, "--samples", 100)
    result = certbench("audit", "both", "--output", copied, *effort, "--json")
    document = json.loads(result.stdout)
    assert (document["problems"], document["attacked_now"]) == ({}, 3)
    assert "log: published; its weights are not here, and nothing of it is attacked." in result.stderr
    assert "log" not in [entry["name"] for entry in document["entries"]]


def test_an_import_needs_no_torch(
    imported: Callable[..., Result], write: Callable[..., Path], plain_python: Any, tmp_path: Path
) -> None:
    code = (
        "import contextlib, io, sys\n"
        "sys.argv = ['certbench', *sys.argv[1:]]\n"
        "from bench.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    main()\n"
        "print('torch' in sys.modules)\n"
    )
    words = ("import", write(every_20th()), "--source", "s", "--dataset", "cifar10", "--output", tmp_path / "r")
    assert plain_python(code, *words) == "False\n"
    assert (tmp_path / "r" / "boards" / "published" / "board.html").is_file()
    shutil.rmtree(tmp_path / "r")
