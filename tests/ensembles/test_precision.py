import pytest
import torch
from torch import Tensor

from certifiers import KeyedRandomness
from certifiers.smoothing import GaussianNoise, count_votes
from certifiers.smoothing.noise import ESTIMATION
from ensembles import Ensemble, architectures, weights_digest
from ensembles.precision import ReducedPrecision, in_precision

SHAPE = (1, 8, 8)


def network(seed: int = 0) -> architectures.Classifier:
    return architectures.create("conv_small", input_shape=SHAPE, classes=4, seed=seed).eval()


def inputs() -> Tensor:
    return torch.rand(200, *SHAPE, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
@pytest.mark.parametrize(("name", "kind"), [("bfloat16", torch.bfloat16), ("float16", torch.float16)])
def test_everything_is_rounded(name: str, kind: torch.dtype) -> None:
    own, found, x = network(), ReducedPrecision(network(), name), inputs()  # type: ignore[arg-type]
    assert {parameter.dtype for parameter in found.parameters()} == {kind}
    assert found(x).dtype == torch.float32
    assert torch.equal(found(x), own.to(kind)(x.to(kind)).float())
    error = float((found(x) - network()(x)).abs().max())
    assert 0 < error < 0.05, "another classifier, and near the one it is made of"


@torch.no_grad()
def test_another_number_format_does_not_change_it() -> None:
    found, x = ReducedPrecision(network(), "bfloat16"), inputs()
    before = found(x)
    for changed in (found.double(), found.half(), found.float()):
        assert {parameter.dtype for parameter in changed.parameters()} == {torch.bfloat16}
        assert torch.equal(changed(x), before)
        assert changed(x.double()).dtype == torch.float64


def test_float32_is_the_network_itself() -> None:
    own = network()
    assert in_precision(own, "float32") is own
    reduced = in_precision(own, "float16")
    assert isinstance(reduced, ReducedPrecision)
    assert next(own.parameters()).dtype == torch.float32, "the network is copied"


def test_unknown_formats_are_refused() -> None:
    with pytest.raises(ValueError, match="precision must be one of bfloat16, float16, got 'float32'"):
        ReducedPrecision(network(), "float32")


@torch.no_grad()
def test_votes_are_counted_of_it_and_not_of_the_network() -> None:
    members = [network(seed) for seed in range(3)]
    for parameter in (each for member in members for each in member.parameters()):
        parameter.data *= 2
    reduced = [in_precision(member, "bfloat16") for member in members]
    noise = GaussianNoise(0.5, KeyedRandomness(0, (0,)))
    plain, found = (
        count_votes([Ensemble(each)], inputs()[0], noise, 0, ESTIMATION, 2000)[0] for each in (members, reduced)
    )
    assert int(found.sum()) == 2000
    assert 0 < int((plain - found).abs().sum()) < 200
    assert weights_digest(members) != weights_digest(reduced)
