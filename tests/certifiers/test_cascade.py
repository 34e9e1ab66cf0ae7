"""The cascade against its own stages, against enumerated truth, and against planted counterexamples."""

import math
import re

import pytest
import torch
from torch import Tensor, nn

import certifiers
from certifiers import ThreatModel, Verdict
from certifiers.cascade import Cascade
from certifiers.conformance import attack
from certifiers.decision import float32_at_least
from ensembles import Aggregation, Ensemble, MaxMargin, Single, WeightedAverage
from ensembles.parameters import ParameterError
from ensembles.registry import UnknownNameError

LINF = ThreatModel(norm="linf")
STAGES = ("native-ibp", "native-crown-ibp", "attack", "native-crown")
GRID = [0.005, 0.02, 0.05, 0.1, 0.3, 0.9]
#: How much larger a ball of the same reach is in six dimensions.
REACH = {"linf": 1.0, "l2": 6**0.5, "l1": 6.0}


def members(count: int = 3, inputs: int = 6, hidden: int = 12, classes: int = 3) -> list[nn.Module]:
    """Random networks whose answers are not all the same: on average over the box, no class has a larger logit."""
    found = []
    with torch.random.fork_rng():
        torch.manual_seed(3)
        for _ in range(count):
            head = nn.Linear(hidden, classes)
            body = [nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()]
            network: nn.Module = nn.Sequential(*body, head)
            with torch.no_grad():
                head.bias -= network(torch.rand(500, inputs)).mean(0)
            found.append(network)
    return found


@pytest.fixture
def images() -> Tensor:
    return torch.rand(12, 6, generator=torch.Generator().manual_seed(0))


AGGREGATIONS = [Single(), WeightedAverage(of="logit"), WeightedAverage(), MaxMargin(of="logit"), MaxMargin()]


@pytest.mark.parametrize("aggregation", AGGREGATIONS, ids=lambda a: f"{a.name}-{getattr(a, 'of', '')}")
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_it_proves_what_its_strongest_stage_proves(aggregation: Aggregation, norm: str, images: Tensor) -> None:
    ensemble, threat = Ensemble(members(), aggregation), ThreatModel(norm=norm)
    grid = [REACH[norm] * radius for radius in GRID]
    alone = certifiers.create("native-crown").certify(ensemble, images, threat, radii=grid)
    found = Cascade(stages=STAGES).certify(ensemble, images, threat, radii=grid)
    assert bool((found.radius >= alone.radius).all())
    # The attack's radius is a counterexample, so that no proof may reach it; what is refuted at once is FALSIFIED.
    refuted = torch.as_tensor(found.evidence["refuted_radius"])
    assert bool((found.radius < refuted).all())
    assert bool(torch.isfinite(refuted).any())
    falsified = found.verdict == Verdict.FALSIFIED
    assert torch.equal(falsified, (refuted == float32_at_least(grid[0])) & (found.radius == 0))


def test_each_image_is_settled_by_the_stage_that_closed_its_bracket(images: Tensor) -> None:
    ensemble = Ensemble(members(), WeightedAverage(of="logit"))
    found = Cascade(stages=STAGES).certify(ensemble, images, LINF, radii=GRID)
    stage, proof = found.evidence["stage"], found.evidence["proof"]
    refuted = torch.as_tensor(found.evidence["refuted_radius"])
    grid = [0.0, *map(float32_at_least, GRID), math.inf]
    for image in range(len(images)):
        reached = min(range(len(GRID) + 1), key=lambda k: abs(([0.0, *GRID][k]) - float(found.radius[image])))
        settled = grid[reached + 1] >= float(refuted[image]) or reached == len(GRID)
        assert (stage[image] != "open") == settled, image
        assert (proof[image] != "") == (found.radius[image] > 0)
    assert {"attack", "open"} & set(stage)
    assert len(set(proof)) > 1  # several stages had something to prove


