import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from certifiers import ThreatModel, Unsupported
from certifiers.exact import Encoder, Program
from certifiers.networks import Network, prepare
from certifiers.relaxation import Ball
from certifiers.relaxation.matrices import Matrices


class Residual(nn.Module):
    """A block with batch norm, a shortcut, average pooling and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 3, 3, stride=2, padding=1)
        self.second = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.norm, self.last = nn.BatchNorm2d(3), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        x = (x + self.norm(self.second(x))).relu()
        return self.last(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


def residual(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = Residual()
    model.norm.running_mean.normal_()
    model.norm.running_var.uniform_(0.5, 2)
    return model.eval()


def ball(x: Tensor, radius: float, norm: str = "linf") -> Ball:
    return Ball.around(x[None].double(), torch.tensor([radius], dtype=torch.float64), ThreatModel(norm))


def point(program: Program, networks: tuple[Network, ...], encoder: Encoder, x: Tensor) -> np.ndarray:
    """The variables at an input, from what the networks themselves compute there."""
    found = [x.flatten().double().numpy()]
    for network in networks:
        values = network.values(x[None].double())
        for number, (low, high) in encoder.bounds.relaxed(network).bounds.items():
            read = values[network.sources[number][0]].flatten().numpy()
            low, high = low.flatten().numpy(), high.flatten().numpy()
            unstable = (low < 0) & (high > 0)
            found.append(np.maximum(read, 0)[unstable])
            if program.integral.any():
                found.append((read > 0)[unstable].astype(float))
    return np.concatenate(found)


MODELS = {
    "conv": nn.Sequential(
        nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=1, groups=1), nn.ReLU(), nn.Flatten(), nn.Linear(63, 4)
    ),
    "residual": residual(),
}


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_inputs_of_the_ball_satisfy_the_constraints_and_outputs_are_the_networks(name: str, binary: bool) -> None:
    torch.manual_seed(0)
    model, x = MODELS[name].eval(), torch.rand(2, 6, 6)
    prepared = prepare(model, x[None])
    encoder = Encoder(ball(x, 0.3))
    program = encoder.program(prepared.networks, binary=binary)
    assert program.integral.any() == binary
    violated = 0
    for _ in range(20):
        inside = (x + (torch.rand_like(x) * 2 - 1) * 0.3).clamp(0, 1)
        v = point(program, prepared.networks, encoder, inside)
        assert (program.matrix @ v <= program.limit + 1e-9).all()
        assert ((program.lower - 1e-12 <= v) & (v <= program.upper + 1e-12)).all()
        for row in range(4):
            cost, constant = program.combined([torch.eye(4)[row]])
            assert cost @ v + constant == pytest.approx(float(model(inside[None])[0, row].detach()), abs=1e-5)
        wrong = v.copy()
        wrong[72] += 0.5  # the first unstable output is not its ReLU
        violated += bool((program.matrix @ wrong > program.limit + 1e-6).any())
    assert violated > 10


def test_phases_leave_only_the_relu_itself() -> None:
    """With y as a variable of its own: d = 0 forces y = 0 and z <= 0, d = 1 forces y = z >= 0."""
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2))
    model[0].weight.data, model[0].bias.data = torch.tensor([[2.0]]), torch.tensor([-1.0])
    x = torch.tensor([0.5])
    program = Encoder(ball(x, 0.25)).program(prepare(model, x[None]).networks, binary=True)
    assert program.integral.tolist() == [False, False, True]
    for value in np.linspace(0.26, 0.74, 7):
        z = 2 * value - 1
        for y in np.linspace(0, 0.5, 11):
            for d in (0.0, 1.0):
                allowed = (program.matrix @ np.array([value, y, d]) <= program.limit + 1e-9).all()
                assert allowed == (abs(y - max(z, 0)) < 1e-9 and (d == 1.0) == (z > 0)) or abs(z) < 1e-9


def test_relu_that_barely_crosses_zero_gets_no_phase() -> None:
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2))
    model[0].weight.data = torch.tensor([[1.0], [-1.0]], dtype=torch.float32)
    model[0].bias.data = torch.tensor([-0.25, 0.25])  # z in [-1e-8, 0.5], and [-0.5, 1e-8]
    x = torch.tensor([0.5], dtype=torch.float64)
    program = Encoder(ball(x, 0.25 + 1e-8)).program(prepare(model.double(), x[None]).networks, binary=True)
    assert len(program.lower) == 3
    assert not program.integral.any()
    for value in (0.25 - 1e-8, 0.25, 0.75):
        v = np.array([value, max(value - 0.25, 0), max(0.25 - value, 0)])
        assert (program.matrix @ v <= program.limit + 1e-12).all()
        assert (v <= program.upper + 1e-12).all()
        for unit in (1, 2):
            off = v.copy()
            off[unit] += 1e-6
            assert (program.matrix @ off > program.limit).any() or (off > program.upper).any()


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(50, 7),
        nn.Conv2d(2, 4, 3, stride=2, padding=1, dilation=2, groups=2),
        nn.Conv2d(2, 3, (2, 3), stride=(1, 2), padding=(1, 0)),
        nn.AvgPool2d(2),
        nn.AvgPool2d(3, 2, 1),
    ],
)
def test_matrix_of_a_layer_is_the_layer(layer: nn.Module) -> None:
    shape = (50,) if isinstance(layer, nn.Linear) else (2, 5, 5)
    own = layer.double().requires_grad_(requires_grad=False)
    found = Matrices().of(own, shape)
    x = torch.rand(3, *shape, dtype=torch.float64)
    for row in x:
        expected = own(row[None]).flatten().numpy()
        assert found.matrix @ row.flatten().numpy() + found.offset == pytest.approx(expected, abs=1e-12)
    if isinstance(layer, nn.Linear):
        assert (found.matrix.toarray() == own.weight.numpy()).all(), "exact"


def test_max_pooling_is_refused_with_an_alternative() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3))
    x = torch.rand(1, 6, 6)
    networks = prepare(model, x[None]).networks
    with pytest.raises(Unsupported, match=r"layer 2 \(MaxPool2d\): linear programs know no MaxPool2d .*native-crown"):
        Encoder(ball(x, 0.1)).program(networks, binary=False)


def test_bounds_that_are_not_finite_are_refused(mlp: Any) -> None:
    x = torch.rand(2)
    networks = prepare(mlp(2, 3, 2, seed=0), x[None]).networks
    encoder = Encoder(ball(x, 0.1))
    relaxed = encoder.bounds.relaxed(networks[0])
    low, _ = relaxed.bounds[1]
    low[0, 0] = torch.nan
    with pytest.raises(Unsupported, match="inputs have no finite bounds over the ball"):
        encoder.program(networks, binary=True)


def test_one_ball_at_a_time() -> None:
    two = Ball.around(torch.rand(2, 3, dtype=torch.float64), torch.ones(2, dtype=torch.float64), ThreatModel("linf"))
    with pytest.raises(ValueError, match=re.escape("one sample, got 2. Use ball.part(slice(k, k + 1)).")):
        Encoder(two)
