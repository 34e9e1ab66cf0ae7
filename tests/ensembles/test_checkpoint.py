import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from ensembles import architectures, checkpoint, weights_digest
from ensembles.architectures import Classifier
from ensembles.checkpoint import CheckpointError

SHAPE = (1, 2, 3)
HEADER: dict[str, Any] = {"architecture": "mlp", "input_shape": SHAPE, "classes": 3, "options": {"hidden": [4]}}


def member(seed: int = 0, classes: int = 3, hidden: tuple[int, ...] = (4,), **options: Any) -> Classifier:
    return architectures.create(
        "mlp", input_shape=SHAPE, classes=classes, seed=seed, hidden=hidden, mean=[0.3], std=[0.5], **options
    )


@pytest.fixture
def members() -> list[Classifier]:
    return [member(0), member(1)]


@pytest.fixture
def path(members: list[Classifier], tmp_path: Path) -> Path:
    path = tmp_path / "two.safetensors"
    path.write_bytes(checkpoint.serialize(members, {**HEADER, "recipe": {"sigma": 0.5}}))
    return path


def rewrite(path: Path, *, tensors: dict[str, Any] | None = None, header: dict[str, Any] | None = None) -> None:
    """Alter tensors or the header of a file as another program would, and keep its digest."""
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        held = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    held.update(tensors or {})
    metadata["certbench"] = json.dumps({**json.loads(metadata["certbench"]), **(header or {})})
    path.write_bytes(safetensors.torch.save(held, metadata))


def test_round_trip_keeps_every_bit_the_header_and_the_digest(members: list[Classifier], path: Path) -> None:
    loaded = checkpoint.load(path)
    assert loaded.digest == weights_digest(members)
    assert loaded.header["recipe"] == {"sigma": 0.5}
    assert loaded.header["members"] == len(loaded.members) == 2
    x = torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(2))
    for mine, theirs in zip(members, loaded.members, strict=True):
        assert not theirs.training
        assert list(mine.state_dict()) == list(theirs.state_dict())
        for ours, back in zip(mine.state_dict().values(), theirs.state_dict().values(), strict=True):
            assert ours.dtype == back.dtype
            assert ours.numpy().tobytes() == back.numpy().tobytes()
        assert torch.equal(mine(x), theirs(x))


@pytest.mark.parametrize(
    ("name", "shape", "mean", "std"),
    [
        ("conv_small", (3, 8, 8), [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]),
        ("conv_small", (3, 8, 8), [0.0], [1.0]),
        ("lenet5", (1, 12, 12), [0.1307], [0.3081]),
        ("mlp", (20,), [0.5], [0.25]),
    ],
)
def test_round_trip_of_shapes_and_statistics(
    name: str, shape: tuple[int, ...], mean: list[float], std: list[float], tmp_path: Path
) -> None:
    model = architectures.create(name, input_shape=shape, classes=3, seed=0, mean=mean, std=std)
    path = tmp_path / "one.safetensors"
    path.write_bytes(checkpoint.serialize([model], {"architecture": name, "input_shape": shape, "classes": 3}))
    x = torch.rand(2, *shape)
    assert torch.equal(checkpoint.load(path).members[0](x), model(x))


def test_weights_of_unusual_bits_survive(tmp_path: Path) -> None:
    model = member()
    with torch.no_grad():
        model.head.bias.copy_(torch.tensor([-0.0, 1e-45, 3.4e38]))
        model.head.weight.copy_(model.head.weight.t().contiguous().t())
    path = tmp_path / "odd.safetensors"
    path.write_bytes(checkpoint.serialize([model], HEADER))
    loaded = checkpoint.load(path).members[0]
    assert isinstance(loaded, Classifier)
    assert loaded.head.bias.detach().numpy().tobytes() == model.head.bias.detach().numpy().tobytes()


def test_digest_is_of_what_is_computed() -> None:
    base = weights_digest([member(0), member(1)])
    assert weights_digest([member(0), member(1)]) == base
    assert len(base) == 64
    assert weights_digest([member(1), member(0)]) != base, "order"
    assert weights_digest([member(0)]) != base, "number"
    assert weights_digest([member(0), member(2)]) != base, "weights"
    nudged = member(1)
    with torch.no_grad():
        nudged.head.bias[0] = torch.nextafter(nudged.head.bias[0], torch.tensor(9.0))
    assert weights_digest([member(0), nudged]) != base, "one bit"
    shifted = member(1)
    shifted.normalize.mean.add_(1e-3)
    assert weights_digest([member(0), shifted]) != base, "a buffer"
    assert weights_digest([member(0).double(), member(1)]) != base, "dtype"


