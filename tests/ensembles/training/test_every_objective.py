"""What holds for every objective: a new one is a row of the table."""

import importlib
from typing import Any

import pytest
import torch
from torch import nn

import ensembles.training
from ensembles import Ensemble, architectures, weights_digest
from ensembles.training import Objective, Schedule, TrainingError, train

MODULES = [
    *("adp", "adversarial", "consistency", "drt", "gal", "gaussian", "ibp", "macer"),
    *("priority_dropout", "smoothadv", "stability", "trs"),
]
for _module in MODULES:
    importlib.import_module(f"ensembles.training.{_module}")

#: Parameters of which each objective is tried with; more than one row where it has forms.
TABLE: list[dict[str, Any]] = [
    {"name": "gaussian"},
    {"name": "smoothadv", "steps": 2, "epsilon": 0.3},
    {"name": "macer", "draws": 4, "beta": 2.0},
    {"name": "stability"},
    {"name": "stability", "detach_target": True},
    {"name": "consistency"},
    {"name": "drt", "form": "paper"},
    {"name": "drt", "form": "code"},
    {"name": "drt", "form": "overall"},
    {"name": "drt", "form": "paper", "gradients": "norm"},
    {"name": "drt", "form": "code", "gradients": "norm"},
    {"name": "drt", "base": "smoothadv", "steps": 2, "epsilon": 0.3},
    {"name": "adp"},
    {"name": "adp", "ce": "mean"},
    {"name": "gal"},
    {"name": "trs"},
    {"name": "trs", "gradient_of": "batch-mean"},
    {"name": "pdd"},
    {"name": "pdd", "statistics": "batch", "inverted_scaling": True},
    {"name": "pdd+deg", "deg": 0.5},
    {"name": "lpd"},
    {"name": "lpd", "statistics": "batch", "inverted_scaling": True},
    {"name": "adversarial", "method": "fgsm"},
    {"name": "adversarial", "method": "pgd", "steps": 2},
    {"name": "ibp", "epsilon": 0.05},
]


def named(table: dict[str, Any]) -> str:
    return "-".join(str(value) for value in table.values() if isinstance(value, str | bool))


every_objective = pytest.mark.parametrize("table", TABLE, ids=named)


def made(table: dict[str, Any], sigma: float = 0.5) -> Objective:
    return ensembles.training.create(**table, sigma=sigma)


def test_the_table_has_every_objective_of_this_package() -> None:
    ours = {name for name in ensembles.training.names() if ensembles.training.origin(name) == "certbench"}
    assert ours <= {row["name"] for row in TABLE}
    assert len({row["name"] for row in TABLE}) == 14


@every_objective
def test_described_and_made_again(table: dict[str, Any]) -> None:
    objective = made(table)
    assert ensembles.training.from_mapping(objective.describe()) == objective
    assert objective.describe()["name"] == table["name"] == objective.name


class Terms(nn.Module):
    """The terms of an objective as a function of the weights, for gradcheck."""

    def __init__(self, ensemble: Ensemble, objective: Objective, x: Any, y: Any) -> None:
        super().__init__()
        self.ensemble = ensemble
        self.objective = objective
        self.x, self.y = x, y

    def forward(self) -> tuple[torch.Tensor, ...]:
        terms = self.objective.terms(self.ensemble, self.x, self.y, torch.Generator().manual_seed(1))
        return tuple(terms.values())


# An attack's inputs and a detached target depend on the weights, and are held fixed all the same.
DIFFERENTIABLE = [
    row
    for row in TABLE
    if row["name"] not in ("smoothadv", "adversarial") and {"base", "detach_target"}.isdisjoint(row)
]


@pytest.mark.parametrize("table", DIFFERENTIABLE, ids=named)
def test_gradients_of_each_term_equal_finite_differences(literal: Any, table: dict[str, Any]) -> None:
    problem = literal.build_problem(
        members=2, classes=3, shape=(1, 2, 2), hidden=3, seed=4, smooth=True, batch=4, sharpness=2.0
    )
    objective = made(table, sigma=0.1)
    model = Terms(problem.ensemble.train(), objective, problem.x, problem.y)
    names, weights = zip(*model.named_parameters(), strict=True)

    def function(*values: torch.Tensor) -> Any:
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), ())

    terms = function(*weights)
    for term in terms:  # each term has something to differentiate, through the input gradients too
        slopes = torch.autograd.grad(term, weights, retain_graph=True, allow_unused=True)
        assert any(slope is not None and float(slope.abs().max()) > 1e-4 for slope in slopes)
    # In fast mode: along random directions of each weight rather than along every axis.
    assert torch.autograd.gradcheck(function, weights, eps=1e-6, atol=1e-6, rtol=1e-4, fast_mode=True)


