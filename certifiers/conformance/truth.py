"""Classifiers whose exact certified radii are known: what radii are compared with, an image at a time."""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from certifiers.certificate import Norm, ThreatModel
from certifiers.conformance.enumeration import Region, answer_regions, exact_radii
from ensembles.aggregation import Aggregation, Single, WeightedAverage
from ensembles.ensemble import Ensemble

#: The dual of each norm: |a . delta| <= ||a||_dual ||delta||.
_DUAL = {Norm.L1: float("inf"), Norm.L2: 2.0, Norm.LINF: 1.0}


@dataclass(frozen=True, eq=False)
class Truth:
    """A classifier, images, and the distance from each to the nearest input of [0, 1] with another answer or a tie.

    No certificate may reach `radius`; an exact certifier comes as near as its arithmetic lets it.

    Attributes:
        name: which family it is of, and which of that.
        classifier: in float64, or of numbers that float32 computes exactly.
        x: the images, in the same precision.
        threat: the norm of the distances.
        prediction: the answers at x.
        radius: the distances; infinite where no input has another answer.
    """

    name: str
    classifier: nn.Module
    x: Float[Tensor, "batch *shape"]
    threat: ThreatModel
    prediction: Int64[Tensor, "batch"]
    radius: Float64[Tensor, "batch"]


@dataclass(frozen=True, eq=False)
class CancellingPair(Truth):
    """Two members `g + h` and `g - h`, whose mean of logits is g: see `cancelling_pair`.

    Attributes:
        alone: the network g, which has the same radii.
    """

    alone: nn.Module


def enumerated(
    seed: int,
    threat: ThreatModel,
    aggregation: Aggregation | None = None,
    *,
    members: int = 2,
    inputs: int = 2,
    hidden: Sequence[int] = (3, 2),
    classes: int = 3,
    batch: int = 3,
) -> Truth:
    """Random ReLU networks and their ensemble, with exact radii by enumeration of activation patterns.

    Weights are standard normal, biases such that each network's logits have the mean zero over the box; see
    `enumeration.exact_radii` for what is computed. Keep to 3 inputs and 10 hidden units in all.

    Args:
        seed: of weights and images.
        threat: any norm.
        aggregation: a single member, a weighted average of logits, or max-margin of logits; None: a network alone.
        members: how many networks.
        inputs: of each image.
        hidden: units of each hidden layer of a network.
        classes: number of classes.
        batch: number of images.

    Raises:
        Unsupported: the aggregation is of confidences.
    """
    classifier, x = random_networks(
        seed, aggregation, members=members, inputs=inputs, hidden=hidden, classes=classes, batch=batch
    )
    return enumerated_truth(
        seed, classifier, x, threat, _drawn_regions(seed, aggregation, members, inputs, tuple(hidden), classes)
    )


@functools.lru_cache(maxsize=64)
def _drawn_regions(
    seed: int, aggregation: Aggregation | None, members: int, inputs: int, hidden: tuple[int, ...], classes: int
) -> tuple[tuple[int, Region], ...]:
    """Regions of the classifier of `random_networks`: what costs, and is the same in every norm and for all images."""
    classifier, x = random_networks(
        seed, aggregation, members=members, inputs=inputs, hidden=hidden, classes=classes, batch=1
    )
    return answer_regions(classifier, x)


def enumerated_truth(
    seed: int,
    classifier: nn.Module,
    x: Float[Tensor, "batch *shape"],
    threat: ThreatModel,
    regions: Sequence[tuple[int, Region]] | None = None,
) -> Truth:
    """The truth of `random_networks` of that seed; `regions` as for `enumeration.exact_radii`."""
    kind = classifier.aggregation.name if isinstance(classifier, Ensemble) else "network"
    radius = exact_radii(classifier, x, threat, regions)
    return _truth(f"enumerated {kind} {seed}", classifier, x, threat, radius)


