"""Level 4: the samples themselves. Fresh for estimation, of the noise that is claimed, and keyed by seed and image."""

import dataclasses
from typing import Any

import torch
from jaxtyping import Float64
from scipy.stats import kstest
from torch import Tensor

from certifiers.certificate import Certificates
from certifiers.conformance.kit import Level, NotApplicable, Subject, Violation, check
from certifiers.conformance.smoothed_truth import Slabs
from certifiers.conformance.statistics_trials import SHAPE, Sampler, asked_of, centers, sampler_of
from certifiers.smoothing import clopper_pearson_lower

#: A test of the noise accuses a certifier that keeps its promise with at most this probability.
_FALSE_ALARM = 1e-6

#: In probability: two libraries may find one quantile a few units in the last place apart.
_ROUNDING = 1e-12


def _halfspace(sampler: Sampler, subject: Subject, p: float = 0.8) -> Slabs:
    direction = torch.randn(SHAPE, generator=subject.generator("samples"), dtype=torch.float64)
    if not sampler.law.all_directions:
        direction = torch.eye(SHAPE[0], dtype=torch.float64)[0]
    return Slabs(direction, (sampler.law.quantile(p),), sampler.sigma, law=sampler.law)


@check("fresh-samples", Level.L4)
def fresh_samples(subject: Subject) -> int:
    """No sample is used twice: the class is not chosen by samples that estimate its probability.

    The classifier records what it is asked. No noise comes again, nor its mirror image, and there are at least as many
    samples as n0 and n say.
    """
    sampler = sampler_of(subject, n=1200, n0=300)
    found, recorder = asked_of(sampler, _halfspace(sampler, subject), "fresh")
    noise = recorder.noise()
    distinct = len(torch.unique(noise.abs(), dim=0))
    if distinct < len(noise):
        raise Violation(
            f"{len(noise) - distinct} of the {len(noise)} noisy inputs of one image are others again, or their mirror "
            "images; counts of them are not binomial"
        )
    said = {name: _told(found, sampler, name) for name in ("n0", "n")}
    if distinct < sum(said.values()):
        raise Violation(
            f"n0 = {said['n0']} samples to choose the class and n = {said['n']} to estimate its probability are "
            f"claimed, but the classifier was asked {distinct} different ones: some serve both"
        )
    return distinct


