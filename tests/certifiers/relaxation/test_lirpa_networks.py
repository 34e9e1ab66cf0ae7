"""What auto_LiRPA is handed: graphs recorded by hand, layers that it can bound, shifts moved to the input."""

from typing import Any

import pytest
import torch
from torch import nn

import certifiers
from certifiers import Norm, Unsupported, Verdict
from certifiers.networks import Prepared
from certifiers.relaxation import LirpaBounds, ensemble_margins, lirpa
from certifiers.relaxation.lirpa_networks import boundable, input_shift
from ensembles import WeightedAverage
from tests.certifiers.relaxation.awkward_networks import Awkward
from tests.certifiers.relaxation.lirpa_under_test import LINF, METHODS, around, close, native, read


def test_graphs_are_recorded_by_hand_too() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    x = torch.rand(5, 3)
    graph = lirpa.record(model, x[:1])
    torch.testing.assert_close(graph(x), model(x))


def test_layers_without_bounds_are_named(models: Any) -> None:
    x = models.images(1, 0)
    for layer, features, why in [
        (nn.MaxPool2d(2, 1), 100, r"layer layers.2 \(MaxPool2d\).*windows of \(2, 2\), stride \(1, 1\).*ibp does it"),
        (nn.MaxPool2d(2, 2, 1), 64, r"padding \(1, 1\) on 6x6"),
        (nn.MaxPool2d((2, 3)), 24, r"windows of \(2, 3\)"),
        (nn.MaxPool2d(4), 4, r"cover the image without padding, not for windows of \(4, 4\)"),
    ]:
        model = Awkward(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), layer, features=features).eval()
        for method in METHODS:
            found = certifiers.create(method).certify(model, x.float(), LINF, radii=[1e-5])
            if method == "ibp":
                assert found.verdict.tolist() == [Verdict.CERTIFIED]
            else:
                assert found.verdict.tolist() == [Verdict.UNSUPPORTED]
        with pytest.raises(Unsupported, match=why):
            boundable(read(model, x), Norm.LINF, linear=True)


def test_shifts_move_to_the_input_where_all_have_one(models: Any) -> None:
    x = models.images(2, 1)
    networks = [models.network("residual", seed) for seed in range(2)]
    shift = input_shift(networks)
    assert shift is not None
    torch.testing.assert_close(shift[:, 0, 0], -torch.tensor([0.3, 0.6]).double(), atol=1e-6, rtol=0)
    for network in networks:
        moved = boundable(network, Norm.LINF, linear=True, moved=True)
        assert len(moved.layers) == len(network.layers) - 1
        torch.testing.assert_close(moved(x + shift), network(x), atol=1e-12, rtol=1e-12)
        still = boundable(network, Norm.LINF, linear=True)
        torch.testing.assert_close(still(x), network(x), atol=1e-12, rtol=1e-12)
    assert input_shift([networks[0], models.network("mlp", 0)]) is None
    plain = Awkward(nn.Conv2d(2, 4, 3, padding=1), features=144)
    assert input_shift([networks[0], read(plain, x)]) is None
    mixed = Prepared((networks[0], read(plain, x)), WeightedAverage(of="logit"))
    prediction = (networks[0](x) + mixed.networks[1](x)).argmax(1)
    ball = around(x, 0.004)
    found = ensemble_margins(mixed, LirpaBounds(ball, "crown"), prediction)
    wanted = ensemble_margins(mixed, native("crown", ball), prediction)
    close(found[torch.isfinite(wanted)], wanted[torch.isfinite(wanted)])
