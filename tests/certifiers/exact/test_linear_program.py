import builtins
import re
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

import certifiers
from certifiers import KeyedRandomness, ThreatModel, Verdict
from certifiers.exact import Encoder, LinearProgram, LinearProgramBounds, TriangleProgram
from certifiers.networks import prepare
from certifiers.relaxation import BackwardBounds, Ball, IntervalBounds
from ensembles import Ensemble, MaxMargin, WeightedAverage

RNG = KeyedRandomness(0, (0,))


def ball(x: torch.Tensor, radius: float, norm: str) -> Ball:
    return Ball.around(x[None].double(), torch.tensor([radius], dtype=torch.float64), ThreatModel(norm))


def margins(name: str, model: nn.Module, x: torch.Tensor, radius: float, norm: str, **options: Any) -> torch.Tensor:
    """Lower bounds on the margins of the classifier's own answer to one image."""
    return certifiers.create(name, **options).margins(
        model, x[None], model(x[None]).argmax(1), torch.tensor([radius], dtype=torch.float64), ThreatModel(norm), RNG
    )[0]


@pytest.mark.parametrize("norm", ["l1", "linf"])
def test_between_the_native_bounds_and_the_truth(norm: str, mlp: Any, truth: Any) -> None:
    tighter, radius = 0, 0.3
    for seed in range(4):
        model = mlp(2, 5, 4, 3, seed=seed)
        x = torch.rand(2, generator=torch.Generator().manual_seed(seed))
        prepared, own, around = prepare(model, x[None]), torch.eye(3), ball(x, radius, norm)
        rows = torch.stack([own[0] - own[1], own[1] - own[0], own[2] - own[0]])[None].double()
        found = LinearProgramBounds(Encoder(around)).lower(prepared.networks, [rows])[0]
        crown = BackwardBounds(around, "crown").lower(prepared.networks, [rows])[0]
        ibp = IntervalBounds(around).lower(prepared.networks, [rows])[0]
        assert (found >= torch.maximum(crown, ibp)).all()
        exact = torch.tensor([truth([model], x.double().numpy(), radius, norm).margin([row]) for row in rows[0]])
        assert (found <= exact + 1e-7).all()
        tighter += int((found > crown + 1e-4).sum())
    assert tighter >= 4


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
@pytest.mark.parametrize("of", ["single", "we", "we-confidence", "mme"])
def test_certifier_is_never_below_crown_or_intervals_by_sign(norm: str, of: str, mlp: Any) -> None:
    aggregation = {"we": WeightedAverage(of="logit"), "we-confidence": WeightedAverage(), "mme": MaxMargin(of="logit")}
    members = [mlp(3, 6, 5, 3, seed=seed) for seed in range(3)]
    model = members[0] if of == "single" else Ensemble(members, aggregation[of]).eval()
    better = 0
    for seed in range(4):
        x = torch.rand(3, generator=torch.Generator().manual_seed(seed))
        for radius in (0.05, 0.3, 0.7):
            found = margins("lp", model, x, radius, norm)
            crown, ibp = (margins(name, model, x, radius, norm) for name in ("native-crown", "native-ibp"))
            assert (found >= crown).all()
            assert ((found > 0) | (ibp <= 0) | (found >= ibp)).all()
            better += bool((found > crown + 1e-6).any())
            # No sample is below: scores of max-margin jump, so that only signs can be compared.
            scores = model((x + radius * 0.57 * (2 * torch.rand(500, 3) - 1) / (2 if norm == "l1" else 1)).clamp(0, 1))
            if of == "mme":
                if bool((found > 0).all()):
                    assert bool((scores.argmax(1) == model(x[None]).argmax(1)).all())
            else:
                y = int(model(x[None]).argmax())
                assert bool(
                    ((scores[:, y : y + 1] - scores).amin(0) >= found.clamp(max=1e9) - 1e-5)[torch.arange(3) != y].all()
                )
    assert better


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_solvers_agree(norm: str, mlp: Any) -> None:
    x = torch.tensor([0.3, 0.7, 0.5])
    encoder = Encoder(ball(x, 0.25, norm))
    networks = prepare(mlp(3, 6, 5, 2, seed=1), x[None]).networks
    program = encoder.program(networks, binary=False)
    objective = program.combined([torch.tensor([1.0, -1.0])])
    found = {
        solver: TriangleProgram(program, solver).lower(*objective)
        for solver in ("highs", "clarabel", "scs")
        if not (solver == "highs" and norm == "l2")
    }
    assert found["clarabel"] == pytest.approx(found.get("highs", found["clarabel"]), abs=1e-6)
    assert found["scs"] == pytest.approx(found["clarabel"], abs=1e-3)
    assert found["scs"] <= found["clarabel"] + 1e-6


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_linear_models_have_the_closed_form(norm: str) -> None:
    torch.manual_seed(0)
    model, x, radius = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), 0.3 + 0.4 * torch.rand(4), 0.1
    found, exact = (margins(name, model, x, radius, norm) for name in ("lp", "closed-form-margins"))
    y = int(model(x[None]).argmax())
    assert found[torch.arange(3) != y].tolist() == pytest.approx(exact[torch.arange(3) != y].tolist(), abs=1e-6)


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_members_together_are_at_least_as_tight_as_apart(norm: str, mlp: Any) -> None:
    x = torch.tensor([0.4, 0.6])
    members = [mlp(2, 5, 3, seed=seed) for seed in (0, 1)]
    networks = prepare(Ensemble(members, WeightedAverage(of="logit")), x[None]).networks
    bounds = LinearProgramBounds(Encoder(ball(x, 0.3, norm)))
    rows = (torch.eye(3)[:1] - torch.eye(3)[1:])[None].double()
    together = bounds.lower(networks, [rows / 2, rows / 2])
    apart = torch.stack([bounds.lower([network], [rows / 2]) for network in networks]).sum(0)
    # Of several networks, what CROWN proves positive is not solved for.
    assert ((together >= apart - 1e-7) | (together > 0)).all()
    assert (together > apart + 1e-3).any()