@every_objective
def test_loss_is_the_sum_of_finite_terms_and_reaches_every_member(literal: Any, table: dict[str, Any]) -> None:
    problem = literal.build_problem(members=3, hidden=12, seed=7)
    ensemble, x, y = problem.ensemble.float().train(), problem.x.float(), problem.y
    objective = made(table)
    before = x.clone()
    terms = objective.terms(ensemble, x, y, literal.generator(2))
    assert all(term.shape == () and bool(torch.isfinite(term)) for term in terms.values())
    loss = objective.loss(ensemble, x, y, literal.generator(2))
    assert loss.item() == pytest.approx(sum(literal.values(terms).values()), rel=1e-6)
    loss.backward()
    for member in ensemble.members:
        assert float(member.head.weight.grad.norm()) > 0
    assert torch.equal(x, before)
    assert x.grad is None
    # One sample is a batch.
    single = objective.loss(ensemble, x[:1], y[:1], literal.generator(2))
    assert bool(torch.isfinite(single))


@every_objective
def test_the_generator_is_the_only_randomness(literal: Any, table: dict[str, Any]) -> None:
    problem = literal.build_problem(members=2, hidden=12)
    objective = made(table)

    def loss(seed: int) -> float:
        return objective.loss(problem.ensemble, problem.x, problem.y, literal.generator(seed)).item()

    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = loss(3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert loss(3) == first
    assert loss(4) != first


@every_objective
def test_pairwise_objectives_need_two_members(literal: Any, table: dict[str, Any]) -> None:
    objective, images = made(table), literal.Images()
    ensemble = literal.build_ensemble(members=1, classes=3).float()
    coupling = ("drt", "adp", "gal", "trs", "pdd", "pdd+deg", "lpd")
    assert objective.pairwise == (table["name"] in coupling)
    schedule = Schedule(epochs=1, batch_size=12)
    if objective.pairwise:
        with pytest.raises(ValueError, match=r"needs at least two, got 1\. Raise members, or choose an objective that"):
            train(ensemble, objective, schedule, images, images, seed=0)
    else:
        assert len(train(ensemble, objective, schedule, images, images, seed=0)) == 1


@every_objective
def test_two_runs_from_one_seed_end_with_the_same_weights(literal: Any, table: dict[str, Any]) -> None:
    images = literal.Images(count=12, classes=3)

    def digest(seed: int) -> str:
        members = [
            architectures.create("mlp", input_shape=(1, 4, 4), classes=3, seed=number, hidden=(8,)) for number in (1, 2)
        ]
        train(Ensemble(members), made(table), Schedule(epochs=1, batch_size=6), images, images, seed)
        return weights_digest(members)

    assert digest(5) == digest(5)
    assert digest(5) != digest(6)


@pytest.mark.parametrize("table", [row for row in TABLE if not made(row).joint], ids=named)
def test_members_that_are_not_coupled_learn_as_if_alone(literal: Any, table: dict[str, Any]) -> None:
    # `joint = False` promises that the gradient of a member does not depend on the others being there.
    problem = literal.build_problem(members=3)
    objective = made(table)

    def gradients(ensemble: Ensemble, member: nn.Module) -> list[torch.Tensor]:
        loss = objective.loss(ensemble, problem.x, problem.y, literal.generator(1))
        return list(torch.autograd.grad(loss, list(member.parameters())))

    for member in problem.ensemble.members:
        for alone, together in zip(
            gradients(Ensemble([member]), member), gradients(problem.ensemble, member), strict=True
        ):
            torch.testing.assert_close(alone, together, rtol=1e-9, atol=1e-12)


@every_objective
def test_training_at_an_absurd_rate_ends_in_the_error_or_not_at_all(literal: Any, table: dict[str, Any]) -> None:
    # Never in weights that are not numbers, reported as a success.
    images = literal.Images(count=12, classes=3)
    members = [architectures.create("mlp", input_shape=(1, 4, 4), classes=3, seed=s, hidden=(8,)) for s in (1, 2)]
    try:
        train(Ensemble(members), made(table), Schedule(epochs=2, batch_size=6, learning_rate=1e25), images, images, 0)
    except TrainingError as error:
        assert table["name"] in str(error)  # noqa: PT017  (ending without an error is fine too)
    else:
        assert all(bool(torch.isfinite(weight).all()) for member in members for weight in member.parameters())
