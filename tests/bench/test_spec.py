import json
import re
import tomllib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from bench import datasets
from bench.plan import make_plan
from bench.spec import SpecError, find_spec, packaged_specs, read_spec
from certifiers import Norm
from certifiers.smoothing import Smoothing
from ensembles import MaxMargin, Single, WeightedAverage

RADII = 'radii = [0, 0.25, "1/2"]'
OBJECTIVE = '{ name = "gaussian", sigma = 0.25 }'
SCHEDULE = '{ epochs = 3, batch_size = 64, optimizer = "adam", learning_rate = 0.005 }'
AGGREGATION = 'aggregation = "single"'
THREAT = f'[threat]\nnorm = "l2"\n{RADII}\n'

#: What was written, what was written instead, and what the one sentence says.
WRONG = {
    # unknown words, with the nearest right one
    "top-level key": ("seed = 7", "sed = 7", "unknown key 'sed'. Did you mean 'seed'? Allowed: name, title, "),
    "key of data": ("every", "evry", "data: unknown key 'evry'. Did you mean 'every'? Allowed: name, root, split, "),
    "key of threat": ("radii =", "radi =", "threat: unknown key 'radi'. Did you mean 'radii'? Allowed: norm, radii."),
    "key of an ensemble": ("members", "member", "ensembles.three: unknown key 'member'. Did you mean 'members'?"),
    "key of an entry": (AGGREGATION, 'agregation = "x"', "entries[1]: unknown key 'agregation'. Did you mean 'aggreg"),
    "objective parameter": (
        "sigma = 0.25 }",
        "sigm = 0.25 }",
        "ensembles.three.objective: Unknown parameter 'sigm' of objective 'gaussian'. Did you mean 'sigma'? Allowed: ",
    ),
    "schedule parameter": (
        "epochs =",
        "epoch =",
        "ensembles.three.schedule: Unknown parameter 'epoch' of schedule. Did you mean 'epochs'? Allowed: batch_size, ",
    ),
    "certifier parameter": (
        "alpha =",
        "alfa =",
        "[certifiers.smoothing] Unknown parameter 'alfa' of certifier 'smoothing'. Did you mean 'alpha'? Allowed: ",
    ),
    "option of an architecture": (
        "hidden",
        "hiden",
        "ensembles.three: unknown option 'hiden' of architecture 'mlp'. Did you mean 'hidden'? Allowed: hidden.",
    ),
    "architecture": ('"mlp"', '"mpl"', "ensembles.three.architecture: Unknown architecture 'mpl'. Did you mean 'mlp'?"),
    "objective": ('"gaussian"', '"gausian"', "three.objective: Unknown objective 'gausian'. Did you mean 'gaussian'?"),
    "aggregation": (
        '"max-margin"',
        '"max-margn"',
        "entries[2].aggregation[2]: Unknown aggregation 'max-margn'. Did you mean 'max-margin'? Available: ",
    ),
    "certifier": (
        "[certifiers.smoothing]",
        "[certifiers.smothing]",
        "[certifiers.smothing] Unknown certifier 'smothing'. Did you mean 'smoothing'? Available: ",
    ),
    "method of a certifier": (
        "n0 = 50",
        'n0 = 50\nmethod = "smothing"',
        "[certifiers.smoothing] Unknown certifier 'smothing'. Did you mean 'smoothing'? Available: ",
    ),
    "data set": ('"digits"', '"digit"', "data.name: Unknown data set 'digit'. Did you mean 'digits'? Available: "),
    "norm": ('"l2"', '"linfty"', "threat.norm: Unknown norm 'linfty'. Did you mean 'linf'? Allowed: l1, l2, linf."),
    "norm far from all": ('"l2"', '"x"', "threat.norm: Unknown norm 'x'. Allowed: l1, l2, linf."),
    "split": ('"test"', '"tset"', "data.split: Input should be 'test' or 'validation', got 'tset'."),
    "split train": ('"test"', '"train"', "data.split: Input should be 'test' or 'validation', got 'train'."),
    "optimizer": ('"adam"', '"adm"', "Schedule: optimizer = 'adm' is not allowed. Input should be 'sgd' or 'adam'."),
    "output of a member": (
        AGGREGATION,
        'aggregation = { name = "weighted-average", of = "logits" }',
        "entries[1].aggregation[1]: WeightedAverage: of = 'logits' is not allowed. Input should be 'confidence' or ",
    ),
    # radii
    "radii that fall": ("[0, 0.25,", "[0, 0.75,", "threat.radii: radii must ascend without repetition, got 0, 0.75, "),
    "a radius twice": ("[0, 0.25,", "[0, 0.5,", "threat.radii: radii must ascend without repetition, got 0, 0.5, 1/2."),
    "radius below 0": ("[0, 0.25,", '["-1/9", 0.2,', "threat.radii: Radius '-1/9' is negative. A radius is at least "),
    "radius in words": ("0.25, ", '"near", ', "threat.radii: Radius 'near' is not a number. Write a fraction or a "),
    "radius true": ("0.25, ", "true, ", "threat.radii: Radius True is not a number. Write a fraction or a decimal: "),
    "radius nan": ("0.25, ", "nan, ", "threat.radii: Radius nan is not a number."),
    "radius infinite": ("0.25, ", "inf, ", "threat.radii: Radius inf is not a number."),
    "radius over nothing": ("0.25, ", '"8/0", ', "threat.radii: Radius '8/0' is not a number."),
    "radius past float64": (
        '"1/2"',
        '"1e400"',
        "threat.radii: Radius '1e400' is larger than any float64. Write a smaller one.",
    ),
    "no radii": (RADII, "radii = []", 'threat.radii: radii must be a list such as [0, 0.25, "8/255"].'),
    "one radius bare": (RADII, "radii = 0.5", 'threat.radii: radii must be a list such as [0, 0.25, "8/255"].'),
    # types and ranges
    "text for n": ("n = 1_000", 'n = "1000"', "Smoothing: n = '1000' is not allowed. Input should be a valid integer."),
    "float for n": ("n = 1_000", "n = 1e3", "Smoothing: n = 1000.0 is not allowed. Input should be a valid integer."),
    "alpha past 1": ("alpha = 0.01", "alpha = 1.5", "Smoothing: alpha = 1.5 is not allowed. Input should be less "),
    "alpha nan": ("alpha = 0.01", "alpha = nan", "Smoothing: alpha = nan is not allowed."),
    "float for members": ("members = 3", "members = 3.0", "three.members: Input should be a valid integer, got 3.0."),
    "true for members": ("members = 3", "members = true", "members: Input should be a valid integer, got True."),
    "no members": ("members = 3", "members = 0", "members: Input should be greater than or equal to 1, got 0."),
    "text for a seed": ("seed = 7", 'seed = "7"', "seed: Input should be a valid integer, got '7'."),
    "seed below 0": ("seed = 7", "seed = -1", "seed: Input should be greater than or equal to 0, got -1."),
    "text for every": ("every = 18", 'every = "18"', "data.every: Input should be a valid integer, got '18'."),
    "every 0": ("every = 18", "every = 0", "data.every: Input should be greater than or equal to 1, got 0."),
    "no epochs": ("epochs = 3", "epochs = 0", "Schedule: epochs = 0 is not allowed. Input should be greater than 0."),
    "number for a data set": ('"digits"', "3", "data.name: must be a name in quotes, got 3."),
    "number for an architecture": ('"mlp"', "3", "ensembles.three.architecture: must be a name in quotes, got 3."),
    "number for an objective": ('"gaussian"', "3", "ensembles.three.objective: must be a name in quotes, got 3."),
    "text for an objective": (OBJECTIVE, '"gaussian"', "three.objective: must be a table such as { name = "),
    "objective without name": (OBJECTIVE, "{ sigma = 0.5 }", "three.objective: needs the key 'name', such as { name"),
    "text for a schedule": (SCHEDULE, '"fast"', "schedule: must be a table such as { epochs = 30 }, got 'fast'."),
    "number for an aggregation": (AGGREGATION, "aggregation = 3", "entries[1].aggregation[1]: must be a table such as"),
    "aggregation without name": (AGGREGATION, 'aggregation = { of = "logit" }', "aggregation[1]: needs the key 'name'"),
    "no aggregation": (AGGREGATION, "aggregation = []", "entries[1].aggregation: Value should have at least 1 item"),
    "text for data": ('[data]\nname = "digits"\nsplit = "test"\nevery = 18\n', 'data = "digits"\n', "data: "),
    # what is missing
    "threat missing": (THREAT, "", "threat is missing."),
    "norm missing": ('norm = "l2"\n', "", "threat.norm is missing."),
    "name missing": ('name = "tiny"\n', "", "name is missing."),
    "epochs missing": ("epochs = 3, ", "", "schedule: schedule needs 'epochs'. Add epochs = ... to its table."),
    "sigma missing": ("sigma = 0.25\nn0", "n0", "certifier 'smoothing' needs 'sigma'. Add sigma = ... to its table."),
    # references
    "undefined ensemble": (
        'ensemble = "three"\naggregation = "single"',
        'ensemble = "tree"\naggregation = "single"',
        "entry 1: unknown ensemble 'tree'. Did you mean 'three'? Defined in this spec: three.",
    ),
    "undefined certifier": (
        'aggregation = "single"\ncertifier = "smoothing"',
        'aggregation = "single"\ncertifier = "smooth"',
        "entry 1: unknown certifier 'smooth'. Did you mean 'smoothing'? Defined in this spec: smoothing.",
    ),
    "one name for two lines": (
        AGGREGATION,
        'aggregation = ["single", "max-margin"]',
        "entry 1: a name fits one line of the board, this entry makes 2.",
    ),
    "weights": (
        AGGREGATION,
        'aggregation = { name = "weighted-average", weights = [1.0, 2.0] }',
        "entry 1, ensemble 'three': WeightedAverage: 2 weights for 3 members. Give one weight a member.",
    ),
    "weights of nothing": (
        AGGREGATION,
        'aggregation = { name = "weighted-average", weights = [0.0, 0.0, 0.0] }',
        "entries[1].aggregation[1]: WeightedAverage: weights = (0.0, 0.0, 0.0) are all zero. Give one a positive ",
    ),
    "fourth of three members": (
        AGGREGATION,
        'aggregation = { name = "single", member = 3 }',
        "entry 1, ensemble 'three': Single: member 3 of 3; they are counted from 0.",
    ),
    # names that become folders
    "name that climbs": ('name = "tiny"\n', 'name = "../x"\n', "name: String should match pattern '^[a-z0-9][a-z0-9."),
    "name with a folder": ('name = "tiny"\n', 'name = "a/b"\n', "name: String should match pattern "),
    "name that hides": ('name = "tiny"\n', 'name = ".x"\n', "name: String should match pattern "),
    "name of two lines": ('name = "tiny"\n', 'name = "x\\ny"\n', "name: String should match pattern "),
    "empty name": ('name = "tiny"\n', 'name = ""\n', "name: String should match pattern "),
    # not TOML
    "not TOML": ('name = "tiny"\n', 'name = "tiny\n', "not valid TOML: "),
    # what only the data can tell
    "architecture too large": (
        '"mlp"\noptions = { hidden = [16] }',
        '"lenet"',
        "ensembles.three: Architecture 'lenet' cannot be built for inputs of shape (1, 8, 8) with options {}: nothing ",
    ),
    "layers of one and a half": ("[16]", "[1.5]", "ensembles.three: Architecture 'mlp' cannot be built for inputs of "),
    "option that is not the spec's": ("hidden = [16]", "seed = 3", "ensembles.three: unknown option 'seed' of archit"),
    "offset past the end": (
        "every = 18",
        "offset = 5000",
        "data: no image is selected: the test split of digits has 353 images, offset is 5000. Lower the offset.",
    ),
    "folder for packaged data": (
        "every = 18",
        'root = "/x"',
        "The data set 'digits' comes inside a Python package and reads no folder, got root = '/x'. Remove root from ",
    ),
    "one name twice": (
        'name = "single"\nensemble = "three"\naggregation = "single"',
        'ensemble = "three"\naggregation = "max-margin"',
        "entries: two lines of the board are named 'three · max-margin · smoothing'. Remove one, or give names.",
    ),
}


