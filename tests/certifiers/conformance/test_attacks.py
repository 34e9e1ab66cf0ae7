"""Auto-PGD and the nearest counterexample: beside exact radii, and beside plain PGD on a trained network."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from certifiers import Norm, ThreatModel
from certifiers.conformance import Effort, Hunt, attack, distance, enumerated, linear, planted, trained
from certifiers.conformance.apgd import _checkpoints
from certifiers.conformance.art_attacks import art_candidates, toolbox
from certifiers.conformance.losses import CROSS_ENTROPY, LOGIT_RATIO, MARGIN, TOWARDS, logits_of, losses, margin, views
from ensembles import Ensemble, MaxMargin, Single, WeightedAverage

NORMS = [ThreatModel(norm) for norm in Norm]
AGGREGATIONS = [Single(), WeightedAverage(), WeightedAverage(of="logit"), MaxMargin(), MaxMargin(of="logit")]
QUICK = Effort(steps=20, restarts=3, rounds=4)


def named(value: Any) -> str | None:
    if isinstance(value, ThreatModel):
        return str(value.norm)
    return f"{value.name}-{getattr(value, 'of', '')}" if hasattr(value, "name") else None


def members_that_disagree() -> list[nn.Module]:
    return list(trained().members)


def replayed(classifier: nn.Module, image: torch.Tensor, prediction: int, hunt: Hunt) -> None:
    """That a counterexample is what it says it is."""
    witness = hunt.best
    assert witness is not None
    assert witness.point.dtype == image.dtype
    assert bool(((witness.point >= 0) & (witness.point <= 1)).all())
    assert float(distance(image, witness.point[None], hunt.threat.norm)) == witness.distance
    with torch.no_grad():
        scores = classifier(witness.point[None])[0]
    assert int(scores.argmax()) == witness.answer != prediction
    assert float(scores[witness.answer] - scores[prediction]) == witness.margin > 0


@pytest.mark.parametrize("aggregation", AGGREGATIONS, ids=named)
@pytest.mark.parametrize("threat", NORMS, ids=named)
def test_every_witness_is_replayed_and_refutes_beyond_where_it_lies(threat: ThreatModel, aggregation: Any) -> None:
    made = trained()
    classifier = Ensemble(made.members, aggregation)
    image = made.x[7:8]
    prediction = int(classifier(image).argmax())
    hunt = Hunt(classifier, image, prediction, threat, QUICK)
    tiny = 1e-3 * threat.box_diameter(16)
    assert not hunt.refute(tiny)
    assert hunt.best is None
    found = hunt.nearest(tiny)
    assert found is not None
    replayed(classifier, image, prediction, hunt)
    assert hunt.refute(found.distance)  # it is known, and costs no further pass
    assert hunt.forward_passes > 0
    # The same again from the beginning is the same.
    assert Hunt(classifier, image, prediction, threat, QUICK).nearest(tiny).distance == found.distance


@pytest.mark.parametrize("threat", [ThreatModel("linf"), ThreatModel("l1")], ids=named)
@pytest.mark.parametrize("aggregation", [WeightedAverage(of="logit"), MaxMargin(of="logit")], ids=named)
def test_the_nearest_witness_is_next_to_the_exact_radius(threat: ThreatModel, aggregation: Any) -> None:
    truth = enumerated(1, threat, aggregation, hidden=(3,))
    for image, prediction, radius in zip(truth.x, truth.prediction.tolist(), truth.radius.tolist(), strict=True):
        hunt = Hunt(truth.classifier, image[None], prediction, threat, QUICK)
        found = hunt.nearest(radius / 2)
        assert found is not None
        assert radius - 1e-7 <= found.distance <= 1.02 * radius
        replayed(truth.classifier, image[None], prediction, hunt)


def test_the_nearest_witness_is_next_to_the_closed_form_in_l2() -> None:
    truth = linear(2, ThreatModel("l2"), WeightedAverage(of="logit"))
    for image, prediction, radius in zip(truth.x, truth.prediction.tolist(), truth.radius.tolist(), strict=True):
        found = Hunt(truth.classifier, image[None], prediction, truth.threat, QUICK).nearest(radius / 2)
        assert found is not None
        assert radius <= found.distance * (1 + 1e-9)
        assert found.distance <= 1.01 * radius


@pytest.mark.parametrize("threat", NORMS, ids=named)
def test_apgd_is_at_least_as_strong_as_pgd_on_a_trained_ensemble(threat: ThreatModel) -> None:
    made = trained()
    classifier = Ensemble(made.members, MaxMargin())
    x = made.x[:10]
    prediction = classifier(x).argmax(1)
    radius = {Norm.LINF: 0.08, Norm.L2: 0.22, Norm.L1: 0.4}[threat.norm]
    plain = attack(classifier, x, prediction, torch.full((10,), radius).double(), threat, steps=20, restarts=2).found
    ours = []
    for image, answer in zip(x, prediction.tolist(), strict=True):
        hunt = Hunt(classifier, image[None], answer, threat, QUICK)
        # Not thorough: Auto-PGD alone, without the plain attack.
        ours.append(hunt.refute(radius, thorough=False))
    assert 0 < int(plain.sum()) < 10
    assert sum(ours) >= int(plain.sum())


@pytest.mark.parametrize("threat", NORMS, ids=named)
def test_planted_planes_are_found_and_hidden_spikes_are_not(threat: ThreatModel) -> None:
    for case in planted(threat):
        hunt = Hunt(case.classifier, case.x, 0, threat, QUICK)
        assert not hunt.refute(case.safe)
        radius = case.distance or 0.1
        assert hunt.refute(radius) == (case.name in ("halfspace", "dropout", "tie"))


def test_more_attacks_are_replayed_like_all_else() -> None:
    def wild(classifier: Any, image: Any, prediction: Any, radius: Any, threat: Any) -> Any:
        yield "nonsense", torch.full_like(image, float("nan"))
        yield "unchanged", image
        yield "outside", 5 * torch.ones_like(image)

    # Class 1 in the corner of ones alone, where no gradient leads.
    class Corner(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            here = (x.flatten(1).amin(1) >= 1).to(x)
            return torch.stack([1 - here, here], 1)

    hunt = Hunt(Corner(), torch.full((1, 4), 0.5), 0, ThreatModel("linf"), QUICK, wild)
    assert not hunt.refute(0.25)
    assert hunt.refute(0.5)
    assert hunt.best is not None
    assert (hunt.best.method, hunt.best.distance) == ("outside", 0.5)  # clipped to the box before it was replayed


def test_losses_by_hand() -> None:
    scores = torch.tensor([[3.0, 1.0, 0.0, -1.0]]).double().expand(6, 4)
    prediction = torch.zeros(6, dtype=torch.int64)
    kind = torch.tensor([MARGIN, CROSS_ENTROPY, LOGIT_RATIO, TOWARDS, TOWARDS + 1, TOWARDS + 3])
    order = torch.tensor([[1, 2, 3]]).expand(6, 3)
    found = losses(scores, prediction, kind, order)
    assert found[0] == -2
    assert float(found[1]) == pytest.approx(float(-scores[0].log_softmax(0)[0]))
    assert float(found[2]) == pytest.approx(-2 / 3)
    assert found[3:].tolist() == [-2, -3, -2]  # classes come round again
    two = losses(torch.tensor([[0.0, 1.0]]), torch.tensor([0]), torch.tensor([LOGIT_RATIO]), torch.tensor([[1]]))
    assert two.tolist() == [1.0]
    broken = torch.tensor([[0.0, float("nan")], [0.0, float("inf")], [0.0, 1.0]])
    assert margin(broken, torch.zeros(3, dtype=torch.int64)).tolist() == [-float("inf"), -float("inf"), 1.0]


@pytest.mark.parametrize("aggregation", AGGREGATIONS, ids=named)
def test_what_is_climbed_has_the_answer_of_the_scores(aggregation: Any) -> None:
    classifier = Ensemble(members_that_disagree(), aggregation)
    used = len(classifier.used)
    outputs = 3 * torch.randn(used, 50, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    scores, climbed = aggregation.scores(outputs), logits_of(classifier)(outputs)
    assert torch.equal(scores.argmax(1), climbed.argmax(1))
    sure = 60 * torch.randn(used, 50, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    sure.requires_grad_()
    slopes = torch.autograd.grad(logits_of(classifier)(sure).topk(2, 1).values.diff(dim=1).sum(), sure)[0]
    assert bool(torch.isfinite(slopes).all())
    # Not even where confidences round to 1; but for sure members that disagree, whose mean is flat indeed.
    if aggregation != WeightedAverage():
        assert bool((slopes.abs().amax((0, 2)) > 1e-3).all())
    names = [name for name, _ in views(classifier)]
    assert names[0] == "the classifier"
    assert names[-used:] == ([f"member {number}" for number in (1, 2, 3)] if used > 1 else names[-1:])


def test_checkpoints_are_those_of_the_paper() -> None:
    # p = 0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99 of 100 steps.
    assert sorted(_checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]


@pytest.mark.parametrize("change", [{"steps": 0}, {"restarts": 0}, {"rounds": -1}])
def test_an_effort_that_is_none_is_refused(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="An attack needs at least one step, one restart and no rounds, got"):
        Effort(**change)


@pytest.mark.parametrize("threat", NORMS, ids=named)
def test_the_toolbox_where_it_is_installed(threat: ThreatModel) -> None:
    pytest.importorskip("art", reason="adversarial-robustness-toolbox is an optional extra and not installed")
    made = trained()
    classifier = Ensemble(made.members, MaxMargin())
    image = made.x[:1]
    prediction = int(classifier(image).argmax())
    state = torch.get_rng_state()
    hunt = Hunt(classifier, image, prediction, threat, Effort(steps=1, restarts=1), toolbox()[1])
    candidates = dict(art_candidates(classifier, image, prediction, 0.3, threat))
    assert set(candidates) >= {"art fgsm", "art auto-pgd"}
    assert all(point.shape == image.shape for point in candidates.values())
    assert hunt.refute(threat.box_diameter(16) / 2)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_attacks_of_the_toolbox_get_logits_and_the_ball(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for the toolbox, which is not installed here: what it is given, and what comes of its answer."""
    asked: dict[str, dict[str, Any]] = {}

    class Attack:
        def __init__(self, _estimator: Any, **options: Any) -> None:
            asked[type(self).__name__] = options

        def generate(self, x: Any, y: Any) -> Any:
            assert x.dtype.name == "float32"
            assert y.tolist() == [[0, 1, 0]]
            return x + 1

    names = [
        "FastGradientMethod",
        "AutoProjectedGradientDescent",
        "BasicIterativeMethod",
        "DeepFool",
        "CarliniL2Method",
    ]
    evasion = SimpleNamespace(**{name: type(name, (Attack,), {}) for name in [*names, "CarliniLInfMethod"]})
    estimators = SimpleNamespace(PyTorchClassifier=lambda **given: given["model"](torch.zeros(1, 1, 4, 4)))
    modules = {"art.attacks.evasion": evasion, "art.estimators.classification": estimators}
    monkeypatch.setattr("certifiers.conformance.art_attacks.import_module", modules.__getitem__)
    classifier = Ensemble(trained().members, WeightedAverage())
    image = trained().x[:1]
    found = dict(art_candidates(classifier, image, 1, 0.25, ThreatModel("l2")))
    assert list(found) == ["art fgsm", "art auto-pgd", "art deepfool", "art carlini-wagner"]
    assert asked["FastGradientMethod"] == {"norm": 2, "eps": 0.25}
    assert asked["AutoProjectedGradientDescent"]["eps"] == 0.25
    assert torch.equal(found["art fgsm"], image + 1)
    assert list(dict(art_candidates(classifier, image, 1, 0.25, ThreatModel("linf")))) == [
        *("art fgsm", "art auto-pgd", "art bim", "art deepfool", "art carlini-wagner"),
    ]
    assert list(dict(art_candidates(classifier, image, 1, 0.25, ThreatModel("l1")))) == ["art fgsm", "art auto-pgd"]
