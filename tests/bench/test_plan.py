import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import pytest
import torch

from bench.datasets import Dataset, InMemorySplit
from bench.keys import digest
from bench.plan import Cell, Plan, certification_seed
from bench.runner import Options, run
from certifiers import Norm, RadiusCertifier, create
from ensembles import MaxMargin, WeightedAverage, checkpoint
from ensembles.training import Objective
from ensembles.training.objective import _registry as objectives

WEIGHTS = ["1" * 64, "2" * 64, "3" * 64]
PLAIN_ENTRY = '[[entries]]\nname = "single"\nensemble = "three"\naggregation = "single"\ncertifier = "smoothing"\n'


def key_of(plan: Plan, cell: int = 0, weights: list[str] = WEIGHTS) -> str:
    return digest(plan.cells[cell].key_fields(weights, plan.spec, plan.images))


def with_cell(plan: Plan, **changes: Any) -> Plan:
    return dataclasses.replace(plan, cells=(dataclasses.replace(plan.cells[0], **changes),))


# ---- cells


def test_an_entry_is_the_product_of_its_lists(plan_of: Callable[..., Plan], edited: Callable[..., str]) -> None:
    text = edited(
        (PLAIN_ENTRY, "[certifiers.fewer]\nmethod = 'smoothing'\nsigma = 0.25\nn = 10\n"),
        ('ensemble = "three"', 'ensemble = ["three", "two"]'),
        ('["weighted-average", "max-margin"]', '["max-margin", { name = "weighted-average", of = "logit" }]'),
        ('certifier = "smoothing"', 'certifier = ["smoothing", "fewer"]'),
        text=edited().replace("\n\n[[entries]]\nname", "\n[[entries]]\nname"),
    )
    text += (
        '[ensembles.two]\narchitecture = "mlp"\nmembers = 2\n'
        'objective = { name = "gaussian" }\nschedule = { epochs = 1 }\n'
    )
    plan = plan_of(text)
    assert [cell.name for cell in plan.cells] == [
        f"{ensemble} · {aggregation} · {certifier}"
        for ensemble in ("three", "two")
        for aggregation in ("max-margin", "weighted-average(of=logit)")
        for certifier in ("smoothing", "fewer")
    ]
    assert [cell.aggregation for cell in plan.cells] == [
        aggregation for _ in range(2) for aggregation in (MaxMargin(), WeightedAverage(of="logit")) for _ in range(2)
    ]
    assert [(cell.ensemble, len(cell.jobs)) for cell in plan.cells] == [("three", 3)] * 4 + [("two", 2)] * 4
    assert [cell.certifier.identity()["n"] for cell in plan.cells] == [1000, 10] * 4


def test_a_given_name_is_kept_and_others_are_made(plan_of: Callable[..., Plan]) -> None:
    names = [cell.name for cell in plan_of().cells]
    assert names == ["single", "three · weighted-average · smoothing", "three · max-margin · smoothing"]


def test_a_norm_that_a_method_lacks_is_kept_with_the_reason(
    plan_of: Callable[..., Plan], edited: Callable[..., str], offered: Callable[..., None]
) -> None:
    @dataclass(frozen=True, kw_only=True)
    class OnlyL2(RadiusCertifier):
        norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L2, Norm.L1})

        def radii(self, classifier: Any, x: Any, threat: Any, rng: Any) -> Any:
            raise AssertionError("never asked")

    offered("only-l2", OnlyL2)
    text = edited(
        ('"l2"', '"linf"'),
        ("[certifiers.smoothing]", "[certifiers.only-l2]\n\n[certifiers.smoothing]"),
        (PLAIN_ENTRY, PLAIN_ENTRY.replace("smoothing", "only-l2")),
    )
    plan = plan_of(text)
    assert [cell.reason for cell in plan.cells] == [
        "only-l2 does not certify the norm linf; it certifies: l1, l2.",
        "",
        "",
    ]
    only = dataclasses.replace(plan, cells=plan.cells[:1])
    assert only.jobs() == []  # nothing is trained for what cannot be measured


def test_a_parameter_that_no_key_can_hold_is_refused(
    plan_of: Callable[..., Plan], edited: Callable[..., str], offered: Callable[..., None]
) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Unbounded(RadiusCertifier):
        norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L2})
        limit: float = math.inf

        def radii(self, classifier: Any, x: Any, threat: Any, rng: Any) -> Any:
            raise AssertionError("never asked")

    offered("unbounded", Unbounded)
    text = edited(("[certifiers.smoothing]", "[certifiers.smoothing]\nmethod = 'unbounded'"))
    text = text.replace("sigma = 0.25\nn0 = 50\nn = 1_000\nalpha = 0.01\n", "")
    with pytest.raises(ValueError, match=r"^entries: 'single' has a parameter that no key can hold \(Out of range "):
        plan_of(text)
    plan_of(text.replace("method = 'unbounded'", "method = 'unbounded'\nlimit = 2.0"))