#: Runs the command on each spec of a folder, says what it answered, and that it wrote nothing.
ANSWERS = """
import json, sys
from pathlib import Path
from typer.testing import CliRunner
from bench.cli import app
answers = {}
for path in Path(sys.argv[1]).glob("*.toml"):
    result = CliRunner().invoke(app, ["run", str(path), "--output", f"{path}.results"])
    answers[path.stem] = [result.exit_code, result.stdout, result.stderr, Path(f"{path}.results").exists()]
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers(
    tmp_path_factory: pytest.TempPathFactory, edited: Callable[..., str], plain_python: Callable[..., str]
) -> dict[str, list[Any]]:
    """In a process without this one's type checks, which would answer wrong types before our own sentences do."""
    folder = tmp_path_factory.mktemp("wrong")
    for number, (right, wrong, _) in enumerate(WRONG.values()):
        (folder / f"{number}.toml").write_text(edited((right, wrong)), encoding="utf-8")
    found = json.loads(plain_python(ANSWERS, folder))
    return {mistake: found[str(number)] for number, mistake in enumerate(WRONG)}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_in_a_spec_gets_exit_2_and_one_sentence(mistake: str, answers: dict[str, list[Any]]) -> None:
    exit_code, stdout, stderr, wrote = answers[mistake]
    assert (exit_code, stdout, wrote) == (2, "", False)
    assert stderr.startswith("error: ")
    assert stderr.count("\n") == 1
    assert stderr.endswith(".\n")
    assert WRONG[mistake][2] in stderr


