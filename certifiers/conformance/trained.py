"""A small trained ensemble to certify and attack: real data, seconds of training, the same on every call."""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor, nn

from ensembles import architectures
from ensembles.seeds import seeded_generator

#: Classes, members and hidden units: small enough for mixed-integer programs.
_CLASSES, _MEMBERS, _HIDDEN = 3, 3, 12

#: Noise from which on the images are not made smaller.
_LARGE = 0.4

#: Images that are kept from training.
_HELD_OUT = 60


@dataclass(frozen=True, eq=False)
class Trained:
    """Members and images that they were not trained on.

    Attributes:
        members: networks of one hidden layer, from images to 3 logits, in eval mode.
        x: images in [0, 1], in float32.
    """

    members: tuple[nn.Module, ...]
    x: Float32[Tensor, "batch 1 side side"]

    def chosen(self, count: int, generator: torch.Generator) -> Int64[Tensor, "images"]:
        """Which images to certify: at random, every other one of the surest third, where most can be certified."""
        order = torch.randperm(len(self.x), generator=generator)
        confidences = torch.stack([member(self.x).softmax(-1) for member in self.members]).mean(0)
        surest = set(confidences.amax(1).argsort(descending=True)[: len(self.x) // 3].tolist())
        sure = [image for image in order.tolist() if image in surest][: (count + 1) // 2]
        rest = [image for image in order.tolist() if image not in sure]
        return torch.tensor(sure + rest[: count - len(sure)])


@functools.cache
def trained(sigma: float = 0.1) -> Trained:
    """Three networks for the digits 0, 1, 2 of scikit-learn, trained in noise of `sigma`.

    The images are means of 2 x 2 pixels; where the noise is large, all 64 pixels, or it would drown the digits. Full
    batches and 120 steps of Adam, each member from weights and on noise of its own.
    """
    from sklearn.datasets import load_digits  # takes a second, which `import certifiers` need not wait

    pixels, labels = load_digits(n_class=_CLASSES, return_X_y=True)
    side = 4 if sigma < _LARGE else 8
    means = pixels.reshape(-1, 1, side, 8 // side, side, 8 // side).mean((3, 5)) / 16
    images, classes = torch.from_numpy(means.astype(np.float32)), torch.from_numpy(labels)
    x, y = images[:-_HELD_OUT], classes[:-_HELD_OUT]
    members = []
    for number in range(_MEMBERS):
        shape = (1, side, side)
        member = architectures.create("mlp", input_shape=shape, classes=_CLASSES, seed=number, hidden=(_HIDDEN,))
        optimizer = torch.optim.Adam(member.parameters(), lr=0.02)
        generator = seeded_generator(number, "conformance training")
        with torch.enable_grad():
            for _ in range(120):
                optimizer.zero_grad()
                noisy = x + sigma * torch.randn(x.shape, generator=generator)
                nn.functional.cross_entropy(member(noisy), y).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        members.append(member.eval().requires_grad_(False))
    return Trained(tuple(members), images[-_HELD_OUT:])
