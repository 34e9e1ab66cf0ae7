import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result

from bench.diagnostics import diagnostics_of
from bench.fitting import fitted
from bench.plan import Plan
from bench.runner import Options, run
from bench.selection import _search_plan
from bench.store import Store
from bench.training import members_for
from ensembles import Ensemble, WeightedAverage, architectures, checkpoint, diversity, seeded_generator
from ensembles.precision import in_precision
from ensembles.training import TrainingState
from leaderboards import build_board, read_run

GRID = """
diagnostics = true

[ensembles.tuned]
architecture = "mlp"
options = { hidden = [16] }
members = 3
objective = { name = "drt", sigma = 0.25, rho1 = 0.1, rho2 = 0.5 }
schedule = { epochs = 1, batch_size = 64, learning_rate = 0.005 }
start = "three"
grid = { "objective.rho1" = [0.1, 0.3], "schedule.learning_rate" = [0.001, 90.0] }

[selection]
certifier = "smoothing"
images = 12

[[entries]]
name = "tuned"
ensemble = "tuned"
aggregation = "weighted-average"
certifier = "smoothing"

[[entries]]
name = "fitted"
ensemble = "three"
aggregation = "sween"
certifier = "smoothing"
"""

SEARCH = "tiny-selection-tuned"


def text(tiny: str) -> str:
    """The tiny spec with a grid; top-level keys come first in TOML."""
    flag, _, tables = GRID.strip().partition("\n\n")
    return f"{flag}\n{tiny}\n{tables}"


@pytest.mark.parametrize(
    ("aggregation", "words"),
    [
        ('"sween"', r"\[selection\] sween fits its weights on the validation images, on which candidates are scored"),
        ('{ name = "weighted-average", weights = [1.0, 1.0] }', r"\[selection\] ensemble 'tuned': "),
    ],
)
def test_candidates_are_not_scored_on_what_they_were_fitted_on(
    tiny: str, plan_of: Callable[..., Plan], aggregation: str, words: str
) -> None:
    spec = text(tiny).replace("images = 12\n", f"images = 12\naggregation = {aggregation}\n")
    with pytest.raises(ValueError, match=words):
        plan_of(spec)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, tiny: str, certbench: Callable[..., Result]) -> Path:
    folder = tmp_path_factory.mktemp("searched")
    (folder / "tiny.toml").write_text(text(tiny))
    result = certbench("run", folder / "tiny.toml", "--output", folder / "results")
    assert result.exit_code == 0, result.stderr
    assert "tuned: chose tuned rho1=" in result.stderr
    return folder / "results"


def entry(store: Path, name: str, of: str = "tiny") -> Any:
    return next(item for item in read_run(store / "runs" / of / "run.json").entries if item.name == name)


def test_candidates_are_scored_on_validation_images_only(searched: Path) -> None:
    search = read_run(searched / "runs" / SEARCH / "run.json")
    assert {item.split for item in search.entries} == {"validation"}
    assert {item.images for item in search.entries} == {12}
    tested = set(entry(searched, "single").rows["image_id"])
    assert not tested & set(search.entries[0].rows["image_id"])


def test_every_candidate_is_recorded_and_the_best_of_the_board_is_used(searched: Path) -> None:
    board = build_board(read_run(searched / "runs" / SEARCH / "run.json"))
    tuned = entry(searched, "tuned")
    search = tuned.details["search"]
    names = {f"tuned rho1={rho}, learning_rate={rate}" for rho in (0.1, 0.3) for rate in (0.001, 90.0)}
    assert {candidate["name"] for candidate in search["candidates"]} == names
    scores = {line.entry.name: line.scores.mean_certified_accuracy for line in board.ranked if line.scores}
    assert {item["name"]: item["score"] for item in search["candidates"] if item["score"] is not None} == scores
    best = board.ranked[0].entry
    assert scores[best.name] == max(scores.values())
    chosen = search["chosen"]
    assert best.name == f"tuned rho1={chosen['objective.rho1']}, learning_rate={chosen['schedule.learning_rate']}"
    # A learning rate of 90 ruins what it starts from: a search that looks must not choose it.
    assert chosen["schedule.learning_rate"] == 0.001
    (recipe,) = tuned.details["training"]
    assert (recipe["objective"]["rho1"], recipe["schedule"]["learning_rate"]) == tuple(chosen.values())
    assert best.details["training"][0]["seed"] == recipe["seed"]