@check("noise-distribution", Level.L4)
def noise_distribution(subject: Subject) -> int:
    """The noise that the classifier meets has the law and the sigma that `target` names, and is not clipped.

    Its quantiles are taken as those of a normal: then Kolmogorov-Smirnov on all its entries, and on their sums and
    differences within an input, which are normal if entries are independent, at 1e-6 each.
    """
    sampler = sampler_of(subject, n=2000)
    _, recorder = asked_of(sampler, _halfspace(sampler, subject), "distribution")
    noise = torch.from_numpy(sampler.law.normal((recorder.noise() / sampler.sigma).numpy()))
    views = {
        "entries": noise.flatten(),
        "sums of two entries": (noise[:, 0] + noise[:, 1]) / 2**0.5,
        "differences of two entries": (noise[:, 1] - noise[:, 2]) / 2**0.5,
        "sums of neighbouring samples": (noise[1::2][: len(noise) // 2] + noise[0::2][: len(noise) // 2]).flatten()
        / 2**0.5,
    }
    for name, values in views.items():
        found = kstest(values.numpy(), "norm")
        if found.pvalue < _FALSE_ALARM:
            raise Violation(
                f"{name} of the noise, over sigma = {sampler.sigma:g}, are not {_named(sampler)}: mean "
                f"{float(values.mean()):.4f}, deviation {float(values.std()):.4f}, p = {found.pvalue:.2g}"
            )
    return len(noise)


@check("keyed-noise", Level.L4)
def keyed_noise(subject: Subject) -> int:
    """The same seed and image meet the same noise in any batch; another seed or image meets none of it.

    Neither the batch size of forward passes nor the company of other images changes a count.
    """
    sampler = sampler_of(subject, n=1200, n0=300)
    slabs = _halfspace(sampler, subject)
    first, recorded = asked_of(sampler, slabs, "keyed", image=5)
    noise = recorded.noise()
    again, repeated = asked_of(sampler, slabs, "keyed", image=5)
    if _differs(first, again, 0, 0) or not torch.equal(noise, repeated.noise()):
        raise Violation("the same seed and image gave other noise or another answer")
    others = {
        "another seed": asked_of(sampler, slabs, "other", image=5)[1],
        "another image": asked_of(sampler, slabs, "keyed", image=6)[1],
    }
    for name, other in others.items():
        if shared := _shared(noise, other.noise()):
            raise Violation(f"{name} meets {shared} of {len(noise)} noisy inputs of the first one again")
    company = sampler.certify(slabs, centers(4), "keyed", first=3)
    if what := _differs(first, company, 0, 2):
        raise Violation(f"an image in a batch of four has another {what} than alone")
    measured = len(noise)
    for size in _batch_sizes(sampler):
        resized = dataclasses.replace(sampler.certifier, batch_size=size)  # type: ignore[call-arg]
        answer = dataclasses.replace(sampler, certifier=resized).certify(slabs, centers(1), "keyed", first=5)
        if what := _differs(first, answer, 0, 0):
            raise Violation(f"batches of {size} give another {what} than batches of {sampler.certifier.batch_size}")  # type: ignore[attr-defined]
        measured += 1
    return measured


@check("counts-and-radius", Level.L4)
def counts_and_radius(subject: Subject) -> int:
    """The evidence explains the radius: votes that were cast give n_A, n_A bounds p_A, and p_A gives the radius.

    p_A is at most the Clopper-Pearson bound, the largest one that grows with n_A (Clopper & Pearson, Biometrika 1934),
    and the radius, in l2 or the norm of the noise, at most `sigma F^-1(p_A)`, F the law of the noise.
    """
    sampler = sampler_of(subject)
    if "n" in {item.name for item in dataclasses.fields(sampler.certifier)}:
        sampler = sampler_of(subject, n=1200, n0=300)
    measured = 0
    for p in (0.55, 0.7, 0.9, 0.99, 1 - 1e-9):
        slabs = _halfspace(sampler, subject, p)
        found, recorder = asked_of(sampler, slabs, "counts", str(p))
        if not {"n_A", "n"} <= found.evidence.keys():
            raise NotApplicable("its evidence has no n_A and n")
        if not bool(found.certified[0]):
            continue
        n_a, n, alpha = _number(found, "n_A"), _number(found, "n"), float(found.failure_probability[0])
        cast = int((recorder.votes() == int(found.prediction[0])).sum())
        chosen = _number(found, "n0_top") if "n0_top" in found.evidence else 0
        if not 0 <= n_a <= n or n_a + chosen > cast:
            raise Violation(
                f"n_A = {n_a:g} of n = {n:g} votes, and {chosen:g} of the selection, are claimed for class "
                f"{int(found.prediction[0])}; {cast} such votes were cast"
            )
        bound = clopper_pearson_lower(int(n_a), int(n), alpha)
        p_a = _number(found, "p_A") if "p_A" in found.evidence else bound
        if not p_a <= bound + _ROUNDING:
            raise Violation(
                f"p_A = {p_a:.12g} for {n_a:g} of {n:g} votes at alpha {alpha:g}; at most {bound:.12g} holds"
            )
        claimed = float(sampler.law.cdf(float(found.radius[0]) * _scale(sampler) / sampler.sigma))
        if not claimed <= p_a + _ROUNDING:
            raise Violation(
                f"the {sampler.norm} radius {float(found.radius[0]):.9g} at sigma {sampler.sigma:g} claims the "
                f"probability {claimed:.12g}; p_A = {p_a:.12g} is proved"
            )
        measured += 1
    return measured


def _named(sampler: Sampler) -> str:
    return "standard normal" if sampler.law.all_directions else f"of the law {type(sampler.law).__name__.lower()}"


def _scale(sampler: Sampler) -> float:
    return float(torch.tensor(SHAPE).prod()) ** 0.5 if sampler.norm.value == "linf" else 1.0


def _number(found: Certificates, name: str) -> float:
    return float(found.evidence[name][0])


def _told(found: Certificates, sampler: Sampler, name: str) -> int:
    """A number of samples, as the evidence has it, or the parameters, or 0."""
    if isinstance(told := found.evidence.get(name), Tensor):
        return int(told[0])
    return int(getattr(sampler.certifier, name, 0))


def _batch_sizes(sampler: Sampler) -> tuple[int, ...]:
    own = [item for item in dataclasses.fields(sampler.certifier) if item.name == "batch_size"]
    return (7, 100, 1000) if own and own[0].metadata.get("execution") else ()


def _shared(noise: Float64[Tensor, "rows features"], other: Float64[Tensor, "others features"]) -> int:
    both = torch.cat([torch.unique(noise, dim=0), torch.unique(other, dim=0)])
    return len(both) - len(torch.unique(both, dim=0))


def _differs(one: Certificates, other: Certificates, row: int, other_row: int) -> str:
    """The first thing in which two answers differ; empty where they are the same."""
    for name in ("prediction", "verdict", "radius", "failure_probability"):
        if getattr(one, name)[row] != getattr(other, name)[other_row]:
            return name
    for name, values in one.evidence.items():
        mine, theirs = values[row], other.evidence[name][other_row] if name in other.evidence else None
        if not _same(mine, theirs):
            return f"evidence {name!r}"
    return ""


def _same(mine: Any, theirs: Any) -> bool:
    if isinstance(mine, Tensor) and isinstance(theirs, Tensor):
        return bool(torch.equal(mine, theirs)) or bool(torch.isnan(mine.double()) & torch.isnan(theirs.double()))
    return bool(mine == theirs)
