"""The inputs of a certifier: images, their ids and radii, refused where they are not what they must be."""

import re

import pytest
import torch
from torch import Tensor, nn

from certifiers import KeyedRandomness, ThreatModel
from tests.certifiers.certifiers_under_test import L2, Half, Scripted, Sum


@pytest.mark.parametrize(
    ("inputs", "got"),
    [
        (torch.zeros(2, 3, dtype=torch.uint8), "torch.uint8 (2, 3)"),
        (torch.zeros(2, dtype=torch.float32), "torch.float32 (2,)"),
        (torch.tensor(0.5), "torch.float32 ()"),
        (torch.zeros(2, 3, dtype=torch.int64), "torch.int64 (2, 3)"),
    ],
)
def test_inputs_that_are_not_float_batches_are_refused(inputs: Tensor, got: str) -> None:
    message = f"Inputs must be a float tensor [batch, *shape], got {got}. Convert: images.float() / 255."
    with pytest.raises(ValueError, match=re.escape(message)):
        Half().certify(Sum(), inputs, L2)


@pytest.mark.parametrize(
    ("value", "told"),
    [(255.0, "from 0 to 255"), (-0.5, "from -0.5 to 0"), (float("nan"), "from nan to nan"), (float("inf"), "0 to inf")],
)
def test_inputs_outside_the_box_are_refused(value: float, told: str) -> None:
    inputs = torch.zeros(2, 1, 2)
    inputs[1, 0, 1] = value
    message = rf"Inputs must lie in \[0, 1\], got values .*{told}\. Divide pixels by 255 and put normalisation inside"
    with pytest.raises(ValueError, match=message):
        Half().certify(Sum(), inputs, L2)


@pytest.mark.parametrize("ids", [[1, 2], [1, 2, 3, 4], [1, 2, 2], []])
def test_image_ids_must_name_each_image_once(ids: list[int], x: Tensor) -> None:
    message = f"image_ids must name each of the 3 images once, got {len(ids)} ids, {len(set(ids))} of them different."
    with pytest.raises(ValueError, match=re.escape(message)):
        Half().certify(Sum(), x, L2, image_ids=ids)


@pytest.mark.parametrize("radii", [[], [0.5, 0.25], [0.25, 0.25], [-0.5, 0.5], [float("nan")], [0.5, float("inf")]])
def test_radii_must_be_finite_ascending_and_different(radii: list[float], x: Tensor) -> None:
    message = f"Radii must be finite, not negative, ascending and different, got {tuple(radii)}."
    with pytest.raises(ValueError, match=re.escape(message)):
        Half().certify(Sum(), x, L2, radii=radii)


def test_radii_may_start_at_zero_and_be_whole_numbers(x: Tensor) -> None:
    found = Half().certify(Sum(), x, L2, radii=[0, 0.25, 1])
    assert torch.equal(found.radius, Half().certify(Sum(), x, L2).radius)


def test_no_images_no_answers() -> None:
    found = Half().certify(Sum(), torch.zeros(0, 1, 2), L2)
    assert len(found) == len(found.reason) == 0
    assert (found.prediction.dtype, found.radius.dtype, found.verdict.dtype) == (torch.int64, torch.float64, torch.int8)
    assert len(Half().certify(Sum(), torch.zeros(0, 1, 2), ThreatModel("linf"))) == 0


def test_no_classifiers_no_answers(x: Tensor) -> None:
    assert Half().certify_together([], x, L2) == []


def test_image_ids_key_the_randomness(x: Tensor) -> None:
    keys: list[KeyedRandomness] = []

    def script(classifier: nn.Module, x: Tensor, threat: ThreatModel, rng: KeyedRandomness) -> Tensor:
        keys.append(rng)
        return torch.ones(len(x))

    Scripted(script=script).certify(Sum(), x, L2, seed=5, image_ids=[30, 10, 20])
    Scripted(script=script).certify(Sum(), x, L2)
    assert keys == [KeyedRandomness(5, (30, 10, 20)), KeyedRandomness(0, (0, 1, 2))]


def test_inputs_are_not_altered(x: Tensor) -> None:
    before = x.clone()
    Half().certify(Sum(), x, L2)
    assert torch.equal(x, before)