def test_the_board_shows_the_search_and_the_diagnostics(searched: Path) -> None:
    page = (searched / "boards" / "tiny" / "board.html").read_text()
    markdown = (searched / "boards" / "tiny" / "board.md").read_text()
    assert (searched / "boards" / SEARCH / "board.html").is_file()
    for shown in (page, markdown):
        assert "tuned rho1=0.3, learning_rate=0.001" in shown.replace("\\_", "_")
        assert "12 validation images" in shown
        assert "certified accuracy (%) at r = 0, 0.25, 1/2" in shown
        assert "ambiguity entropy" in shown
    document = json.loads((searched / "boards" / "tiny" / "board.json").read_text())
    diagnosed = next(item for item in document["entries"] if item["name"] == "tuned")["diagnostics"]
    assert set(diagnosed) >= {"ambiguity_entropy", "disagreement", "smoothness_q50", "valid_pairs"}


def test_diagnostics_are_those_of_the_members(searched: Path, plan_of: Callable[..., Plan], tiny: str) -> None:
    plan = plan_of(text(tiny))
    jobs = next(cell for cell in plan.cells if cell.name == "fitted").jobs
    members = [checkpoint.load(searched / "ensembles" / f"{job.digest[:32]}.safetensors").members[0] for job in jobs]
    x = plan.images.images(np.arange(len(plan.images)))
    expected = diversity.measure(Ensemble(members), x, plan.images.labels, sigma=0.0)
    found = entry(searched, "fitted").diagnostics
    assert found["disagreement"] == expected.disagreement
    assert found["ambiguity_entropy"] == expected.ambiguity_entropy
    assert [found[f"smoothness_q{share}"] for share in (25, 50, 75)] == pytest.approx(expected.smoothness, rel=1e-4)


def test_diagnostics_of_another_number_format_are_its_own(store: Store, plan_of: Callable[..., Plan]) -> None:
    images = plan_of().images
    members = [architectures.create("mlp", input_shape=(1, 8, 8), classes=10, seed=seed) for seed in range(2)]
    found = {
        precision: diagnostics_of(
            Ensemble([in_precision(member, precision) for member in members]),
            *(["w"], precision, images, 0.0, 0, "cpu", store),
        )
        for precision in ("float32", "bfloat16", "float32")
    }
    assert len(list((store.root / "diagnostics").iterdir())) == 2
    assert found["float32"] != found["bfloat16"]


def test_a_second_run_searches_and_computes_nothing(
    searched: Path, tmp_path: Path, tiny: str, certbench: Callable[..., Result]
) -> None:
    (tmp_path / "tiny.toml").write_text(text(tiny))
    before = {path: path.stat().st_mtime_ns for kind in ("cells", "ensembles") for path in searched.rglob(f"{kind}/*")}
    result = certbench("run", tmp_path / "tiny.toml", "--output", searched)
    assert result.exit_code == 0
    assert "0 rows computed" in result.stderr
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_fine_tuned_ensemble_starts_from_the_weights_of_its_start(
    searched: Path, plan_of: Callable[..., Plan], tiny: str
) -> None:
    plan = plan_of(text(tiny))
    (tuned,) = next(cell for cell in plan.cells if cell.name == "tuned").jobs
    assert [start.label for start in tuned.starts] == [f"three member {number} of 3" for number in (1, 2, 3)]
    assert tuned.recipe["start"] == [start.digest for start in tuned.starts]
    names = [job.label for job in plan.jobs()]
    assert names.index("tuned") > max(names.index(start.label) for start in tuned.starts)
    used = entry(searched, "tuned").details["training"][0]
    files = [checkpoint.load(path) for path in (searched / "ensembles").glob("*.safetensors")]
    same = {"objective", "schedule"}
    (end,) = [file for file in files if all(file.header["recipe"][part] == used[part] for part in same)]
    moved = []
    for member, start in zip(end.members, tuned.starts, strict=True):
        begin = checkpoint.load(searched / "ensembles" / f"{start.digest[:32]}.safetensors").members[0]
        moved.append(float((member.head.weight - begin.head.weight).norm() / begin.head.weight.norm()))
    # An epoch at a small rate moves the weights a little; other initial weights would differ by more than their size.
    assert all(0 < distance < 0.5 for distance in moved)


def test_fitted_weights_are_part_of_the_key_and_of_the_entry(searched: Path) -> None:
    found = entry(searched, "fitted")
    weights = found.details["fitted"]["weights"]
    assert found.details["fitted"]["name"] == "weighted-average"
    assert sum(weights) == pytest.approx(1)
    cell = json.loads((searched / "cells" / found.key[:32] / "cell.json").read_text())
    identity = {"name": "weighted-average", "of": "confidence", "weights": weights, "version": 1}
    assert cell["key_fields"]["aggregation"] == identity
    assert found.key != entry(searched, "three · weighted-average · smoothing").key