def test_every_mistake_of_the_file_itself_says_which_file(edited: Callable[..., str], write_spec: Callable[..., Path]):
    for text in (edited(("seed = 7", "sed = 7")), edited(("seed = 7", "seed = = 7"))):
        with pytest.raises(SpecError, match=r"^mine\.toml: "):
            read_spec(write_spec(text, "mine.toml"))


def test_a_spec_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latin.toml"
    path.write_bytes(b'name = "\xe9"')
    with pytest.raises(SpecError, match=r"^latin\.toml: not valid TOML: 'utf-8' codec can't decode"):
        read_spec(path)


@pytest.mark.parametrize("written", ["quikstart", "nowhere/spec.toml", "x" * 5000])
def test_an_unknown_spec_is_refused(written: str, certbench: Callable[..., Result]) -> None:
    result = certbench("run", written)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    if len(written) < 100:
        assert result.stderr.startswith(f"error: No spec {written!r}: neither a file nor a packaged spec. ")
        assert ("Did you mean 'quickstart'? " in result.stderr) == (written == "quikstart")
        assert "Packaged: " in result.stderr


def test_a_folder_is_not_a_spec(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=f"^No spec {re.escape(repr(str(tmp_path)))}: neither a file nor"):
        find_spec(str(tmp_path))


