"""Diagnostics: how differently the members of an ensemble answer, and how their input gradients relate.

The measures of Wu et al. (LPD), Eq. 7 and Tables 1-3, with the disagreement of predictions and the share of pairs
that DRT trains on. They describe an ensemble; they certify nothing.
"""

import contextlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ensembles.ensemble import Ensemble

#: The 25 %, 50 % and 75 % quantiles over images, linear between order statistics.
Quartiles = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Diversity:
    """What `measure` found, over all members whatever the aggregation.

    Attributes:
        images: number of images measured.
        sigma: standard deviation of the noise behind `valid_pairs`, in input units.
        ambiguity_entropy: E of `ambiguity_entropy`, on clean images; in [0, 1].
        gradient_similarity: quartiles of L_d of `gradient_similarity`, at clean images.
        smoothness: quartiles of L_s of `smoothness`, at clean images.
        disagreement: of `disagreement`, on clean images; in [0, 1].
        valid_pairs: of `valid_pairs`, on noisy images; in [0, 1].
    """

    images: int
    sigma: float
    ambiguity_entropy: float
    gradient_similarity: Quartiles
    smoothness: Quartiles
    disagreement: float
    valid_pairs: float


def measure(
    ensemble: Ensemble,
    x: Float[Tensor, "batch *shape"],
    y: Int[Tensor, "labels"],
    *,
    sigma: float = 0.0,
    generator: torch.Generator | None = None,
    batch_size: int = 256,
) -> Diversity:
    """All diagnostics of an ensemble on labelled images.

    Every image is measured by itself: members run in eval mode, so neither batch norm nor `batch_size` couples
    images (but for the rounding of floats). Modes of all modules, gradients of parameters, grad mode and the global
    generator of the CPU are left as they were; one member's graph of one batch is alive at a time.

    Args:
        ensemble: differentiable members that map [batch, *shape] to logits [batch, classes].
        x: inputs in [0, 1]. LPD's Tables 2 and 3 take the first 2000 test images.
        y: true classes, one an image.
        sigma: standard deviation of the Gaussian noise on which pairs are called valid, in input units; not clipped.
        generator: draws that noise, for all images at once and only if sigma > 0; all members see the same.
        batch_size: images a pass.

    Raises:
        ValueError: no images, more or fewer labels than images, a sigma without a generator, or a member whose
            input gradients are not finite.
    """
    _check(x, y, sigma, generator, batch_size)
    noisy = x
    if sigma > 0 and generator is not None:
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=generator.device)
        noisy = x + sigma * noise.to(x.device)
    device = next(ensemble.parameters(), x).device
    answers: list[Tensor] = []
    noisy_correct: list[Tensor] = []
    similarities: list[Tensor] = []
    norms: list[Tensor] = []
    with _evaluating(ensemble), torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        for first in range(0, len(x), batch_size):
            part = slice(first, first + batch_size)
            target = y[part].to(device, torch.int64, copy=True)  # a copy, as autograd refuses inference tensors
            found = [_gradient(member, x[part].to(device), target) for member in ensemble.members]
            gradients = torch.stack([gradient for gradient, _ in found])
            if not bool(gradients.isfinite().all()):
                bad = [index for index, one in enumerate(gradients) if not bool(one.isfinite().all())]
                raise ValueError(
                    f"Members {bad} (counted from 0) have input gradients that are not finite. Look for NaN in the "
                    "inputs; else their weights have exploded: train them again with a lower learning rate."
                )
            predictions = torch.stack([prediction for _, prediction in found])
            similarities.append(gradient_similarity(gradients).cpu())
            norms.append(smoothness(gradients).cpu())
            answers.append(predictions.cpu())
            if sigma > 0:
                with torch.no_grad():
                    predictions = ensemble.logits(noisy[part].to(device)).argmax(-1)
            noisy_correct.append((predictions == target).cpu())
    clean = torch.cat(answers, dim=1)
    return Diversity(
        images=len(x),
        sigma=float(sigma),
        ambiguity_entropy=ambiguity_entropy(clean == y.cpu()),
        gradient_similarity=_quartiles(torch.cat(similarities)),
        smoothness=_quartiles(torch.cat(norms)),
        disagreement=disagreement(clean),
        valid_pairs=valid_pairs(torch.cat(noisy_correct, dim=1)),
    )


def ambiguity_entropy(correct: Bool[Tensor, "member batch"]) -> float:
    """`E = 1/N sum_n min(l_n, K - l_n) / (K - ceil(K/2))`, with l_n of the K members right on image n.

    0 when members are all right or all wrong on every image, 1 when floor(K/2) of them stand alone on every image.
    A single member has none: 0. Wu et al. (LPD), Eq. 7, after Kuncheva & Whitaker, Machine Learning 2003.

    Raises:
        ValueError: no members or no images.
    """
    members, images = _counts(correct)
    right = correct.sum(0)
    largest = members - math.ceil(members / 2)
    return int(torch.minimum(right, members - right).sum()) / (images * largest) if largest else 0.0


