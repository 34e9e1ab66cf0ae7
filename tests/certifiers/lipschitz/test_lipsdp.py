import math
import sys

import numpy as np
import pytest
import torch
from torch import nn

import certifiers
from certifiers import Norm, ThreatModel, Verdict
from certifiers.lipschitz import GlobalBounds, SemidefiniteBounds, semidefinite
from certifiers.lipschitz.semidefinite import Chain, Program, Solver, inequality, proved_square, solved
from certifiers.networks import Network, prepare
from certifiers.relaxation import Ball
from certifiers.relaxation.ensemble_margins import pairs
from ensembles import Ensemble, MaxMargin, Single, WeightedAverage
from tests.certifiers.lipschitz.networks_under_test import AGGREGATIONS, changed, conv, ensemble, images, mlp

L2 = ThreatModel("l2")


def network_of(classifier: nn.Module, shape: tuple[int, ...] = (1, 4, 4)) -> Network:
    with torch.no_grad():
        return prepare(classifier, images(1, *shape)).networks[0]


def constants(kind: type[GlobalBounds], network: Network, specification: torch.Tensor) -> torch.Tensor:
    ball = Ball.around(
        images(len(specification), *network.shapes[0]).double(),
        torch.zeros(len(specification), dtype=torch.float64),
        L2,
    )
    return kind(ball).constants([network], [specification])