def test_the_parts_of_a_spec_are_the_objects_they_name(edited: Callable[..., str], write_spec: Callable[..., Path]):
    text = edited(
        (AGGREGATION, 'aggregation = { name = "weighted-average", weights = [2.0, 1.0, 1.0], of = "logit" }'),
        ("[certifiers.smoothing]", '[certifiers.mine]\nmethod = "smoothing"'),
        ('aggregation = ["weighted-average", "max-margin"]\ncertifier = "smoothing"', 'aggregation = "max-margin"'),
    ).replace('certifier = "smoothing"', 'certifier = "mine"')
    text += 'certifier = "mine"\n'
    spec, read = read_spec(write_spec(text))
    assert read == text
    assert spec.certifier("mine") == Smoothing(sigma=0.25, n0=50, n=1000, alpha=0.01)
    assert spec.threat.norm is Norm.L2
    assert [entry.aggregation for entry in spec.entries] == [
        (WeightedAverage(weights=(2.0, 1.0, 1.0), of="logit"),),
        (MaxMargin(),),
    ]
    assert spec.ensembles["three"].objective.describe() == {"name": "gaussian", "sigma": 0.25}
    assert spec.ensembles["three"].schedule.learning_rate == 0.005


def test_radii_are_exact_and_kept_as_written(edited: Callable[..., str], write_spec: Callable[..., Path]) -> None:
    text = edited((RADII, 'radii = [0, 0.02, "8/255", "0.1", 0.25]'))
    threat = read_spec(write_spec(text))[0].threat
    assert threat.radii == ("0", "0.02", "8/255", "0.1", "0.25")
    assert threat.exact_radii() == (Fraction(0), Fraction(2, 100), Fraction(8, 255), Fraction(1, 10), Fraction(1, 4))