def test_stable_networks_are_solved_exactly_without_a_solver(
    mlp: Any, truth: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = mlp(2, 6, 4, 3, seed=2), torch.tensor([0.35, 0.55])
    for norm in ("l1", "linf"):
        encoder = Encoder(ball(x, 1e-3, norm))
        networks = prepare(model, x[None]).networks
        program = TriangleProgram(encoder.program(networks, binary=False), None)
        assert not len(program.program.limit), "no unstable ReLU"
        monkeypatch.setattr(program._problem, "solve", None)
        row = torch.tensor([1.0, -1.0, 0.0])
        exact = truth([model], x.double().numpy(), 1e-3, norm).margin([row])
        assert program.lower(*program.program.combined([row])) == pytest.approx(exact, abs=1e-9)


def test_l2_with_a_solver_of_linear_programs_is_refused(mlp: Any) -> None:
    model, x = mlp(2, 6, 3, seed=0), torch.rand(1, 2)
    found = LinearProgram(solver="highs").certify(model, x, ThreatModel("l2"), radii=[1.0])
    assert found.verdict.tolist() == [Verdict.UNSUPPORTED]
    assert "an l2 ball is a second-order cone. Use solver = clarabel or scs" in found.reason[0]


def unstable_program(mlp: Any) -> tuple[TriangleProgram, Any]:
    x = torch.tensor([0.4, 0.6, 0.5])
    program = Encoder(ball(x, 0.3, "linf")).program(prepare(mlp(3, 6, 2, seed=1), x[None]).networks, binary=False)
    assert len(program.limit)
    return TriangleProgram(program, None), program.combined([torch.tensor([1.0, -1.0])])


def test_failed_solver_raises_with_its_own_words(mlp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import cvxpy

    program, objective = unstable_program(mlp)

    def fails(**options: Any) -> None:
        raise cvxpy.error.SolverError("numerical trouble in row 7")

    monkeypatch.setattr(program._problem, "solve", fails)
    with pytest.raises(RuntimeError, match=r"The solver highs failed: numerical trouble in row 7"):
        program.lower(*objective)


def test_infeasible_program_raises_with_its_status(mlp: Any) -> None:
    """A program without a solution, which no encoding makes, is a failure and not a proof."""
    x = torch.tensor([0.4, 0.6, 0.5])
    good = Encoder(ball(x, 0.3, "linf")).program(prepare(mlp(3, 6, 2, seed=1), x[None]).networks, binary=False)
    good.limit[:] = -100.0
    with pytest.raises(RuntimeError, match=re.escape("calls a program that has a solution 'infeasible'. Try another")):
        TriangleProgram(good, None).lower(*good.combined([torch.tensor([1.0, -1.0])]))


def test_wrong_multipliers_only_weaken_the_bound(mlp: Any) -> None:
    program, objective = unstable_program(mlp)
    best = program.lower(*objective)
    solve = program._problem.solve

    def wrong(**options: Any) -> None:
        solve(**options)
        program._rows.dual_value[:] = -program._rows.dual_value + 0.1

    program._problem.solve = wrong
    assert program.lower(*objective) < best - 1e-3


def test_missing_library_says_how_to_install_it(mlp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name.split(".")[0] == "cvxpy":
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(sys.modules, "cvxpy", raising=False)
    found = LinearProgram().certify(mlp(2, 6, 3, seed=0), torch.rand(1, 2), ThreatModel("linf"), radii=[1.0])
    assert found.verdict.tolist() == [Verdict.UNSUPPORTED]
    assert "pip install cvxpy highspy" in found.reason[0]


def test_importing_certifiers_loads_no_solver() -> None:
    code = "import certifiers, sys; print([name for name in ('cvxpy', 'highspy') if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