def largest_gradients(network: Network, specification: torch.Tensor, points: int = 400) -> torch.Tensor:
    """The largest norm of a gradient at random points, far away ones among them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(points, *network.shapes[0], generator=generator, dtype=torch.float64) * 3
    found = []
    for row in specification:
        point = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((network(point) @ row).sum(), point)
        found.append(gradient.flatten(1).norm(dim=1).max())
    return torch.stack(found)


@pytest.mark.parametrize("sizes", [(16, 12, 4), (16, 8, 10, 4), (16, 6, 7, 5, 3)])
def test_between_sampled_gradients_and_products_of_norms(sizes: tuple[int, ...]) -> None:
    network = network_of(mlp(*sizes, seed=2))
    specification = pairs(torch.tensor([0, 1]), sizes[-1])
    found = constants(SemidefiniteBounds, network, specification)
    products = constants(GlobalBounds, network, specification)
    sampled = largest_gradients(network, specification.flatten(0, 1)).reshape(found.shape)
    assert bool((sampled <= found).all())
    assert bool((found <= products).all())
    others = specification.abs().sum(-1) > 0
    assert bool((found < 0.9 * products)[others].all())  # it is worth its time
    assert bool((found[~others] == 0).all())


def test_what_slope_restrictions_cannot_know() -> None:
    # relu(x1) - relu(-x1) = x1 has constant 1, but slopes in [0, 1] could both be 1, and then z_1 = 2 x1.
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    net[0].weight.data = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    net[2].weight.data = torch.tensor([[1.0, -1.0], [0.0, 0.0]])
    row = torch.tensor([[[1.0, -1.0]]], dtype=torch.float64)
    assert float(constants(SemidefiniteBounds, network_of(net, (2,)), row)) == pytest.approx(2.0, rel=1e-3)


def test_one_neuron_alone() -> None:
    net = nn.Sequential(nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 2))
    net[0].weight.data, net[2].weight.data = torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0], [0.0]])
    row = torch.tensor([[[1.0, -1.0]]], dtype=torch.float64)
    assert float(constants(SemidefiniteBounds, network_of(net, (2,)), row)) == pytest.approx(10.0, rel=1e-4)


def test_opposite_neurons_of_two_layers_need_fewer_than_the_product() -> None:
    # W_1 stretches e1 by 4, W_2 stretches e2 by 4: the product of norms is 16, no input is stretched by more than 4.
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    net[0].weight.data, net[2].weight.data = torch.diag(torch.tensor([4.0, 1.0])), torch.diag(torch.tensor([1.0, 4.0]))
    net[4].weight.data = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    row = torch.tensor([[[1.0, -1.0]]], dtype=torch.float64)
    network = network_of(net, (2,))
    assert float(constants(GlobalBounds, network, row)) == pytest.approx(16.0)
    assert float(constants(SemidefiniteBounds, network, row)) == pytest.approx(4.0, rel=1e-3)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_a_solver_returns_becomes_a_proof(seed: int) -> None:
    """Wrong multipliers and squares that are too small must not give a constant below a gradient that exists."""
    generator = np.random.default_rng(seed)
    network = network_of(mlp(16, 7, 6, 3, seed=seed))
    chain = Chain.of(network)
    row = chain.last[0] - chain.last[1]
    wrong = [generator.normal(scale=generator.choice([0.01, 1, 10]), size=len(weight)) for weight in chain.hidden]
    square = float(generator.choice([-1.0, 0.0, 0.001]))
    found = math.sqrt(proved_square(chain.hidden, row, wrong, square)) * chain.scale
    specification = torch.tensor([[1.0, -1.0, 0.0]], dtype=torch.float64)
    assert found >= float(largest_gradients(network, specification))


@pytest.mark.parametrize("solver", ["scs", "clarabel"])
def test_the_repair_of_a_solution_costs_little(solver: Solver) -> None:
    chain = Chain.of(network_of(mlp(16, 8, 8, 3, seed=1)))
    row = chain.last[0] / np.linalg.norm(chain.last[0])
    multipliers, square = solved(chain.hidden, row, solver, 500)
    proved = proved_square(chain.hidden, row, multipliers, square)
    assert square * (1 - 1e-3) <= proved <= square * (1 + 1e-2)
    # Half of it cannot be proved with any repair that is sound.
    assert proved_square(chain.hidden, row, multipliers, square / 2) > square * (1 - 1e-2)


def test_solvers_agree() -> None:
    chain = Chain.of(network_of(mlp(16, 8, 8, 3, seed=1)))
    first, second = (Program(chain, solver, 500).constant(np.array([1.0, -1.0, 0.0])) for solver in ("scs", "clarabel"))
    assert first == pytest.approx(second, rel=1e-2)


def test_multipliers_that_are_not_numbers_prove_nothing() -> None:
    chain = Chain.of(network_of(mlp(16, 4, 3)))
    assert proved_square(chain.hidden, chain.last[0], [np.full(4, math.nan)], 1.0) == math.inf


def test_the_matrix_is_the_quadratic_form_of_the_paper() -> None:
    generator = np.random.default_rng(0)
    hidden = [generator.normal(size=(4, 5)), generator.normal(size=(3, 4))]
    row, t = generator.normal(size=3), [generator.random(4), generator.random(3)]
    d = [generator.normal(size=size) for size in (5, 4, 3)]
    expected = (row @ d[2]) ** 2 - 2.5 * d[0] @ d[0]
    for number in (0, 1):
        expected += 2 * d[number + 1] @ (t[number] * (hidden[number] @ d[number] - d[number + 1]))
    v = np.concatenate(d)
    assert v @ inequality(hidden, row, t, 2.5) @ v == pytest.approx(expected)


@pytest.mark.parametrize("aggregation", AGGREGATIONS, ids=lambda one: f"{one.name}-{getattr(one, 'of', '')}")
def test_no_attack_succeeds_and_never_below_the_product(aggregation: object) -> None:
    classifier, x = ensemble("mlp", aggregation), images(6, 1, 4, 4, seed=3)  # type: ignore[arg-type]
    found = certifiers.create("lipsdp").certify(classifier, x, L2)
    products = certifiers.create("lipschitz").certify(classifier, x, L2)
    assert bool((found.radius >= products.radius).all())
    assert bool((found.radius > 1.05 * products.radius)[products.certified].all())
    kept = found.certified
    assert bool(kept.any())
    assert not bool(changed(classifier, x[kept], found.radius[kept], Norm.L2).any())


def test_exact_for_linear_models() -> None:
    torch.manual_seed(0)
    members = [nn.Sequential(nn.Flatten(), nn.Linear(9, 4)).eval() for _ in range(2)]
    x = images(10, 1, 3, 3)
    for classifier in (members[0], Ensemble(members, Single(member=1))):
        found = certifiers.create("lipsdp").certify(classifier, x, L2)
        true = certifiers.create("closed-form").certify(classifier, x, L2).radius
        assert torch.allclose(found.radius, true, rtol=1e-6, atol=0)


def test_each_program_is_solved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0

    def counted(*arguments: object) -> object:
        nonlocal count
        count += 1
        return solved(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(semidefinite, "solved", counted)
    classifier, x = mlp(16, 6, 3, seed=9), images(8, 1, 4, 4)
    first = certifiers.create("lipsdp").certify(classifier, x, L2)
    assert 0 < count <= 3  # pairs of three classes
    before = count
    again = certifiers.create("lipsdp").certify(classifier, x, L2)
    assert count == before
    assert again.radius.tolist() == first.radius.tolist()
    certifiers.create("lipsdp").certify(Ensemble([classifier] * 2, WeightedAverage(of="logit")), x, L2)
    certifiers.create("lipsdp").certify(Ensemble([classifier] * 2, MaxMargin(of="logit")), x, L2)
    assert count <= 3  # multiples and opposites of a pair are the same question


@pytest.mark.parametrize(
    ("classifier", "shape", "why"),
    [
        (conv(), (1, 8, 8), "this is Conv2d where linear was expected. lipschitz certifies convolutions"),
        (mlp(16, 200, 3), (1, 4, 4), "this one has 200 ReLUs, and largest = 128. Raise it"),
        (nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.ReLU()), (1, 4, 4), "networks that end in a linear layer"),
    ],
)
def test_networks_it_is_not_for(classifier: nn.Module, shape: tuple[int, ...], why: str) -> None:
    found = certifiers.create("lipsdp").certify(classifier, images(2, *shape), L2)
    assert found.verdict.tolist() == [int(Verdict.UNSUPPORTED)] * 2
    assert why in found.reason[0]


def test_only_l2() -> None:
    found = certifiers.create("lipsdp").certify(mlp(16, 5, 3), images(1, 1, 4, 4), ThreatModel("linf"))
    assert found.reason == ("lipsdp does not certify the norm linf; it certifies: l2.",)


def test_without_cvxpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    found = certifiers.create("lipsdp").certify(mlp(16, 5, 3, seed=31), images(1, 1, 4, 4), L2)
    assert found.verdict.tolist() == [int(Verdict.UNSUPPORTED)]
    assert "Install it: pip install cvxpy" in found.reason[0]


def test_a_solver_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    cvxpy = pytest.importorskip("cvxpy")

    def fail(*arguments: object, **named: object) -> None:
        raise cvxpy.error.SolverError("numbers went bad")

    monkeypatch.setattr(cvxpy.Problem, "solve", fail)
    with pytest.raises(RuntimeError, match="The solver scs failed: numbers went bad"):
        certifiers.create("lipsdp").certify(mlp(16, 5, 3, seed=32), images(1, 1, 4, 4), L2)


def test_a_solver_that_gives_up_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    cvxpy = pytest.importorskip("cvxpy")
    monkeypatch.setattr(cvxpy.Problem, "solve", lambda *arguments, **named: None)
    monkeypatch.setattr(cvxpy.Problem, "status", "infeasible", raising=False)
    with pytest.raises(RuntimeError, match=r"it calls the program .infeasible., which has a solution"):
        certifiers.create("lipsdp").certify(mlp(16, 5, 3, seed=33), images(1, 1, 4, 4), L2)


def test_rows_that_cancel_keep_their_rounding() -> None:
    chain = Chain.of(network_of(mlp(16, 5, 3, seed=3)))
    last = np.stack([chain.last[0], chain.last[0], chain.last[1]])
    found = Program(Chain(chain.hidden, last, chain.scale), "scs", 500).constant(np.array([1.0, -1.0, 0.0]))
    assert 0 < found < 1e-12


def test_few_iterations_are_repaired_as_well() -> None:
    network = network_of(mlp(16, 8, 8, 3, seed=1))
    chain, specification = Chain.of(network), torch.tensor([[1.0, -1.0, 0.0]], dtype=torch.float64)
    few, many = (Program(chain, "scs", count).constant(specification[0].numpy()) for count in (5, 2000))
    assert float(largest_gradients(network, specification)) <= many <= few * (1 + 1e-3)