def test_later_stages_are_not_asked_about_settled_images(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    linear = nn.Sequential(nn.Linear(6, 3))
    asked: list[int] = []
    crown = certifiers.get("native-crown")
    original = crown.descending  # type: ignore[attr-defined]

    def spy(self: object, classifier: nn.Module, x: Tensor, *rest: object) -> Tensor:
        asked.append(len(x))
        return original(self, classifier, x, *rest)  # type: ignore[no-any-return]

    monkeypatch.setattr(crown, "descending", spy)
    # Of a linear model intervals are exact, and what is not proved is refuted on the way from one radius to the next.
    found = Cascade(stages=("native-crown", "attack", "native-ibp"), attack_steps=50).certify(
        linear, images, LINF, radii=GRID
    )
    first = sum(asked)
    asked.clear()
    again = Cascade(stages=("native-ibp", "attack", "native-crown"), attack_steps=50).certify(
        linear, images, LINF, radii=GRID
    )
    assert torch.equal(found.radius, again.radius)
    assert sum(asked) < first / 4
    assert {stage for stage in again.evidence["stage"] if stage != "open"} <= {"native-ibp", "attack"}


def test_without_a_grid_the_bracket_is_bisected(images: Tensor) -> None:
    ensemble = Ensemble(members(), WeightedAverage(of="logit"))
    found = Cascade(stages=STAGES, steps=12).certify(ensemble, images, LINF)
    crown = certifiers.create("native-crown", bisection_steps=12).certify(ensemble, images, LINF)
    refuted = torch.as_tensor(found.evidence["refuted_radius"])
    assert bool((found.radius < refuted).all())
    assert bool((found.radius >= crown.radius * 0.95).all())
    assert bool((found.radius > 0).all())


def test_a_stage_that_does_not_apply_is_left_out(images: Tensor) -> None:
    ensemble = Ensemble(members(), WeightedAverage(of="logit"))
    both = Cascade(stages=("closed-form-margins", "native-crown")).certify(ensemble, images, LINF, radii=GRID)
    alone = Cascade(stages=("native-crown",)).certify(ensemble, images, LINF, radii=GRID)
    assert torch.equal(both.radius, alone.radius)
    assert set(alone.evidence["proof"]) == {"native-crown", ""} or set(alone.evidence["proof"]) == {"native-crown"}
    none = Cascade(stages=("closed-form-margins", "attack")).certify(ensemble, images, LINF, radii=GRID)
    assert set(none.verdict.tolist()) == {Verdict.UNSUPPORTED}
    assert "closed-form-margins: " in none.reason[0]


def test_a_counterexample_of_a_program_closes_the_bracket(images: Tensor) -> None:
    ensemble = Ensemble(members(2, hidden=4), WeightedAverage(of="logit"))
    grid = [0.02, 0.1, 0.4]
    alone = certifiers.create("milp").certify(ensemble, images[:4], LINF, radii=grid)
    found = Cascade(stages=("native-ibp", "milp")).certify(ensemble, images[:4], LINF, radii=grid)
    assert torch.equal(found.radius, alone.radius)
    refuted = torch.as_tensor(found.evidence["refuted_radius"])
    assert bool(torch.isfinite(refuted).any())  # no stage attacks here
    assert bool((refuted > found.radius).all())
    assert "open" not in found.evidence["stage"]
    assert "milp" in found.evidence["stage"]


def test_passes_of_the_attack_are_counted(images: Tensor) -> None:
    networks = members()
    calls = []
    for network in networks:
        network.register_forward_hook(lambda _module, arguments, _output: calls.append(len(arguments[0])))
    ensemble = Ensemble(networks, WeightedAverage(of="logit"))
    found = attack(ensemble, images, ensemble(images).argmax(1), torch.full((12,), 0.3).double(), LINF)
    # The call for the predictions is no part of it.
    assert int(found.forward_passes.sum()) == sum(calls) - 3 * len(images)


def test_a_timeout_of_one_image_leaves_the_others(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    crown = certifiers.get("native-crown")
    original = crown.descending  # type: ignore[attr-defined]
    slow = images[4]

    def descending(self: object, classifier: nn.Module, x: Tensor, *rest: object) -> Tensor:
        if bool((x == slow).all(1).any()):
            raise TimeoutError("too slow")
        return original(self, classifier, x, *rest)  # type: ignore[no-any-return]

    ensemble = Ensemble(members(), WeightedAverage(of="logit"))
    wanted = Cascade(stages=("native-crown",)).certify(ensemble, images, LINF, radii=GRID)
    monkeypatch.setattr(crown, "descending", descending)
    found = Cascade(stages=("native-crown",)).certify(ensemble, images[4:5], LINF, radii=GRID[:1])
    assert found.radius.tolist() == [0.0]
    found = Cascade(stages=("native-crown",)).certify(ensemble, images, LINF, radii=GRID)
    others = torch.arange(len(images)) != 4
    assert torch.equal(found.radius[others], wanted.radius[others])


def test_an_unsure_answer_is_never_certified(images: Tensor) -> None:
    tied = nn.Linear(6, 3)
    nn.init.zeros_(tied.weight)
    nn.init.zeros_(tied.bias)
    broken = nn.Linear(6, 3)
    nn.init.constant_(broken.weight, float("nan"))
    for model in (tied, broken):
        found = Cascade(stages=STAGES).certify(nn.Sequential(model), images, LINF, radii=GRID)
        assert not bool(found.certified.any())


def test_stages_are_part_of_its_identity() -> None:
    described = Cascade(stages=STAGES).describe()
    assert [stage["name"] for stage in described["stages"]] == ["native-ibp", "native-crown-ibp", "native-crown"]
    assert all({"version", "parameters"} <= set(stage) for stage in described["stages"])


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ((), "must name at least one certifier"),
        (("attack",), "must name at least one certifier"),
        (("native-crown", "native-crown"), "none twice"),
        (("smoothing",), "'smoothing' does not decide a radius"),
        (("native-corwn",), "Did you mean 'native-crown'?"),
    ],
)
def test_stages_that_make_no_cascade_are_refused(stages: tuple[str, ...], message: str) -> None:
    with pytest.raises((ParameterError, UnknownNameError), match=re.escape(message)):
        certifiers.create("cascade", stages=stages)