# ---- training jobs


def test_ensembles_of_two_and_of_three_share_members(plan_of: Callable[..., Plan], edited: Callable[..., str]) -> None:
    three = plan_of().cells[0].jobs
    two = plan_of(edited(("members = 3", "members = 2"))).cells[0].jobs
    assert [job.digest for job in two] == [job.digest for job in three[:2]]
    assert len({job.digest for job in three}) == 3
    assert [job.label for job in three] == [f"three member {number} of 3" for number in (1, 2, 3)]


def test_entries_share_jobs(plan_of: Callable[..., Plan], edited: Callable[..., str]) -> None:
    text = edited((PLAIN_ENTRY, PLAIN_ENTRY.replace('"three"', '"two"')))
    start = text.index("[ensembles.three]")
    table = text[start : text.index("[certifiers")]
    text += table.replace("ensembles.three", "ensembles.two").replace("members = 3", "members = 2")
    plan = plan_of(text)
    assert [len(cell.jobs) for cell in plan.cells] == [2, 3, 3]
    assert len(plan.jobs()) == 3
    assert {job.digest for cell in plan.cells for job in cell.jobs} == {job.digest for job in plan.jobs()}


@pytest.mark.parametrize(
    "change",
    [
        ("seed = 7", "seed = 8"),
        ("[16]", "[17]"),
        ("sigma = 0.25 }", "sigma = 0.5 }"),
        ("epochs = 3", "epochs = 4"),
        ("learning_rate = 0.005", "learning_rate = 0.006"),
        ('"adam"', '"sgd"'),
        ('architecture = "mlp"\noptions = { hidden = [16] }', 'architecture = "conv_small"'),
    ],
)
def test_what_makes_other_weights_makes_another_job(
    change: tuple[str, str], plan_of: Callable[..., Plan], edited: Callable[..., str]
) -> None:
    before = {job.digest for job in plan_of().jobs()}
    after = {job.digest for job in plan_of(edited(change)).jobs()}
    assert len(before | after) == 6


def test_other_training_images_make_another_job(plan_of: Callable[..., Plan], digits: Dataset) -> None:
    plan = plan_of()
    assert plan.jobs()[0].recipe["data"] == {"name": "digits", "train": digits.train.digest}


@pytest.mark.parametrize(
    "change",
    [("n = 1_000", "n = 2_000"), ("every = 18", "every = 9"), ('"l2"', '"linf"'), ('"tiny"', '"other"')],
)
def test_what_only_certification_needs_trains_nothing_new(
    change: tuple[str, str], plan_of: Callable[..., Plan], edited: Callable[..., str]
) -> None:
    assert [job.digest for job in plan_of(edited(change)).jobs()] == [job.digest for job in plan_of().jobs()]


def test_a_joint_objective_is_one_job_for_all_members(
    plan_of: Callable[..., Plan],
    edited: Callable[..., str],
    offered: Callable[..., None],
    reporter: Any,
    tmp_path: Any,
) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Together(Objective):
        name: ClassVar[str] = "together"

        def terms(self, ensemble: Any, x: Any, y: Any, generator: Any) -> Any:
            together = torch.stack([member(self.noisy(x, generator)) for member in ensemble.members]).mean(0)
            return {"mean": torch.nn.functional.cross_entropy(together, y)}

    offered("together", Together, objectives)
    joint = edited(('"gaussian"', '"together"'))
    plan = plan_of(joint)
    (job,) = plan.jobs()
    assert (job.label, job.recipe["members"]) == ("three", 3)
    assert all(cell.jobs == (job,) for cell in plan.cells)
    fewer = plan_of(edited(("members = 3", "members = 2"), text=joint)).jobs()
    assert fewer[0].digest != job.digest  # members that were coupled to others are other members
    outcome = run(dataclasses.replace(plan, images=plan.images.spread(2)), Options(tmp_path), reporter)
    assert set(outcome.statuses.values()) == {"complete"}
    (stored,) = (tmp_path / "ensembles").glob("*.safetensors")
    assert len(checkpoint.load(stored).members) == 3


# ---- keys of cells