def test_digest_tells_structures_apart_that_have_the_same_weights() -> None:
    first, second = nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    second.load_state_dict(first.state_dict())
    assert weights_digest([first]) != weights_digest([second])
    one, other = member(), member()
    other.architecture = "another"
    assert weights_digest([one]) != weights_digest([other])


def test_digest_ignores_layout_mode_and_names() -> None:
    model = architectures.create("conv_small", input_shape=(3, 8, 8), classes=3, seed=0)
    base = weights_digest([model])
    assert weights_digest([model.eval()]) == base
    assert weights_digest([model.to(memory_format=torch.channels_last)]) == base


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No checkpoint at .*none\.safetensors\."):
        checkpoint.load(tmp_path / "none.safetensors")


def test_altered_byte_of_the_weights_is_refused(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"two\.safetensors: the weights have digest [0-9a-f]{12}, the file says"):
        checkpoint.load(path)


def test_altered_tensor_under_the_old_header_is_refused(path: Path, members: list[Classifier]) -> None:
    said = weights_digest(members)[:12]
    rewrite(path, tensors={"1.head.bias": torch.zeros(3)})
    with pytest.raises(CheckpointError, match=rf"the file says {said}; they were altered\. Delete the file to train"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"members": 1}, "they were altered"),
        ({"members": 3}, "the header is damaged .*normalize.mean"),
        ({"classes": 4}, "the weights do not fit 'mlp'"),
        ({"input_shape": [1, 2, 4]}, "the weights do not fit 'mlp'"),
        ({"options": {"hidden": [5]}}, "the weights do not fit 'mlp'"),
        ({"options": {"hiden": [5]}}, "the header is damaged .*unexpected keyword argument 'hiden'"),
        ({"architecture": "conv_small", "options": {}}, "the header is damaged .*Architecture 'conv_small'"),
        ({"architecture": "mpl"}, "the header is damaged .*Unknown architecture 'mpl'. Did you mean 'mlp'"),
        ({"architecture": 3}, "the header is damaged"),
        ({"members": "2"}, "the header is damaged"),
        ({"input_shape": None}, "the header is damaged"),
    ],
)
def test_altered_header_is_refused(path: Path, header: dict[str, Any], message: str) -> None:
    rewrite(path, header=header)
    with pytest.raises(CheckpointError, match=rf"two\.safetensors: .*{message}"):
        checkpoint.load(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"members": 1}', "null"])
def test_header_that_is_not_ours_is_refused(path: Path, members: list[Classifier], text: str) -> None:
    tensors = safetensors.torch.load(path.read_bytes())
    path.write_bytes(safetensors.torch.save(tensors, {"certbench": text, "weights_sha256": weights_digest(members)}))
    with pytest.raises(CheckpointError, match="the header is damaged"):
        checkpoint.load(path)


def test_file_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    path.write_bytes(safetensors.torch.save({"weight": torch.zeros(3)}))
    with pytest.raises(CheckpointError, match=r"a safetensors file, but not a checkpoint of certbench: it has no head"):
        checkpoint.load(path)


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_truncated_file_is_refused(path: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"not a readable safetensors file \(.*\)\. Delete it to train again"):
        checkpoint.load(path)


def test_pickle_is_neither_written_nor_read(members: list[Classifier], path: Path, tmp_path: Path, monkeypatch) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return pytest.fail, ("code of a file was run",)

    for content in (pickle.dumps(Bomb()), b"\x80\x02" + pickle.dumps(Bomb())):
        bomb = tmp_path / "bomb.safetensors"
        bomb.write_bytes(content)
        with pytest.raises(CheckpointError, match="not a readable safetensors file"):
            checkpoint.load(bomb)
    for name in ("Pickler", "Unpickler", "dumps", "loads", "dump", "load"):
        monkeypatch.setattr(pickle, name, lambda *args, **kwargs: pytest.fail("pickle was used"))
    checkpoint.serialize(members, HEADER)
    assert len(checkpoint.load(path).members) == 2


@given(data=st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_altered_byte_is_refused_or_changes_nothing_that_counts(
    path: Path, members: list[Classifier], data: st.DataObject
) -> None:
    content = bytearray(path.read_bytes())
    # Half of the bytes to alter lie in the header, where there is more than a digest to go wrong.
    start = int.from_bytes(content[:8], "little")
    place = data.draw(st.one_of(st.integers(0, start + 7), st.integers(0, len(content) - 1)))
    content[place] ^= data.draw(st.integers(1, 255))
    altered = path.with_name("altered.safetensors")
    altered.write_bytes(content)
    try:
        loaded = checkpoint.load(altered)
    except CheckpointError:
        return
    assert loaded.digest == weights_digest(members)
    for mine, theirs in zip(members, loaded.members, strict=True):
        for ours, back in zip(mine.state_dict().values(), theirs.state_dict().values(), strict=True):
            assert torch.equal(ours, back)
