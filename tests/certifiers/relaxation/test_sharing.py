"""What bounds share: neurons of a larger ball, linear functions of several networks."""

import pytest
import torch
from torch import Tensor, nn

import certifiers
from certifiers import ThreatModel
from certifiers.networks import Network, read
from certifiers.relaxation import BackwardBounds, Ball, Bounds, IntervalBounds
from certifiers.relaxation.ensemble_margins import pairs

LINF = ThreatModel(norm="linf")


@pytest.fixture
def x() -> Tensor:
    return torch.rand(3, 5, generator=torch.Generator().manual_seed(1)).double()


@pytest.fixture
def networks(x: Tensor) -> list[Network]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return [read(nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 4)), x[:1]) for _ in range(3)]


def ball(x: Tensor, radius: float) -> Ball:
    return Ball.around(x, torch.full((3,), radius).double(), LINF)


def test_neurons_of_a_larger_ball_bound_a_smaller_one(networks: list[Network], x: Tensor) -> None:
    rows = [pairs(torch.tensor([0, 1, 2]), 4)]
    large, own = BackwardBounds(ball(x, 0.2), "crown"), BackwardBounds(ball(x, 0.1), "crown")
    within = large.within(ball(x, 0.1))
    values = torch.einsum("brc,bc->br", rows[0], networks[0](x))
    assert bool((within.lower(networks[:1], rows) <= values).all())
    assert bool((within.lower(networks[:1], rows) > large.lower(networks[:1], rows)).any())
    corner = (x + 0.1 * torch.randn(200, 3, 5, generator=torch.Generator().manual_seed(2)).sign()).clamp(0, 1)
    seen = torch.einsum("brc,sbc->sbr", rows[0], networks[0](corner.flatten(0, 1)).unflatten(0, (200, 3)))
    for bounds in (within, own):
        assert bool((bounds.lower(networks[:1], rows) <= seen).all())


def test_a_ball_that_is_not_within_is_refused(x: Tensor) -> None:
    with pytest.raises(ValueError, match=r"A ball of radius .* is not within"):
        BackwardBounds(ball(x, 0.1), "crown").within(ball(x, 0.11))


@pytest.mark.parametrize("kind", ["ibp", "crown"])
def test_sums_of_two_networks_are_those_of_one_question_of_many_rows(
    networks: list[Network], x: Tensor, kind: str
) -> None:
    bounds = IntervalBounds(ball(x, 0.1)) if kind == "ibp" else BackwardBounds(ball(x, 0.1), "crown")
    rows, couples = pairs(torch.tensor([0, 1, 2]), 4)[:, :2], [(0, 1), (2, 0)]
    assert torch.allclose(bounds.sums(networks, rows, couples), Bounds.sums(bounds, networks, rows, couples), atol=1e-9)


@pytest.mark.parametrize("size", [1, 2, 8])
def test_radii_in_descending_order_do_not_depend_on_the_batch(x: Tensor, size: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 4))
    images, radii = x.float(), torch.tensor([[0.2] * 3, [0.1] * 3, [0.05] * 3]).double()
    prediction = model(images).argmax(1)
    crown = certifiers.get("native-crown")(batch_size=size)
    found = crown.descending(model, images, prediction, radii, LINF)  # type: ignore[attr-defined]
    wanted = certifiers.get("native-crown")().descending(model, images, prediction, radii, LINF)  # type: ignore[attr-defined]
    assert found.shape == (3, 3, 4)
    assert torch.allclose(found, wanted)


def test_images_that_do_not_fit_into_memory_are_fewer_at_once(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(5, 4))
    crown = certifiers.create("native-crown")
    wanted = crown.certify(model, x.float(), LINF, radii=[0.01, 0.1])
    original, sizes = type(crown).bounds, []  # type: ignore[attr-defined]

    def crowded(self: object, ball: Ball) -> Bounds:
        sizes.append(len(ball))
        if len(ball) > 1:
            raise MemoryError
        return original(self, ball)  # type: ignore[no-any-return]

    monkeypatch.setattr(type(crown), "bounds", crowded)
    found = crown.certify(model, x.float(), LINF, radii=[0.01, 0.1])
    assert torch.equal(found.radius, wanted.radius)
    assert set(sizes) >= {1, 3}
    monkeypatch.setattr(type(crown), "bounds", lambda self, ball: (_ for _ in ()).throw(MemoryError("all of it")))
    with pytest.raises(MemoryError, match="all of it"):
        crown.certify(model, x[:1].float(), LINF, radii=[0.01])