@pytest.mark.parametrize(
    "change",
    [
        ("seed = 7", "seed = 8"),
        ('"l2"', '"linf"'),
        ("every = 18", "every = 17"),
        ('split = "test"', 'split = "validation"'),
        ("every = 18", "every = 18\noffset = 1"),
        ("sigma = 0.25\nn0", "sigma = 0.26\nn0"),
        ("n0 = 50", "n0 = 51"),
        ("n = 1_000", "n = 1_001"),
        ("alpha = 0.01", "alpha = 0.011"),
        ('aggregation = "single"', 'aggregation = "max-margin"\n#'),
        ('aggregation = "single"', 'aggregation = { name = "single", member = 1 }'),
    ],
)
def test_what_decides_a_result_changes_its_key(
    change: tuple[str, str], plan_of: Callable[..., Plan], edited: Callable[..., str]
) -> None:
    text = edited(('aggregation = ["weighted-average", "max-margin"]', 'aggregation = "weighted-average"'))
    assert key_of(plan_of(edited(change, text=text))) != key_of(plan_of(text))


@pytest.mark.parametrize(
    "change",
    [
        ("alpha = 0.01", "alpha = 0.01\nbatch_size = 77"),
        ('name = "single"', 'name = "another name"'),
        ('title = "A tiny board"', 'title = "Another"'),
        ('"tiny"', '"other"'),
        ('radii = [0, 0.25, "1/2"]', "radii = [0, 1]"),  # smoothing finds the radius by itself
        ('["weighted-average", "max-margin"]', '["weighted-average"]'),
        ("epochs = 3", "epochs = 4"),  # what training made is in the weights
    ],
)
def test_what_does_not_decide_a_result_leaves_its_key(
    change: tuple[str, str], plan_of: Callable[..., Plan], edited: Callable[..., str]
) -> None:
    assert key_of(plan_of(edited(change))) == key_of(plan_of())


def test_the_key_has_the_weights_in_order(plan_of: Callable[..., Plan]) -> None:
    plan = plan_of()
    others = [WEIGHTS[:2], WEIGHTS[::-1], [*WEIGHTS[:2], "4" * 64]]
    assert len({key_of(plan, weights=weights) for weights in (WEIGHTS, *others)}) == 4


