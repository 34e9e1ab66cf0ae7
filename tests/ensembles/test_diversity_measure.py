import dataclasses
import itertools
import json
import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ensembles import Ensemble, architectures, seeded_generator
from ensembles.aggregation import Single
from ensembles.diversity import (
    Diversity,
    measure,
)

SHAPE = (1, 6, 6)


def some_ensemble(members: int = 3, name: str = "mlp", **options: Any) -> Ensemble:
    """Members with batch norms (resnet18) or without (mlp), in float64, with mixed modes and statistics."""
    options = options or {"hidden": (8,)}
    built = [architectures.create(name, input_shape=SHAPE, classes=4, seed=seed, **options) for seed in range(members)]
    generator = torch.Generator().manual_seed(11)
    for layer in (layer for member in built for layer in member.modules()):
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.copy_(torch.randn(layer.running_mean.shape, generator=generator))
    return Ensemble(built).double()


def some_images(images: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(images, *SHAPE, generator=generator, dtype=torch.float64)
    return x, torch.randint(4, (images,), generator=generator)


def literal(ensemble: Ensemble, x: Tensor, y: Tensor, noisy: Tensor) -> Diversity:
    """Every measure by loops over images, members and pairs; cross-entropy of each image by itself."""
    similarity, norm, different, right, valid = [], [], [], [], []
    pairs = list(itertools.combinations(range(len(ensemble.members)), 2))
    for image, label, noisy_image in zip(x, y, noisy, strict=True):
        gradients, answers, noisy_answers = [], [], []
        for member in ensemble.members:
            own = image[None].clone().requires_grad_()
            logits = member(own)
            (gradient,) = torch.autograd.grad(cross_entropy(logits, label[None]), own)
            gradients.append(gradient.flatten().numpy())
            answers.append(int(logits.argmax()))
            noisy_answers.append(int(member(noisy_image[None]).argmax()))
        norms = [math.sqrt(float(g @ g)) for g in gradients]
        alive = [(i, j) for i, j in pairs if norms[i] > 0 and norms[j] > 0]  # some image kills all units of an mlp
        similarity.append(sum(float(gradients[i] @ gradients[j]) / (norms[i] * norms[j]) for i, j in alive))
        norm.append(sum(norms))
        different.append(sum(answers[i] != answers[j] for i, j in pairs) / len(pairs))
        right.append([answer == int(label) for answer in answers])
        valid.append(sum(noisy_answers[i] == noisy_answers[j] == int(label) for i, j in pairs) / len(pairs))
    members = len(ensemble.members)
    return Diversity(
        images=len(x),
        sigma=0.0,
        ambiguity_entropy=float(np.mean([min(sum(r), members - sum(r)) for r in right])) / (members // 2),
        gradient_similarity=tuple(np.quantile(similarity, [0.25, 0.5, 0.75])),
        smoothness=tuple(np.quantile(norm, [0.25, 0.5, 0.75])),
        disagreement=float(np.mean(different)),
        valid_pairs=float(np.mean(valid)),
    )


def assert_same(found: Diversity, expected: Diversity) -> None:
    for field in dataclasses.fields(Diversity):
        if field.name != "sigma":
            assert getattr(found, field.name) == pytest.approx(getattr(expected, field.name), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("batch_size", [1, 3, 256])
@pytest.mark.parametrize("name", ["mlp", "resnet18"])
@pytest.mark.parametrize("members", [2, 3])
def test_equals_literal_loops(members: int, name: str, batch_size: int) -> None:
    ensemble = some_ensemble(members, name, **({"width": 2} if name == "resnet18" else {}))
    x, y = some_images(9)
    found = measure(ensemble, x, y, batch_size=batch_size)
    assert_same(found, literal(ensemble.eval(), x, y, x))
    noise = torch.randn(x.shape, generator=seeded_generator(3), dtype=x.dtype)
    found = measure(ensemble, x, y, sigma=0.7, generator=seeded_generator(3), batch_size=batch_size)
    assert_same(found, literal(ensemble, x, y, x + 0.7 * noise))
    assert found.sigma == 0.7


def test_noise_matters_to_valid_pairs_only() -> None:
    x, _ = some_images(60)
    ensemble = some_ensemble()
    y = ensemble(x).argmax(-1)
    clean = measure(ensemble, x, y)
    noisy = measure(ensemble, x, y, sigma=2.0, generator=seeded_generator(1))
    assert noisy.valid_pairs != clean.valid_pairs
    assert dataclasses.replace(noisy, sigma=0.0, valid_pairs=clean.valid_pairs) == clean


def test_sure_members_keep_their_gradients() -> None:
    # Linear members W x + b: the gradient of the cross-entropy is sum_{j != y} p_j (w_j - w_y). With logits near
    # (50, 0, 0, 0), softmax minus one-hot has lost its entry of the true class, even in float64.
    generator = torch.Generator().manual_seed(0)
    members, gradients = [], []
    x = some_images()[0]
    for _ in range(2):
        linear = nn.Linear(36, 4)
        with torch.no_grad():
            linear.weight.copy_(torch.randn(4, 36, generator=generator) / 6)
            linear.bias.copy_(torch.tensor([50.0, 0.0, 0.0, 0.0]))
        members.append(nn.Sequential(nn.Flatten(), linear))
        weight, bias = linear.weight.detach().double(), linear.bias.detach().double()
        confidences = (x.flatten(1) @ weight.T + bias).softmax(-1)
        gradients.append((confidences[:, 1:] @ (weight[1:] - weight[0])).numpy())
    one, other = gradients
    norms = np.sqrt((one**2).sum(-1)), np.sqrt((other**2).sum(-1))
    found = measure(Ensemble(members), x.float(), torch.zeros(7, dtype=torch.int64))
    assert 0 < found.smoothness[2] < 1e-18
    assert found.smoothness == pytest.approx(np.quantile(norms[0] + norms[1], [0.25, 0.5, 0.75]), rel=1e-4, abs=0)
    cosines = (one * other).sum(-1) / (norms[0] * norms[1])
    assert found.gradient_similarity == pytest.approx(np.quantile(cosines, [0.25, 0.5, 0.75]), abs=1e-5)


def test_equal_members_and_a_single_one() -> None:
    ensemble = some_ensemble(1)
    x, y = some_images()
    alone = measure(ensemble, x, y, sigma=0.5, generator=seeded_generator(0))
    assert (alone.ambiguity_entropy, alone.disagreement, alone.valid_pairs) == (0.0, 0.0, 0.0)
    assert alone.gradient_similarity == (0.0, 0.0, 0.0)
    thrice = measure(Ensemble([*ensemble.members] * 3), x, y)
    assert thrice.gradient_similarity == pytest.approx((3.0, 3.0, 3.0))
    assert thrice.smoothness == pytest.approx([3 * norm for norm in alone.smoothness])
    assert (thrice.ambiguity_entropy, thrice.disagreement) == (0.0, 0.0)


def test_all_members_are_measured_whatever_the_aggregation() -> None:
    ensemble = some_ensemble()
    assert measure(ensemble.with_aggregation(Single(member=1)), *some_images()) == measure(ensemble, *some_images())


def test_a_member_with_dead_units_has_cosine_zero() -> None:
    ensemble = some_ensemble(2)
    with torch.no_grad():
        ensemble.members[0].body[1].bias.fill_(-100.0)
    found = measure(ensemble, *some_images())
    assert found.gradient_similarity == (0.0, 0.0, 0.0)
    assert found.smoothness == measure(Ensemble([ensemble.members[1]]), *some_images()).smoothness


def test_everything_is_left_as_it_was() -> None:
    ensemble = some_ensemble(2, "resnet18", width=2).train()
    ensemble.members[0].body[1].eval()
    modes = [module.training for module in ensemble.modules()]
    state = {name: tensor.clone() for name, tensor in ensemble.state_dict().items()}
    parameter = next(ensemble.parameters())
    parameter.grad = torch.ones_like(parameter)
    x, y = some_images()
    x_before, rng = x.clone(), torch.get_rng_state()
    with torch.no_grad():
        found = measure(ensemble, x, y, sigma=0.3, generator=seeded_generator(2))
        assert not torch.is_grad_enabled()
    assert found == measure(ensemble, x, y, sigma=0.3, generator=seeded_generator(2))
    assert [module.training for module in ensemble.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in ensemble.state_dict().items())
    assert torch.equal(parameter.grad, torch.ones_like(parameter))
    assert all(other.grad is None for other in list(ensemble.parameters())[1:])
    assert torch.equal(torch.get_rng_state(), rng)
    assert torch.equal(x, x_before)
    assert not x.requires_grad
    assert x.grad is None


def test_works_in_inference_mode() -> None:
    ensemble = some_ensemble()
    expected = measure(ensemble, *some_images())
    with torch.inference_mode():
        assert measure(ensemble, *some_images()) == expected


def test_values_are_plain_numbers() -> None:
    found = dataclasses.asdict(measure(some_ensemble(), *some_images()))
    assert json.loads(json.dumps(found)) == {
        name: list(value) if isinstance(value, tuple) else value for name, value in found.items()
    }
    with pytest.raises(dataclasses.FrozenInstanceError):
        measure(some_ensemble(), *some_images()).sigma = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("images", "labels", "options", "message"),
    [
        (0, 0, {}, "Diversity needs images with one label each, got 0 images and 0 labels."),
        (3, 1, {}, "Diversity needs images with one label each, got 3 images and 1 labels."),
        (3, 3, {"sigma": -0.5}, "sigma = -0.5 is not allowed. Give a finite standard deviation >= 0"),
        (3, 3, {"sigma": math.nan}, "sigma = nan is not allowed."),
        (3, 3, {"sigma": 0.5}, "sigma = 0.5 needs a generator. Give generator=seeded_generator"),
        (3, 3, {"batch_size": 0}, "batch_size = 0 is not allowed. Give at least 1."),
    ],
)
def test_errors_of_measure(images: int, labels: int, options: dict[str, Any], message: str) -> None:
    x, y = some_images()
    with pytest.raises(ValueError, match=re.escape(message)):
        measure(some_ensemble(), x[:images], y[:labels], **options)


def test_members_that_exploded_are_named_and_modes_come_back() -> None:
    ensemble = some_ensemble().train()
    with torch.no_grad():
        ensemble.members[1].head.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match=re.escape("Members [1] (counted from 0) have input gradients that are not")):
        measure(ensemble, *some_images())
    assert all(module.training for module in ensemble.modules())
