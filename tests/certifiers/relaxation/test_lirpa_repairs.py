"""What is repaired in auto_LiRPA 0.3 saves time, and changes no bound."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from certifiers.networks import Network
from certifiers.relaxation import LirpaBounds, lirpa
from tests.certifiers.relaxation.lirpa_under_test import around, close, every_norm, margins, native, read

needs_old = pytest.mark.skipif(not lirpa._is_old(), reason="newer versions do it themselves")


class TwoReaders(nn.Module):
    """A convolution whose values a ReLU reads, and another convolution too."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.before, self.read_twice, self.other, self.after = (
                nn.Conv2d(channels, 3, 3, padding=1) for channels in (2, 3, 3, 3)
            )
            self.head = nn.Linear(108, 3)

    def forward(self, x: Tensor) -> Tensor:
        value = self.read_twice(torch.relu(self.before(x)))
        value = torch.relu(torch.relu(value) + self.other(value))
        return self.head(torch.relu(self.after(value)).flatten(1))  # type: ignore[no-any-return]


def marked(network: Network) -> list[bool]:
    """Which convolutions are told that patches come padded."""
    (module, _), *_ = lirpa._recordings[network].values()
    nodes = [node for node in module._modules.values() if hasattr(node, "relu_followed")]
    return [node.relu_followed for node in nodes]


def bits(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=0, rtol=0, equal_nan=True)


@needs_old
@every_norm
@pytest.mark.parametrize("method", ["crown-ibp", "crown", "alpha-crown"])
def test_padding_once_changes_no_bit(models: Any, monkeypatch: pytest.MonkeyPatch, method: str, norm: str) -> None:
    x = models.images(2, 5)
    for kind in ("conv", "residual", "batch norm"):
        ball = around(x, 0.02, norm)
        network, other = models.network(kind, 1), models.network(kind, 1)
        found = margins(network, LirpaBounds(ball, method), x)
        with monkeypatch.context() as patched:
            patched.setattr(lirpa, "skip_second_padding", lambda _module: None)
            bits(found, margins(other, LirpaBounds(ball, method), x))
        if method != "alpha-crown":
            assert any(marked(network))
            assert not any(marked(other))


@needs_old
def test_other_readers_get_their_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(2, 2, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    network, other, ball = read(TwoReaders(), x), read(TwoReaders(), x), around(x, 0.01)
    found = margins(network, LirpaBounds(ball, "crown"), x)
    close(found, margins(network, native("crown", ball), x))
    assert sorted(marked(network)) == [False, False, True, True], "read twice, and read by a sum"
    monkeypatch.setattr(lirpa, "skip_second_padding", lambda _module: None)
    bits(found, margins(other, LirpaBounds(ball, "crown"), x))
