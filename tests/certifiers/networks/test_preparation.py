import copy
import gc
import weakref

import pytest
import torch
from torch import Tensor, nn

from certifiers import Unsupported
from certifiers.networks import preparation as module_under_test
from certifiers.networks import prepare, read
from ensembles import Ensemble, MaxMargin, Single, architectures


def member(seed: int = 0) -> nn.Module:
    return architectures.create("mlp", input_shape=(1, 3, 3), classes=3, seed=seed, hidden=(5,)).eval()


def images(count: int = 4) -> Tensor:
    return torch.rand(count, 1, 3, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The modules that were read."""
    found: list[nn.Module] = []

    def counting(module: nn.Module, example: Tensor) -> object:
        found.append(module)
        return read(module, example)

    monkeypatch.setattr(module_under_test, "read", counting)
    return found


def test_members_of_an_ensemble_in_its_order() -> None:
    members = [member(seed) for seed in range(3)]
    found = prepare(Ensemble(members, MaxMargin()), images())
    assert found.aggregation == MaxMargin()
    for network, own in zip(found.networks, members, strict=True):
        torch.testing.assert_close(network(images().double()), own.double()(images().double()), rtol=1e-9, atol=1e-9)
        own.float()
    single = prepare(Ensemble(members, Single(member=2)), images())
    assert len(single.networks) == 1
    alone = prepare(members[0], images())
    assert alone.aggregation is None


def test_a_member_is_read_once_as_long_as_its_weights_are_the_same(reads: list[nn.Module]) -> None:
    members = [member(seed) for seed in range(2)]
    first = prepare(Ensemble(members), images())
    second = prepare(Ensemble(members, MaxMargin()), images(2))
    assert reads == members
    assert first.networks == second.networks


@pytest.mark.parametrize("how", ["in place", "data", "replaced", "loaded"])
def test_a_changed_weight_is_noticed(reads: list[nn.Module], how: str) -> None:
    own = member()
    prepare(own, images())
    with torch.no_grad():
        if how == "in place":
            own.head.weight.mul_(-1)
        elif how == "data":
            own.head.weight.data.mul_(-1)  # not counted as a write
        elif how == "replaced":
            own.head.weight = nn.Parameter(-own.head.weight.detach())
        else:
            own.load_state_dict({name: -value for name, value in own.state_dict().items() if "std" not in name}, False)
    found = prepare(own, images())
    torch.testing.assert_close(found.networks[0](images().double()).float(), own(images()), rtol=1e-5, atol=1e-5)
    assert reads == [own, own]


def test_a_change_that_the_images_do_not_show_is_noticed(reads: list[nn.Module]) -> None:
    own = nn.Sequential(nn.Flatten(), nn.Linear(9, 2), nn.ReLU(), nn.Linear(2, 3)).eval()
    with torch.no_grad():
        own[1].bias[0] = -100.0  # a neuron that is 0 for all images
    prepare(own, images())
    own[3].weight.data[:, 0] = 7.0  # leaves no mark
    found = prepare(own, images())
    assert reads == [own, own]
    torch.testing.assert_close(found.networks[0].layers[-1].weight[:, 0], torch.full((3,), 7.0).double())


def test_loading_the_weights_that_are_there_is_no_change(reads: list[nn.Module]) -> None:
    own = member()
    prepare(own, images())
    own.load_state_dict(copy.deepcopy(own.state_dict()))
    prepare(own, images())
    assert reads == [own]


def test_what_was_read_dies_with_the_member() -> None:
    own = member()
    network = weakref.ref(prepare(own, images()).networks[0])
    assert network() is not None
    del own
    gc.collect()
    assert network() is None


def test_a_classifier_that_is_not_its_recorded_layers_is_refused() -> None:
    class Remembering(nn.Module):
        """Answers otherwise from the third call on: no record of it holds."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = member()
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return self.inner(x) * (1 if self.calls < 2 else 3)

    with pytest.raises(Unsupported, match=r"the classifier: the network that was read differs from it by up to"):
        prepare(Remembering(), images())


def test_a_hook_is_noticed_and_read(reads: list[nn.Module]) -> None:
    own = member()
    prepare(own, images())
    own.register_forward_hook(lambda _module, _inputs, output: 2 * output)
    found = prepare(own, images())
    torch.testing.assert_close(found.networks[0](images().double()).float(), own(images()), rtol=1e-5, atol=1e-5)
    assert reads == [own, own]


def test_logits_that_are_not_numbers_are_refused_and_other_shapes_read_again() -> None:
    broken = member()
    with torch.no_grad():
        broken.head.weight[0, 0] = float("nan")
    with pytest.raises(Unsupported, match=r"differs from it by up to nan"):
        prepare(broken, images())
    own = architectures.create("resnet18", input_shape=(1, 8, 8), classes=3, seed=0, width=1).eval()
    # Its layers take images of any size; a network is of one.
    for side in (8, 16, 8):
        assert prepare(own, torch.rand(1, 1, side, side)).networks[0].shapes[0] == (1, side, side)


def test_an_ensemble_with_a_forward_of_its_own_is_a_module_like_any_other() -> None:
    class Doubled(Ensemble):
        def forward(self, x: Tensor) -> Tensor:
            return self.members[0](x) + self.members[1](x)

    members = [member(seed) for seed in range(2)]
    found = prepare(Doubled(members), images())
    assert found.aggregation is None
    assert len(found.networks) == 1
    whole = copy.deepcopy(Doubled(members)).double()
    torch.testing.assert_close(found.networks[0](images().double()), whole(images().double()), rtol=1e-9, atol=1e-9)
