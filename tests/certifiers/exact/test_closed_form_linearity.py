"""What is linear has a closed form, and what is not is unsupported with the reason."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from certifiers import ThreatModel, Unsupported, Verdict
from certifiers.exact import ClosedForm, ClosedFormMargins, affine_form
from ensembles import Ensemble, MaxMargin, Single, WeightedAverage, architectures
from tests.certifiers.exact.linear_models_under_test import NORMS, images, linear, random_linear


def test_weighted_average_of_logits_is_linear() -> None:
    members = [random_linear(3, 6, seed) for seed in range(3)]
    ensemble = Ensemble(members, WeightedAverage(weights=(1.0, 0.0, 3.0), of="logit"))
    weight = (members[0][1].weight + 3 * members[2][1].weight) / 4
    bias = (members[0][1].bias + 3 * members[2][1].bias) / 4
    x = images(5, 1, 6)
    for norm in NORMS:
        expected = ClosedForm().certify(linear(weight.detach(), bias.detach()), x, ThreatModel(norm))
        found = ClosedForm().certify(ensemble, x, ThreatModel(norm))
        assert found.radius.tolist() == pytest.approx(expected.radius.tolist(), rel=1e-5)
        assert torch.equal(found.prediction, expected.prediction)
    assert found.cost.forward_passes.tolist() == [2] * 5  # a member of weight 0 takes no part


def test_single_member_is_linear() -> None:
    members = [random_linear(3, 6, seed) for seed in range(2)]
    x = images(5, 1, 6)
    found = ClosedForm().certify(Ensemble(members, Single(member=1)), x, ThreatModel("l2"))
    assert torch.equal(found.radius, ClosedForm().certify(members[1], x, ThreatModel("l2")).radius)
    assert found.cost.forward_passes.tolist() == [1] * 5


def test_normalisation_inside_the_model_is_part_of_the_radius() -> None:
    # f(x) = ((x - 0.2) / 0.5, 1): the boundary x = 0.7, whatever the statistics hide.
    model = architectures.create("mlp", input_shape=(1, 1, 1), classes=2, seed=0, hidden=(), mean=[0.2], std=[0.5])
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor([[1.0], [0.0]]))
        model.head.bias.copy_(torch.tensor([0.0, 1.0]))
    found = ClosedForm().certify(model, torch.tensor([0.9, 0.6]).reshape(2, 1, 1, 1), ThreatModel("linf"))
    assert found.radius.tolist() == pytest.approx([0.2, 0.1], rel=1e-5)
    assert found.prediction.tolist() == [0, 1]


def test_dropout_and_identity_are_linear_in_eval_mode_also_of_a_model_that_trains() -> None:
    plain = random_linear(3, 6, 0)
    model = nn.Sequential(nn.Identity(), plain[0], nn.Dropout(0.5), plain[1]).train()
    x = images(3, 1, 6)
    found = ClosedForm().certify(model, x, ThreatModel("l2"))
    assert torch.equal(found.radius, ClosedForm().certify(plain, x, ThreatModel("l2")).radius)
    assert torch.equal(affine_form(model, x[:1]).weight, plain[1].weight.detach().double())


def test_layer_that_occurs_twice_counts_twice() -> None:
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
        layer.bias.copy_(torch.tensor([0.5, 0.25]))
    form = affine_form(nn.Sequential(layer, layer), torch.zeros(1, 2))
    assert form.weight.tolist() == [[1.0, 4.0], [0.0, 1.0]]
    assert form.bias.tolist() == [1.5, 0.5]


class Squared(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) ** 2


class Skipping(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


class Own(Ensemble):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) ** 2


class Sharp(WeightedAverage):
    def scores(self, logits: Tensor) -> Tensor:
        return super().scores(logits) ** 2


def hooked() -> nn.Module:
    model = random_linear(3, 6, 0)
    model[1].register_forward_hook(lambda module, args, output: output**2)
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)),
            "closed-form certifies linear models; the layer ReLU is not linear. Use smoothing, or a certifier for netw",
        ),
        (
            lambda: architectures.create("mlp", input_shape=(1, 6), classes=3, seed=0),
            "closed-form certifies linear models; the layer ReLU is not linear.",
        ),
        (lambda: nn.Sequential(nn.Flatten(), Squared(6, 3)), "the layer Squared is not linear"),
        (lambda: Skipping(nn.Flatten(), nn.Linear(6, 3)), "the layer Skipping is not linear"),
        (lambda: Own([random_linear(3, 6, 0)], WeightedAverage(of="logit")), "the layer Own is not linear"),
        (hooked, "closed-form cannot see what the hooks of the layer Linear, or its own forward, do. Remove them."),
        (
            lambda: Ensemble([random_linear(3, 6, 0)] * 2),
            "closed-form needs scores that are linear in the input; the aggregation 'weighted-average' of confidences, "
            'gaps or votes is not. Use weighted-average of = "logit", or a certifier for networks.',
        ),
        (lambda: Ensemble([random_linear(3, 6, 0)] * 2, MaxMargin(of="logit")), "the aggregation 'max-margin' of conf"),
        (lambda: Ensemble([random_linear(3, 6, 0)] * 2, Sharp(of="logit")), "the aggregation 'weighted-average'"),
    ],
)
@pytest.mark.parametrize("certifier", [ClosedForm(), ClosedFormMargins()])
def test_what_is_not_linear_is_unsupported_with_the_reason(
    model: Callable[[], nn.Module], message: str, certifier: Any
) -> None:
    found = certifier.certify(model(), images(2, 1, 6), ThreatModel("l2"))
    assert found.verdict.tolist() == [Verdict.UNSUPPORTED] * 2
    assert message in found.reason[0]
    with pytest.raises(Unsupported):
        affine_form(model(), images(1, 1, 6))
