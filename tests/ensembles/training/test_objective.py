from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import ensembles.training
from ensembles import Ensemble, ParameterError, UnknownNameError
from ensembles.parameters import NonNegativeFloat
from ensembles.training import Objective


@dataclass(frozen=True, kw_only=True)
class TwoTerms(Objective):
    """An outsider's objective: a dataclass, a name, and terms."""

    name: ClassVar[str] = "two-terms"
    factor: NonNegativeFloat = 2.0

    def terms(self, ensemble: Ensemble, x: Tensor, y: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        scores = ensemble(x)
        return {"first": scores.sum(), "second": -self.factor * scores.square().sum()}


def test_loss_is_the_sum_of_the_terms() -> None:
    ensemble = Ensemble([nn.Linear(3, 2)])
    x, y, generator = torch.rand(4, 3), torch.zeros(4, dtype=torch.int64), torch.Generator()
    scores = ensemble(x)
    assert torch.allclose(TwoTerms().loss(ensemble, x, y, generator), scores.sum() - 2 * (scores * scores).sum())


def test_members_are_taken_to_be_coupled_unless_said_otherwise() -> None:
    assert TwoTerms.joint
    assert TwoTerms().at_epoch(3) == TwoTerms()
    assert TwoTerms(sigma=0.5).describe() == {"name": "two-terms", "sigma": 0.5, "factor": 2.0}


def test_objectives_by_name() -> None:
    assert "gaussian" in ensembles.training.names()
    assert ensembles.training.origin("gaussian") == "certbench"
    table = {"name": "Gaussian", "sigma": 0.5}
    made = ensembles.training.from_mapping(table)
    assert made == ensembles.training.create("gaussian", sigma=0.5)
    assert ensembles.training.from_mapping(made.describe()) == made
    assert table == {"name": "Gaussian", "sigma": 0.5}


@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        ({"name": "gausian"}, UnknownNameError, r"Unknown objective 'gausian'\. Did you mean 'gaussian'\? Available: "),
        (
            {"name": "gaussian", "sigm": 1.0},
            ParameterError,
            "Unknown parameter 'sigm' of objective 'gaussian'. Did you",
        ),
        ({"sigma": 0.5}, ParameterError, r"An objective needs a name, got \{'sigma': 0\.5\}\. Available: .*gaussian"),
    ],
)
def test_wrong_tables_say_what_is_right(table: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ensembles.training.from_mapping(table)