def test_the_key_has_name_and_version_of_the_certifier(
    plan_of: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of()
    keys = {key_of(plan)}
    monkeypatch.setattr(type(plan.cells[0].certifier), "version", 99)
    keys.add(key_of(plan))
    monkeypatch.setattr(type(plan.cells[0].certifier), "name", "smoother")
    keys.add(key_of(plan))
    assert len(keys) == 3


def test_radii_are_in_the_key_of_those_certifiers_that_use_them(
    plan_of: Callable[..., Plan], edited: Callable[..., str]
) -> None:
    def key(radii: str, certifier: str) -> str:
        plan = plan_of(edited(('radii = [0, 0.25, "1/2"]', f"radii = {radii}")))
        return key_of(with_cell(plan, certifier=create(certifier)))

    few, many, same = "[0, 0.25]", "[0, 0.25, 0.5]", '["0/3", "1/4"]'
    assert key(few, "closed-form") == key(many, "closed-form")
    assert key(few, "closed-form-margins") != key(many, "closed-form-margins")
    assert key(few, "closed-form-margins") == key(same, "closed-form-margins")  # the numbers, not their spelling


def test_the_key_has_the_data_and_not_only_the_ids(plan_of: Callable[..., Plan]) -> None:
    plan = plan_of()
    images = plan.images
    assert isinstance(images, InMemorySplit)
    changed = images.pixels.clone()
    changed[0, 0, 0, 0] ^= 1
    altered = InMemorySplit(changed, images.labels, images.ids, scale=images.scale)
    assert altered.ids.tolist() == images.ids.tolist()
    assert key_of(dataclasses.replace(plan, images=altered)) != key_of(plan)


def test_all_entries_meet_the_same_noise_and_another_seed_other_noise(
    plan_of: Callable[..., Plan], edited: Callable[..., str]
) -> None:
    plan = plan_of()
    seeds = {cell.key_fields(WEIGHTS, plan.spec, plan.images)["seed"] for cell in plan.cells}
    assert seeds == {certification_seed(plan.spec)}
    assert certification_seed(plan_of(edited(("seed = 7", "seed = 8"))).spec) not in seeds


# ---- which images


@pytest.mark.parametrize("limit", [1, 3, 7, 11, 19])
def test_a_limit_spreads_over_the_images_and_names_the_run(limit: int, plan_of: Callable[..., Plan]) -> None:
    whole, few = plan_of(), plan_of(limit=limit)
    positions = [whole.images.ids.tolist().index(image) for image in few.images.ids]
    assert few.name == f"tiny-limit{limit}"
    assert len(positions) == limit
    assert positions[0] == 0
    gaps = [after - before for before, after in zip(positions, [*positions[1:], 20], strict=True)]
    assert max(gaps) - min(gaps) <= 1
    assert key_of(few) != key_of(whole)


@pytest.mark.parametrize("limit", [None, 20, 1000])
def test_a_limit_that_takes_all_is_the_run_itself(limit: int | None, plan_of: Callable[..., Plan]) -> None:
    plan = plan_of(limit=limit)
    assert (plan.name, len(plan.images)) == ("tiny", 20)
    assert key_of(plan) == key_of(plan_of())


def test_data_of_the_spec_chooses_the_images(
    plan_of: Callable[..., Plan], edited: Callable[..., str], digits: Dataset
) -> None:
    text = edited(("every = 18", "every = 5\noffset = 2\nlimit = 4"), ('split = "test"', 'split = "validation"'))
    assert plan_of(text).images.ids.tolist() == digits.validation.ids[2::5][:4].tolist()


def test_the_radii_of_a_plan_are_floats_that_reach_the_exact_ones(
    plan_of: Callable[..., Plan], edited: Callable[..., str]
) -> None:
    plan = plan_of(edited(('radii = [0, 0.25, "1/2"]', 'radii = [0, "8/255", "1/10", "1/3"]')))
    # As float64, 1/10 rounds up; 8/255 and 1/3 round down, so the next floats are needed.
    assert plan.radii == (0.0, math.nextafter(8 / 255, 1), 0.1, math.nextafter(1 / 3, 1))
    exact = plan.spec.threat.exact_radii()
    assert all(Fraction(radius) >= fraction for radius, fraction in zip(plan.radii, exact, strict=True))


def test_cells_are_plain_values(plan_of: Callable[..., Plan]) -> None:
    first, again = plan_of(), plan_of()
    assert first.cells == again.cells
    assert isinstance(first.cells[0], Cell)


# ---- training seeds


def test_training_seeds_are_lines_of_their_own_on_the_same_noise(
    plan_of: Callable[..., Plan], edited: Callable[..., str]
) -> None:
    plain = plan_of()
    plan = plan_of(edited(("members = 3\n", "members = 3\nseeds = [7, 8, 9]\n")))
    assert [cell.name for cell in plan.cells[:4]] == [
        *("single · seed 7", "single · seed 8", "single · seed 9"),
        "three · weighted-average · smoothing · seed 7",
    ]
    assert {cell.ensemble for cell in plan.cells} == {"three seed 7", "three seed 8", "three seed 9"}
    found = [(cell.training_seed.of, cell.training_seed.seed) for cell in plan.cells[:3] if cell.training_seed]
    assert found == [("single", 7), ("single", 8), ("single", 9)]
    # The spec's own seed, 7, is the training of the spec without seeds, and so is its key.
    assert [job.digest for job in plan.cells[0].jobs] == [job.digest for job in plain.cells[0].jobs]
    assert key_of(plan, 0) == key_of(plain, 0)
    assert plan.cells[0].key_fields(WEIGHTS, plan.spec, plan.images) == plan.cells[1].key_fields(
        WEIGHTS, plan.spec, plan.images
    )
    digests = {job.digest for job in plan.jobs()}
    assert len(digests) == 9
    assert {job.digest for job in plain.jobs()} < digests
    labels = [job.label for job in plan.jobs()]
    assert labels[0] == "three seed 7 member 1 of 3"


def test_a_start_has_the_training_seed_of_what_starts_from_it(
    plan_of: Callable[..., Plan], edited: Callable[..., str]
) -> None:
    later = (
        "[ensembles.later]\narchitecture = 'mlp'\noptions = { hidden = [16] }\nmembers = 3\nstart = 'three'\n"
        "objective = { name = 'gaussian', sigma = 0.25 }\nschedule = { epochs = 1 }\nseeds = [7, 8, 9]\n\n"
    )
    plan = plan_of(
        edited((PLAIN_ENTRY, PLAIN_ENTRY.replace('"three"', '"later"')), ("[certifiers", later + "[certifiers"))
    )
    starts = [tuple(start.digest for job in cell.jobs for start in job.starts) for cell in plan.cells[:3]]
    assert len(set(starts)) == 3
    own = {job.digest for cell in plan.cells[3:] for job in cell.jobs}
    assert set(starts[0]) == own


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        ("[1, 2]", r"seeds must be at least 3 different ones, got \[1, 2\]"),
        ("[1, 2, 2]", "at least 3 different ones"),
        ("[1, 2, -3]", "list of whole numbers from 0 on"),
        ("3", r"such as \[0, 1, 2\], got 3"),
        ("[true, 1, 2]", "list of whole numbers"),
    ],
)
def test_training_seeds_are_at_least_three(
    plan_of: Callable[..., Plan], edited: Callable[..., str], seeds: str, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        plan_of(edited(("members = 3\n", f"members = 3\nseeds = {seeds}\n")))