def disagreement(predictions: Int[Tensor, "member batch"]) -> float:
    """The share of images on which two members predict different classes, a mean over pairs i < j; 0 without pairs.

    Kuncheva & Whitaker (Machine Learning 2003) count differences of right and wrong; here two different wrong
    classes are a disagreement too.

    Raises:
        ValueError: no members or no images.
    """
    members, images = _counts(predictions)
    pairs = list(itertools.combinations(predictions, 2))
    return sum(int((one != other).sum()) for one, other in pairs) / (images * math.comb(members, 2)) if pairs else 0.0


def valid_pairs(correct: Bool[Tensor, "member batch"]) -> float:
    """The share of (pair i < j, image) with both members right: the pairs that DRT's terms act on; 0 without pairs.

    Yang et al., ICLR 2022, section 3, where `correct` is meant on noisy images.

    Raises:
        ValueError: no members or no images.
    """
    members, images = _counts(correct)
    right = correct.sum(0)
    both = int((right * (right - 1)).sum())
    return both / (images * members * (members - 1)) if members > 1 else 0.0


def gradient_similarity(gradients: Float[Tensor, "member batch *shape"]) -> Float[Tensor, "batch"]:
    """`L_d = sum_{i<j} cos(g_i, g_j)` of each image, in float64; 0 is orthogonal, K(K-1)/2 is parallel.

    A cosine with a gradient that is exactly zero is 0; any other one has its full size however small the gradients
    are. (A cosine with an epsilon in its denominator fades to 0 with them: under saturated members, whose gradients
    all but vanish, it reports diversity that is not there.) Wu et al. (LPD), section 4.2, Table 2.

    Args:
        gradients: g_i, the gradient of member i's cross-entropy with respect to its input.
    """
    directions, norms = _directions_and_norms(gradients)
    cosines = [(one * other).sum(-1) for one, other in itertools.combinations(directions, 2)]
    return torch.stack(cosines).sum(0) if cosines else torch.zeros_like(norms).sum(0)


def smoothness(gradients: Float[Tensor, "member batch *shape"]) -> Float[Tensor, "batch"]:
    """`L_s = sum_i ||g_i||_2` of each image, in float64; smaller is smoother. Wu et al. (LPD), section 4.3, Table 3.

    Args:
        gradients: g_i, the gradient of member i's cross-entropy with respect to its input, in input units.
    """
    return _directions_and_norms(gradients)[1].sum(0)


def _directions_and_norms(
    gradients: Float[Tensor, "member batch *shape"],
) -> tuple[Float[Tensor, "member batch inputs"], Float[Tensor, "member batch"]]:
    """`g / ||g||` (0 where g is 0) and `||g||`, scaled first so that squares of tiny gradients do not underflow."""
    flat = gradients.detach().double().flatten(2)
    largest = flat.abs().amax(-1, keepdim=True)
    scaled = flat / torch.where(largest > 0, largest, 1.0)
    norms = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    return scaled / torch.where(norms > 0, norms, 1.0), (largest * norms).squeeze(-1)


def _gradient(
    member: nn.Module, x: Float[Tensor, "batch *shape"], y: Int[Tensor, "batch"]
) -> tuple[Float[Tensor, "batch *shape"], Int[Tensor, "batch"]]:
    """The gradient of a member's cross-entropy at each image, and its predictions.

    CE = log(1 + sum_{j != y} exp(z_j - z_y)). Written with the margins its gradient keeps full relative precision at
    images the member is sure of, where softmax minus one-hot cancels to rounding errors.
    """
    with torch.enable_grad():
        own = x.detach().clone().requires_grad_()
        logits = member(own)
        margins = logits - logits.gather(-1, y[:, None])
        others = margins.scatter(-1, y[:, None], -torch.inf).logsumexp(-1)
        loss = -nn.functional.logsigmoid(-others).sum()
        (gradient,) = torch.autograd.grad(loss, own)
    return gradient, logits.argmax(-1)


def _quartiles(values: Float[Tensor, "images"]) -> Quartiles:
    low, middle, high = torch.quantile(values, torch.tensor([0.25, 0.5, 0.75], dtype=values.dtype)).tolist()
    return low, middle, high


def _counts(table: Tensor) -> tuple[int, int]:
    members, images = table.shape
    if members == 0 or images == 0:
        raise ValueError(f"Diversity needs members and images, got {members} members and {images} images.")
    return members, images


def _check(x: Tensor, y: Tensor, sigma: float, generator: torch.Generator | None, batch_size: int) -> None:
    if len(x) == 0 or len(y) != len(x):
        raise ValueError(f"Diversity needs images with one label each, got {len(x)} images and {len(y)} labels.")
    if not (math.isfinite(sigma) and sigma >= 0):
        raise ValueError(f"sigma = {sigma} is not allowed. Give a finite standard deviation >= 0, in input units.")
    if sigma > 0 and generator is None:
        raise ValueError(f"sigma = {sigma} needs a generator. Give generator=seeded_generator(seed, 'diversity').")
    if batch_size < 1:
        raise ValueError(f"batch_size = {batch_size} is not allowed. Give at least 1.")


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode; afterwards every submodule is in the mode it had, also after an error."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training