def test_weights_are_fitted_on_noisy_validation_images(plan_of: Callable[..., Plan], tiny: str) -> None:
    plan = plan_of(text(tiny))
    cell = next(cell for cell in plan.cells if cell.name == "fitted")
    seen: list[torch.Tensor] = []

    class Spy(torch.nn.Module):
        def __init__(self, skill: float) -> None:
            super().__init__()
            self.skill = skill

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.clone())
            # The first sees through noise by its average; the rest guess.
            return torch.cat([torch.ones(len(x), 10)], 1) * 0 + self.skill * x.flatten(1)[:, :10]

    found = fitted(cell, Ensemble([Spy(0.0), Spy(0.0), Spy(0.0)]), plan, "cpu")
    assert isinstance(found, WeightedAverage)
    assert found.weights == pytest.approx((0.3, 0.3, 0.4))  # equally good members: the most even weights of the grid
    validation = plan.dataset.validation
    images = validation.images(np.arange(len(validation)))
    noise = torch.cat([x - images for x in seen[::3]])
    assert float(noise.std()) == pytest.approx(0.25, rel=0.01)
    assert len(seen) == 3 * 8
    assert torch.equal(seen[0], images + 0.25 * torch.randn(images.shape, generator=_generator(plan)))


def _generator(plan: Plan) -> torch.Generator:
    from bench.plan import certification_seed

    return seeded_generator(certification_seed(plan.spec), "sween")


def test_an_aggregation_that_needs_no_fit_is_left_alone(plan_of: Callable[..., Plan]) -> None:
    plan = plan_of()
    assert fitted(plan.cells[1], Ensemble([torch.nn.Identity()]), plan, "cpu") is plan.cells[1].aggregation


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('start = "three"', 'start = "tree"', "[ensembles.tuned] unknown start 'tree'. Did you mean 'three'?"),
        ('start = "three"', 'start = "tuned"', "[ensembles.tuned] starts from itself: tuned -> tuned."),
        ("objective.rho1", "objective.rho7", "grid: unknown field 'rho7' of the objective. Did you mean 'rho"),
        ("objective.rho1", "members", "grid: unknown key 'members'. Write objective.FIELD or schedule.FIELD."),
        ("[0.1, 0.3]", "[]", "grid.objective.rho1"),
        ('start = "three"', 'start = "three"\ngrid_radii = [0.5, 0.25]', "radii must ascend without repetition"),
        (
            'grid = { "objective.rho1" = [0.1, 0.3], "schedule.learning_rate" = [0.001, 90.0] }',
            "grid_radii = [0]",
            "ensembles.tuned: grid_radii are for choosing among the candidates of a grid, and there is none.",
        ),
        ("[0.1, 0.3]", "[-1.0]", "rho1 = -1.0 is not allowed"),
        ('[selection]\ncertifier = "smoothing"', '[selection]\ncertifier = "smooth"', "Did you mean 'smoothing'?"),
        ('[selection]\ncertifier = "smoothing"\nimages = 12', "", "has a grid, but nothing says how to choose."),
        ("[0.1, 0.3]", "[0.1, 0.1]", "grid: objective.rho1 repeats a value, got [0.1, 0.1]"),
        (
            'split = "test"',
            'split = "validation"',
            "on the validation images, so they cannot be certified as well",
        ),
    ],
)
def test_a_wrong_grid_start_or_selection_is_one_sentence(
    tiny: str, tmp_path: Path, certbench: Callable[..., Result], old: str, new: str, message: str
) -> None:
    wrong = text(tiny)
    assert wrong.count(old) == 1
    (tmp_path / "tiny.toml").write_text(wrong.replace(old, new))
    result = certbench("run", tmp_path / "tiny.toml", "--output", tmp_path / "results")
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_start_of_another_shape_is_refused(tiny: str, tmp_path: Path, certbench: Callable[..., Result]) -> None:
    head, _, tail = text(tiny).partition("[ensembles.tuned]")
    (tmp_path / "tiny.toml").write_text(head + "[ensembles.tuned]" + tail.replace("hidden = [16]", "hidden = [8]", 1))
    result = certbench("run", tmp_path / "tiny.toml")
    assert result.exit_code == 2
    assert "cannot start from 'three': architecture, options and members must be the same" in result.stderr


def test_a_pairwise_objective_of_one_member_is_refused(
    tiny: str, tmp_path: Path, certbench: Callable[..., Result]
) -> None:
    alone = tiny.replace('name = "gaussian"', 'name = "gal"').replace("members = 3", "members = 1")
    (tmp_path / "tiny.toml").write_text(alone)
    result = certbench("run", tmp_path / "tiny.toml")
    assert result.exit_code == 2
    assert "'gal' compares members with each other and needs at least two, got members = 1" in result.stderr