def random_networks(
    seed: int,
    aggregation: Aggregation | None = None,
    *,
    members: int = 2,
    inputs: int = 2,
    hidden: Sequence[int] = (3, 2),
    classes: int = 3,
    batch: int = 3,
) -> tuple[nn.Module, Float64[Tensor, "batch inputs"]]:
    """The classifier and the images of `enumerated`, whose exact radii cost far more than they do."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(64, inputs, generator=generator, dtype=torch.float64)
    networks = []
    for _ in range(members):
        widths = (inputs, *hidden, classes)
        layers: list[nn.Module] = [nn.Flatten()]
        for wide, narrow in itertools.pairwise(widths):
            weight = torch.randn(narrow, wide, generator=generator, dtype=torch.float64)
            # Through a random point, so that the kinks lie in the box.
            before = nn.Sequential(*layers)(points)
            layers += [linear_layer(weight, -weight @ before[len(layers)]), nn.ReLU()]
        network = nn.Sequential(*layers[:-1])
        with torch.no_grad():
            network[-1].bias -= network(points).mean(0)
        networks.append(network)
    classifier = networks[0] if aggregation is None else Ensemble(networks, aggregation)
    x = torch.rand(batch, inputs, generator=generator, dtype=torch.float64)
    return classifier.eval(), x


def linear(
    seed: int,
    threat: ThreatModel,
    aggregation: Aggregation | None = None,
    *,
    members: int = 3,
    shape: tuple[int, ...] = (1, 2, 3),
    classes: int = 4,
    batch: int = 4,
) -> Truth:
    """Random linear classifiers and their weighted average, with the radii of the closed form, away from the box.

        radius = min over j != y of (z_y(x) - z_j(x)) / ||w_y - w_j||_dual

    The images lie about the middle of the box, and biases are such that the nearest boundary is inside of it.

    Args:
        seed: of weights and images.
        threat: any norm.
        aggregation: a single member or a weighted average of logits; None: one linear classifier alone.
        members: how many linear classifiers.
        shape: of an image.
        classes: number of classes.
        batch: number of images.

    Raises:
        ValueError: the aggregation is another one.
    """
    generator = torch.Generator().manual_seed(seed)
    inputs = int(torch.Size(shape).numel())
    weights = torch.randn(members, classes, inputs, generator=generator, dtype=torch.float64)
    x = 0.5 + 0.02 * torch.rand(batch, *shape, generator=generator, dtype=torch.float64)
    # All logits are small in the middle of the box: no image is farther from a boundary than a few hundredths.
    near = 0.05 * torch.randn(members, classes, generator=generator, dtype=torch.float64)
    biases = near - 0.5 * weights.sum(-1)
    networks = [
        nn.Sequential(nn.Flatten(), linear_layer(weight, bias)) for weight, bias in zip(weights, biases, strict=True)
    ]
    if aggregation is None or isinstance(aggregation, Single):
        member = 0 if aggregation is None else aggregation.member
        weight, bias = weights[member], biases[member]
    elif isinstance(aggregation, WeightedAverage) and aggregation.of == "logit":
        share = torch.tensor(aggregation.weights or (1.0,) * members, dtype=torch.float64)
        weight = torch.einsum("m,mci->ci", share / share.sum(), weights)
        bias = torch.einsum("m,mc->c", share / share.sum(), biases)
    else:
        raise ValueError(f"The scores of {aggregation} are not linear; use Single or a weighted average of logits.")
    classifier = networks[0] if aggregation is None else Ensemble(networks, aggregation)
    scores = x.flatten(1) @ weight.T + bias
    answer = scores.argmax(1)
    norms = torch.linalg.vector_norm(weight[answer][:, None] - weight, ord=_DUAL[threat.norm], dim=-1)
    distances = (scores.gather(1, answer[:, None]) - scores) / norms
    radius = distances.scatter(1, answer[:, None], torch.inf).amin(1)
    kind = "network" if aggregation is None else aggregation.name
    return _truth(f"linear {kind} {seed}", classifier, x, threat, radius)


def cancelling_pair(
    seed: int, threat: ThreatModel, *, units: int = 3, stable: bool = True, size: float = 4.0, batch: int = 3
) -> CancellingPair:
    """Members `f_1 = g + h` and `f_2 = g - h`, one ReLU network each: `(f_1 + f_2) / 2 = g`, with g's radii.

    g is a small ReLU network on two inputs and h another one, `size` times larger, that cancels. Bounds on the members
    jointly know it; sums of bounds on each do not: they lose `2 max |h - h(x)|`, about.

    Args:
        seed: of weights and images.
        threat: any norm.
        units: hidden units of g, and of h.
        stable: all units of h are active on the whole box, so that h is affine and even linear bounds cancel; otherwise
            h has kinks in the box, and only what knows the inputs of both members to be the same can see it cancel.
        size: of h.
        batch: number of images.
    """
    alone = enumerated(seed, threat, members=1, hidden=(units,), batch=batch)
    assert isinstance(alone.classifier, nn.Sequential)  # noqa: S101
    _, first, _, last = alone.classifier
    assert isinstance(first, nn.Linear)  # noqa: S101
    assert isinstance(last, nn.Linear)  # noqa: S101
    generator = torch.Generator().manual_seed(seed + 1)
    inner = torch.randn(units, first.in_features, generator=generator, dtype=torch.float64)
    outer = size * torch.randn(last.out_features, units, generator=generator, dtype=torch.float64)
    # At least 1 on the box, or zero in its middle.
    shift = 1 + inner.clamp(max=0).abs().sum(1) if stable else -0.5 * inner.sum(1)
    members = [
        nn.Sequential(
            nn.Flatten(),
            linear_layer(torch.cat([first.weight.detach(), inner]), torch.cat([first.bias.detach(), shift])),
            nn.ReLU(),
            linear_layer(torch.cat([last.weight.detach(), sign * outer], dim=1), last.bias.detach()),
        )
        for sign in (1, -1)
    ]
    return CancellingPair(
        f"cancelling pair {seed}",
        Ensemble(members, WeightedAverage(of="logit")),
        alone.x,
        threat,
        alone.prediction,
        alone.radius,
        alone.classifier,
    )


def linear_layer(weight: Float[Tensor, "outputs inputs"], bias: Float[Tensor, "outputs"]) -> nn.Linear:
    """`weight x + bias` as a layer, in the precision of the weight."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


def _truth(name: str, classifier: nn.Module, x: Tensor, threat: ThreatModel, radius: Tensor) -> Truth:
    with torch.no_grad():
        prediction = classifier(x).argmax(1)
    return Truth(name, classifier.eval(), x, threat, prediction, radius)
