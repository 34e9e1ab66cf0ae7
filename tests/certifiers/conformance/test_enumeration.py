"""Exact answers beside grids of points, closed forms, and a case worked out by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from certifiers import Norm, ThreatModel, Unsupported
from certifiers.conformance import distance, enumerated, exact_radii, least_margins, linear
from certifiers.conformance.truth import linear_layer
from ensembles import Ensemble, MaxMargin, Single, WeightedAverage

POLYHEDRAL = [ThreatModel("linf"), ThreatModel("l1")]
AGGREGATIONS = [None, Single(member=1), WeightedAverage(of="logit", weights=(1.0, 2.0)), MaxMargin(of="logit")]


def named(value: Any) -> str | None:
    return str(value.norm) if isinstance(value, ThreatModel) else getattr(value, "name", None)


def grid(side: int) -> Tensor:
    line = torch.linspace(0, 1, side, dtype=torch.float64)
    return torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)


def hat(inputs: int = 1) -> nn.Sequential:
    """`z_0 = 1/4`, `z_1 = |x_0 - 1/2|`: class 1 at the ends of the box."""
    first = torch.zeros(2, inputs, dtype=torch.float64)
    first[:, 0] = torch.tensor([1.0, -1.0])
    return nn.Sequential(
        nn.Flatten(),
        linear_layer(first, torch.tensor([-0.5, 0.5], dtype=torch.float64)),
        nn.ReLU(),
        linear_layer(torch.tensor([[0.0, 0.0], [1.0, 1.0]]).double(), torch.tensor([0.25, 0.0]).double()),
    )


@pytest.mark.parametrize("threat", POLYHEDRAL, ids=named)
def test_a_network_worked_out_by_hand(threat: ThreatModel) -> None:
    x = torch.tensor([[0.5, 0.9], [0.35, 0.0], [0.9, 0.5]], dtype=torch.float64)
    found = exact_radii(hat(2), x, threat)
    assert found.tolist() == pytest.approx([0.25, 0.1, 0.15], abs=1e-9)
    margins = least_margins(
        hat(2), x, torch.tensor([0, 0, 1]), torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64), threat
    )
    # The second ball is cut by the box at 0, and is farthest from the middle there.
    assert margins[:, 1][:2].tolist() == pytest.approx([0.25 - 0.2, 0.25 - 0.5], abs=1e-9)
    assert margins[2, 0].item() == pytest.approx(0.4 - 0.3 - 0.25, abs=1e-9)
    assert torch.isinf(margins[[0, 1, 2], [0, 0, 1]]).all()


def test_a_max_margin_ensemble_worked_out_by_hand() -> None:
    # The first member answers 0 by 1/4 in the middle; the second answers 1 by x - 0.4, and wins from 0.65 on.
    second = nn.Sequential(
        nn.Flatten(), linear_layer(torch.tensor([[0.0], [1.0]]).double(), torch.tensor([0.4, 0.0], dtype=torch.float64))
    )
    flat = nn.Sequential(
        nn.Flatten(), linear_layer(torch.tensor([[0.0], [0.0]]).double(), torch.tensor([0.25, 0.0]).double())
    )
    ensemble = Ensemble([flat, second], MaxMargin(of="logit"))
    x = torch.tensor([[0.5], [0.0], [1.0]], dtype=torch.float64)
    assert exact_radii(ensemble, x, ThreatModel("linf")).tolist() == pytest.approx([0.15, 0.65, 0.35], abs=1e-9)
    with pytest.raises(Unsupported, match=r"jump and have no least margin; ask for exact_radii"):
        least_margins(ensemble, x, torch.zeros(3).long(), torch.ones(3).double(), ThreatModel("linf"))


@pytest.mark.parametrize("aggregation", AGGREGATIONS, ids=named)
@pytest.mark.parametrize("threat", POLYHEDRAL, ids=named)
def test_radii_equal_the_distances_to_the_points_of_a_fine_grid(threat: ThreatModel, aggregation: Any) -> None:
    truth = enumerated(4, threat, aggregation)
    points, side = grid(401), 1 / 400
    with torch.no_grad():
        answers = truth.classifier(points).argmax(1)
    assert len(set(answers.tolist())) > 1
    for x, prediction, radius in zip(truth.x, truth.prediction, truth.radius, strict=True):
        nearest = distance(x.expand(len(points), -1), points, threat.norm)[answers != prediction].min()
        assert radius <= nearest + 1e-9
        assert nearest <= radius + 6 * side  # a wrong region may end in a corner, thinner than the grid


@pytest.mark.parametrize("aggregation", AGGREGATIONS[:3], ids=named)
@pytest.mark.parametrize("threat", POLYHEDRAL, ids=named)
def test_least_margins_lie_below_all_points_and_are_reached(threat: ThreatModel, aggregation: Any) -> None:
    truth = enumerated(5, threat, aggregation)
    radius = torch.tensor([0.1, 0.25, 0.6], dtype=torch.float64)
    found = least_margins(truth.classifier, truth.x, truth.prediction, radius, threat)
    points = grid(401)
    with torch.no_grad():
        scores = truth.classifier(points)
    for image in range(3):
        inside = distance(truth.x[image].expand(len(points), -1), points, threat.norm) <= radius[image]
        margins = scores[inside, truth.prediction[image], None] - scores[inside]
        least = margins.amin(0)
        others = torch.arange(3) != truth.prediction[image]
        assert bool((found[image] <= least + 1e-8)[others].all())
        torch.testing.assert_close(found[image][others], least[others], atol=0.1, rtol=0)
    # A radius is exact: margins are zero there, and positive closer by.
    for share, sign in ((1 - 1e-5, 1), (1 + 1e-5, -1)):
        margins = least_margins(truth.classifier, truth.x, truth.prediction, share * truth.radius, threat).amin(1)
        assert bool((sign * margins > 0).all())


@pytest.mark.parametrize("threat", POLYHEDRAL, ids=named)
@pytest.mark.parametrize("aggregation", [None, WeightedAverage(of="logit", weights=(1.0, 3.0))], ids=named)
def test_linear_models_equal_their_closed_form(threat: ThreatModel, aggregation: Any) -> None:
    truth = linear(2, threat, aggregation, members=2, shape=(1, 1, 3))
    found = exact_radii(truth.classifier, truth.x, threat)
    torch.testing.assert_close(found, truth.radius, atol=1e-8, rtol=0)


def test_no_boundary_is_infinite_and_what_does_not_fit_is_refused() -> None:
    flat = nn.Sequential(nn.Flatten(), linear_layer(torch.zeros(2, 2).double(), torch.tensor([1.0, 0.0]).double()))
    x = torch.full((1, 2), 0.5, dtype=torch.float64)
    assert exact_radii(flat, x, ThreatModel("linf")).item() == float("inf")
    assert exact_radii(flat, x, ThreatModel(Norm.L2)).item() == float("inf")
    with pytest.raises(Unsupported, match=r"have no l2 balls; use linf or l1"):
        least_margins(flat, x, torch.tensor([0]), torch.tensor([0.1]).double(), ThreatModel(Norm.L2))
    with pytest.raises(Unsupported, match=r"Linear, ReLU and Flatten in sequence, not Sigmoid"):
        exact_radii(nn.Sequential(flat, nn.Sigmoid()), x, ThreatModel("linf"))
    with pytest.raises(Unsupported, match=r"gaps of confidences are not affine"):
        exact_radii(Ensemble([flat, flat], MaxMargin()), x, ThreatModel("linf"))
    with pytest.raises(Unsupported, match=r"are not affine in regions; aggregate logits"):
        exact_radii(Ensemble([flat, flat], WeightedAverage()), x, ThreatModel("linf"))