def test_one_training_that_diverges_does_not_stop_the_others(
    tiny: str, plan_of: Callable[..., Plan], tmp_path: Path, reporter: Any
) -> None:
    more = """
[ensembles.wild]
architecture = "mlp"
members = 1
objective = { name = "gaussian", sigma = 0.25 }
schedule = { epochs = 1, learning_rate = 1e30 }
[[entries]]
name = "wild"
ensemble = "wild"
aggregation = "single"
certifier = "smoothing"
"""
    outcome = run(plan_of(tiny + more), Options(tmp_path), reporter)
    assert outcome.statuses["wild"] == "failed"
    assert "stopped: the" in outcome.reasons["wild"]
    assert outcome.measured == ["single", "three · weighted-average · smoothing", "three · max-margin · smoothing"]


def test_a_collapsed_member_is_named_as_it_happens_and_marks_the_entry(
    tiny: str, plan_of: Callable[..., Plan], tmp_path: Path, reporter: Any
) -> None:
    dull = tiny.replace("learning_rate = 0.005", "learning_rate = 1e-9")
    run(plan_of(dull), Options(tmp_path), reporter)
    # When it happens, and when the training ends: not at every epoch.
    expected = []
    for log in tmp_path.rglob("*.log.jsonl"):
        collapsed = [bool(json.loads(line)["collapsed"]) for line in log.read_text().splitlines()]
        for epoch, (before, now) in enumerate(itertools.pairwise([False, *collapsed]), start=1):
            if now and not before and epoch < len(collapsed):
                expected.append(f"member 1 of 1 has collapsed at epoch {epoch}: noisy validation accuracy")
        if collapsed[-1]:
            expected.append("member 1 of 1 is trained and collapsed: noisy validation accuracy")
    found = (re.search(r"member 1 of 1 .* accuracy", warning) for warning in reporter.warnings)
    said = [match[0] for match in found if match]
    assert sorted(said) == sorted(expected)
    assert "member 1 of 1 is trained and collapsed: noisy validation accuracy" in said
    marked = entry(tmp_path, "single")
    assert marked.status == "complete"
    assert any("collapsed in training: noisy validation accuracy" in warning for warning in marked.warnings)


def test_candidates_meet_images_from_all_of_the_validation_split(plan_of: Callable[..., Plan], tiny: str) -> None:
    # Sources may be sorted by class, as mnist-5k is: the first images alone would leave out the last classes.
    for number in (20, 50, 120):
        search = _search_plan(plan_of(text(tiny).replace("images = 12", f"images = {number}")), "tuned")
        whole = search.dataset.validation.ids
        assert search.images.ids.tolist() == [whole[place * len(whole) // number] for place in range(number)]


def test_an_ensemble_may_be_chosen_at_radii_of_its_own(plan_of: Callable[..., Plan], tiny: str) -> None:
    own = text(tiny).replace('start = "three"', 'start = "three"\ngrid_radii = ["1/4", 0.75]')
    assert _search_plan(plan_of(own), "tuned").radii == (0.25, 0.75)
    assert plan_of(own).radii == _search_plan(plan_of(text(tiny)), "tuned").radii == (0, 0.25, 0.5)


def test_a_search_in_which_nothing_can_be_scored_is_exit_3(
    tiny: str, tmp_path: Path, certbench: Callable[..., Result]
) -> None:
    wild = text(tiny).replace("[0.001, 90.0]", "[1e30, 1e31]")
    (tmp_path / "tiny.toml").write_text(wild)
    result = certbench("run", tmp_path / "tiny.toml", "--output", tmp_path / "results")
    assert result.exit_code == 3
    assert "error: ensembles.tuned: no candidate could be scored: tuned rho1=" in result.stderr


def test_a_state_of_another_training_is_set_aside_and_the_training_starts_anew(
    tiny: str, plan_of: Callable[..., Plan], tmp_path: Path, reporter: Any, copied: Path
) -> None:
    plan = plan_of()
    job = plan.jobs()[0]
    store = Store(tmp_path / "store")
    other = Ensemble([torch.nn.Linear(3, 2)])
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    path = store.checkpoint(job.digest).with_suffix(".training")
    path.parent.mkdir(parents=True)
    path.write_bytes(TrainingState.of(other, optimizer, []).to_bytes())
    found = members_for(job, plan.dataset, store, "cpu", reporter)
    assert any("is trained from the start" in said for said in reporter.warnings)
    assert found.digest == checkpoint.load(Store(copied).checkpoint(job.digest)).digest
    assert not path.exists()