def test_names_ignore_case_and_hyphens(edited: Callable[..., str], write_spec: Callable[..., Path]) -> None:
    text = edited(('"digits"', '"Digits"'), ('"mlp"', '"MLP"'), ('"max-margin"', '"Max_Margin"'))
    spec = read_spec(write_spec(text))[0]
    assert (spec.data.name, spec.ensembles["three"].architecture) == ("digits", "mlp")
    assert spec.entries[1].aggregation == (WeightedAverage(), MaxMargin())


# ---- the quickstart


def test_the_quickstart_is_what_was_asked_for() -> None:
    path = packaged_specs()["quickstart"]
    assert find_spec("quickstart") == path
    spec, text = read_spec(path)
    table = tomllib.loads(text)
    assert table["name"] == spec.name == "quickstart"
    assert (spec.data.name, spec.data.split, spec.data.every, spec.data.offset) == ("mnist-5k", "test", 5, 0)
    assert (spec.data.limit, spec.data.root) == (None, None)
    assert spec.threat.norm is Norm.L2
    assert spec.threat.exact_radii() == tuple(Fraction(step, 4) for step in range(7))
    (ensemble,) = spec.ensembles.values()
    assert (ensemble.architecture, ensemble.members, ensemble.options) == ("lenet5", 3, {})
    assert ensemble.objective.describe() == {"name": "gaussian", "sigma": 0.5}
    assert list(spec.certifiers) == ["smoothing"]
    assert spec.certifier("smoothing") == Smoothing(sigma=0.5, n0=100, n=10_000, alpha=0.001)
    assert [entry.aggregation for entry in spec.entries] == [(Single(),), (WeightedAverage(),), (MaxMargin(),)]
    assert all(len(entry.ensemble) == len(entry.certifier) == 1 for entry in spec.entries)


def test_the_quickstart_certifies_200_test_images_20_a_class_and_trains_three_members_from_own_seeds() -> None:
    spec, text = read_spec(packaged_specs()["quickstart"])
    dataset = datasets.load("mnist-5k")
    plan = make_plan(spec, text, dataset)
    assert len(plan.images) == 200
    assert plan.images.labels.bincount().tolist() == [20] * 10
    assert set(plan.images.ids.tolist()) <= set(dataset.test.ids.tolist())
    assert len(plan.cells) == 3
    assert not any(cell.reason for cell in plan.cells)
    jobs = plan.jobs()
    assert len(jobs) == 3
    assert len({job.recipe["seed"] for job in jobs}) == 3
    # A quick look stays balanced, although the images are sorted by class.
    for limit in (150, 20, 10):
        assert make_plan(spec, text, dataset, limit).images.labels.bincount().tolist() == [limit // 10] * 10
