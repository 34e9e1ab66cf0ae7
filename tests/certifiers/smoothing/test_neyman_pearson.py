import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import certifiers
from certifiers import Certificates, Guarantee, Norm, ThreatModel, Verdict
from certifiers.smoothing import Smoothed, Smoothing, clopper_pearson_lower
from ensembles import Ensemble, MaxMargin, ParameterError, Single, architectures

SHAPE = (1, 4, 4)
L2 = ThreatModel("l2")


class Answers(nn.Module):
    """A classifier of three classes given by a function, which keeps what it was asked."""

    def __init__(self, answer: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.answer = answer
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.clone())
        return self.answer(x)


def always(label: int) -> Answers:
    return Answers(lambda x: torch.eye(3, dtype=x.dtype)[label].expand(len(x), 3))


def first_pixels() -> Answers:
    return Answers(lambda x: x.flatten(1)[:, :3])


@pytest.fixture
def x() -> Tensor:
    return torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(8))


def same(left: Certificates, right: Certificates) -> bool:
    """Equal in everything but the measured seconds."""
    columns = [
        (getattr(left, name), getattr(right, name))
        for name in ("prediction", "radius", "verdict", "failure_probability")
    ]
    columns += [(left.cost.forward_passes, right.cost.forward_passes)]
    columns += [(left.cost.bound_passes, right.cost.bound_passes)]
    columns += [
        (torch.as_tensor(value), torch.as_tensor(right.evidence[name]))
        for name, value in left.evidence.items()
        if isinstance(value, Tensor)
    ]
    return (
        left.reason == right.reason
        and left.evidence.keys() == right.evidence.keys()
        and all(torch.equal(one, other) for one, other in columns)
    )


def rows(found: Certificates, chosen: list[int]) -> list[tuple[Any, ...]]:
    return [
        (
            int(found.prediction[row]),
            float(found.radius[row]),
            int(found.verdict[row]),
            found.reason[row],
            *(value[row] if isinstance(value, list) else value[row].item() for value in found.evidence.values()),
        )
        for row in chosen
    ]


# Truth: for a binary linear classifier the smoothed radius is the distance to the boundary.


@pytest.mark.parametrize(("n0", "n"), [(100, 1000), (10, 100), (1, 30)])
@pytest.mark.parametrize("distance", [0.0, 0.02, 0.3, 1.0, 1.4])
def test_certificates_are_wrong_in_at_most_the_share_alpha_of_trials(n0: int, n: int, distance: float) -> None:
    # The votes of a linear classifier are binomial with p_A = Phi(distance / sigma), so counts are drawn directly.
    alpha, sigma, trials = 0.05, 0.5, 2000
    smoothing = Smoothing(sigma=sigma, n0=n0, n=n, alpha=alpha)
    rng = np.random.default_rng([n, int(1000 * distance)])
    right = stats.norm.cdf(distance / sigma)  # the probability of class 0, the smoothed classifier's answer
    selected = rng.binomial(n0, right, trials) * 2 >= n0
    counts = rng.binomial(n, np.where(selected, right, 1 - right))
    radii = np.array([smoothing.certificate_of_counts(int(count))[1] for count in counts])
    # Wrong: a ball around x in which the answer is not the one certified, be it x itself that has another.
    wrong = np.where(selected, radii > distance, radii > 0)
    assert stats.binomtest(int(wrong.sum()), trials, alpha, alternative="greater").pvalue > 1e-4
    if n >= 1000 and 0 < distance < 1:
        assert (radii > 0).mean() > 0.05, "a test of nothing"
        # The bound is not needlessly low: of the certificates for the right class nearly the share alpha is wrong.
        assert wrong.mean() > alpha / 4


def binary(weight: Tensor, bias: float) -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([weight, torch.zeros(16)]))
        model[1].bias.copy_(torch.tensor([bias, 0.0]))
    return model


def test_votes_of_a_linear_network_have_the_true_probability_and_radii_stay_below_the_distance() -> None:
    images, sigma, n, alpha = 12, 0.5, 2000, 0.001
    generator = torch.Generator().manual_seed(21)
    x = torch.rand(images, *SHAPE, generator=generator)
    weight = torch.randn(16, generator=generator)
    model = binary(weight, -float(weight.sum()) / 2)
    found = Smoothing(sigma=sigma, n0=50, n=n, alpha=alpha).certify(model, x, L2)
    margin = (x.flatten(1).double() - 0.5) @ weight.double()
    distance = margin.abs() / weight.double().norm()
    for row in range(images):
        if int(found.verdict[row]) == Verdict.ABSTAINED:
            assert float(distance[row]) < 0.15  # where 50 samples may choose the wrong class
            continue
        assert int(found.prediction[row]) == int(margin[row] < 0)
        p_value = stats.binomtest(
            int(found.evidence["n_A"][row]), n, stats.norm.cdf(float(distance[row]) / sigma)
        ).pvalue
        assert p_value > 1e-4
        assert 0 < float(found.radius[row]) <= float(distance[row])
    assert int(found.certified.sum()) >= images - 2


# The certificate.


def test_radius_is_recomputed_from_the_evidence(x: Tensor) -> None:
    smoothing = Smoothing(sigma=0.25, n0=20, n=1000, alpha=0.01)
    found = smoothing.certify(first_pixels(), x, L2, seed=5)
    assert int(found.certified.sum()) >= 2
    for row in range(len(x)):
        held = {name: values[row] for name, values in found.evidence.items()}
        assert (int(held["n0"]), int(held["n"]), float(held["alpha"]), float(held["sigma"])) == (20, 1000, 0.01, 0.25)
        assert (held["side"], held["dtype"], int(held["seed"]), int(held["invalid"])) == ("one-sided", "float32", 5, 0)
        lower = float(stats.beta.ppf(0.01, int(held["n_A"]), 1000 - int(held["n_A"]) + 1))
        assert float(held["p_A"]) == pytest.approx(lower, rel=1e-12)
        radius = 0.25 * float(stats.norm.ppf(lower)) if lower > 0.5 else 0.0
        assert float(found.radius[row]) == pytest.approx(radius, rel=1e-12)
        assert float(found.radius[row]) <= radius
        certified = int(found.verdict[row]) == Verdict.CERTIFIED
        assert certified is (lower > 0.5)
        assert float(found.failure_probability[row]) == (0.01 if certified else 0.0)


def test_evidence_counts_fresh_samples(x: Tensor) -> None:
    n0, n = 600, 700
    model = first_pixels()
    found = Smoothing(sigma=0.25, n0=n0, n=n, alpha=0.01).certify(model, x, L2)
    inputs = torch.cat(model.seen).reshape(len(x), n0 + n, -1)
    for row in range(len(x)):
        assert len(torch.unique(inputs[row], dim=0)) == n0 + n, "a selection sample was used for estimation"
        answers = inputs[row][:, :3].argmax(1)
        selection, estimation = answers[:n0].bincount(minlength=3), answers[n0:].bincount(minlength=3)
        top = int(selection.argmax())
        assert int(found.evidence["n0_top"][row]) == int(selection[top])
        assert int(found.evidence["n_A"][row]) == int(estimation[top])
        if found.certified[row]:
            assert int(found.prediction[row]) == top


def test_class_is_chosen_by_selection_even_where_estimation_prefers_another() -> None:
    # A classifier that answers 1 on the selection samples and 2 afterwards: certifying 2 would reuse estimation.
    calls: list[int] = []

    def answer(x: Tensor) -> Tensor:
        calls.append(len(x))
        label = 1 if sum(calls) <= 50 else 2
        return torch.eye(3)[label].expand(len(x), 3)

    found = Smoothing(sigma=0.5, n0=50, n=500).certify(Answers(answer), torch.zeros(1, *SHAPE), L2)
    assert int(found.evidence["n0_top"][0]) == 50
    assert int(found.evidence["n_A"][0]) == 0
    assert int(found.verdict[0]) == Verdict.ABSTAINED


@pytest.mark.parametrize("n", [100, 1000, 10_000])
def test_all_votes_reach_the_cap_and_not_more(n: int) -> None:
    found = Smoothing(sigma=0.5, n0=10, n=n, alpha=0.001).certify(always(2), torch.zeros(1, *SHAPE), L2)
    cap = 0.5 * stats.norm.ppf(0.001 ** (1 / n))
    assert float(found.radius[0]) == pytest.approx(cap, rel=1e-9)
    assert float(found.radius[0]) <= cap
    assert int(found.prediction[0]) == 2


def test_even_votes_abstain(x: Tensor) -> None:
    coin = Answers(lambda x: torch.stack([x[:, 0, 0, 0], 1 - x[:, 0, 0, 0]], 1))
    found = Smoothing(sigma=0.5, n0=100, n=1000).certify(coin, torch.full((1, *SHAPE), 0.5), L2)
    assert int(found.verdict[0]) == Verdict.ABSTAINED
    assert int(found.prediction[0]) == -1
    assert (float(found.radius[0]), float(found.failure_probability[0])) == (0.0, 0.0)
    assert found.reason[0] == f"no class is proved to win: p_A = {float(found.evidence['p_A'][0]):.4f}"


@pytest.mark.parametrize("norm", list(Norm))
def test_balls_of_other_norms_lie_in_the_l2_ball(norm: Norm, x: Tensor) -> None:
    smoothing = Smoothing(sigma=0.25, n0=20, n=500, alpha=0.01)
    radius = smoothing.certify(first_pixels(), x, ThreatModel(norm)).radius
    l2 = smoothing.certify(first_pixels(), x, L2).radius
    d = x[0].numel()
    assert torch.allclose(radius, l2 / math.sqrt(d) if norm is Norm.LINF else l2, rtol=1e-14)
    # The corner of the ball that is farthest out in l2: e_1 for l1, the diagonal for linf.
    corner = {Norm.L1: 1.0, Norm.L2: 1.0, Norm.LINF: math.sqrt(d)}[norm]
    assert bool((radius * corner <= l2 * (1 + 1e-15)).all())
    assert int((radius > 0).sum()) >= 2


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("when", ["always", "once"])
def test_broken_model_is_an_error_never_a_certificate(bad: float, when: str, x: Tensor) -> None:
    def answer(x: Tensor) -> Tensor:
        scores = torch.eye(3)[1].repeat(len(x), 1)
        broken = torch.ones(len(x), dtype=torch.bool) if when == "always" else x.flatten(1)[:, 0] > 1.3
        scores[broken, 0] = bad
        return scores

    model = Answers(answer)
    found = Smoothing(sigma=0.5, n0=20, n=1000).certify(model, x, L2)
    seen = torch.cat(model.seen).reshape(len(x), 1020, -1)
    for row in range(len(x)):
        broken = 1020 if when == "always" else int((seen[row, :, 0] > 1.3).sum())
        assert broken > 0, "a test of nothing"
        assert int(found.evidence["invalid"][row]) == broken
        assert int(found.verdict[row]) == Verdict.ERROR
        assert (int(found.prediction[row]), float(found.radius[row])) == (-1, 0.0)
        assert found.reason[row] == f"the classifier returned NaN or infinity on {broken} of 1020 noisy inputs"


def test_broken_member_is_an_error_of_the_ensembles_that_use_it(x: Tensor) -> None:
    broken = Answers(lambda x: torch.full((len(x), 3), math.nan))
    ensemble = Ensemble([always(0), broken])
    classifiers = [ensemble, ensemble.with_aggregation(MaxMargin()), ensemble.with_aggregation(Single(member=0))]
    found = Smoothing(sigma=0.5, n0=20, n=100).certify_together(classifiers, x, L2)
    assert [int(answer.verdict[0]) for answer in found] == [Verdict.ERROR, Verdict.ERROR, Verdict.CERTIFIED]


# Cost, order, batches, company.


def test_forward_passes_are_counted(x: Tensor) -> None:
    smoothing = Smoothing(sigma=0.5, n0=30, n=520)
    members = [always(0), always(1), always(1)]
    ensemble = Ensemble(members)
    found = smoothing.certify(ensemble, x, L2)
    assert found.cost.forward_passes.tolist() == [3 * 550] * 4
    assert sum(len(batch) for member in members for batch in member.seen) == 4 * 3 * 550
    single = smoothing.certify(ensemble.with_aggregation(Single(member=1)), x, L2)
    assert single.cost.forward_passes.tolist() == [550] * 4
    assert single.cost.bound_passes.tolist() == [0] * 4
    assert bool((single.cost.seconds > 0).all())


def test_neither_order_nor_blocks_nor_batches_change_anything(x: Tensor) -> None:
    ids = [40, 10, 30, 20]
    base = Smoothing(sigma=0.25, n0=20, n=1200).certify(first_pixels(), x, L2, seed=3, image_ids=ids)
    order = [2, 0, 3, 1]
    for batch_size in (7, 500, 1000):
        smoothing = Smoothing(sigma=0.25, n0=20, n=1200, batch_size=batch_size)
        found = smoothing.certify(first_pixels(), x[order], L2, seed=3, image_ids=[ids[row] for row in order])
        assert rows(found, [0, 1, 2, 3]) == rows(base, order)
        for block in ([0], [1, 2], [3]):
            part = smoothing.certify(first_pixels(), x[block], L2, seed=3, image_ids=[ids[row] for row in block])
            assert rows(part, list(range(len(block)))) == rows(base, block)
    other = Smoothing(sigma=0.25, n0=20, n=1200).certify(first_pixels(), x, L2, seed=4, image_ids=ids)
    assert other.evidence["n_A"].tolist() != base.evidence["n_A"].tolist()


def test_more_samples_keep_the_selection_and_extend_the_estimation(x: Tensor) -> None:
    few, many = first_pixels(), first_pixels()
    Smoothing(sigma=0.25, n0=20, n=600).certify(few, x[:1], L2)
    Smoothing(sigma=0.25, n0=20, n=1700).certify(many, x[:1], L2)
    assert torch.equal(torch.cat(many.seen)[:620], torch.cat(few.seen))


def test_together_equals_alone(x: Tensor) -> None:
    members = [architectures.create("mlp", input_shape=SHAPE, classes=3, seed=seed, hidden=(8,)) for seed in range(3)]
    ensemble = Ensemble(members)
    classifiers = [
        ensemble,
        ensemble.with_aggregation(MaxMargin()),
        ensemble.with_aggregation(Single(member=2)),
        members[0],
    ]
    smoothing = Smoothing(sigma=0.5, n0=20, n=700, alpha=0.05)
    together = smoothing.certify_together(classifiers, x, L2, seed=2)
    for found, classifier in zip(together, classifiers, strict=True):
        assert same(found, smoothing.certify(classifier, x, L2, seed=2))


def test_members_run_once_for_all_ensembles_that_share_them(x: Tensor) -> None:
    members = [first_pixels(), first_pixels()]
    ensemble = Ensemble(members)
    classifiers = [ensemble, ensemble.with_aggregation(MaxMargin()), ensemble.with_aggregation(Single(member=1))]
    Smoothing(sigma=0.5, n0=20, n=700).certify_together(classifiers, x, L2)
    for member in members:
        assert [len(batch) for batch in member.seen] == [20, 500, 200] * 4


def test_members_see_the_same_noise(x: Tensor) -> None:
    members = [first_pixels(), first_pixels()]
    Smoothing(sigma=0.5, n0=20, n=700).certify(Ensemble(members), x, L2)
    assert torch.equal(torch.cat(members[0].seen), torch.cat(members[1].seen))


# The parameters.


def test_description_and_target() -> None:
    smoothing = certifiers.create("smoothing", sigma=0.5, batch_size=7)
    assert smoothing == Smoothing(sigma=0.5, batch_size=7)
    assert smoothing.describe() == {
        "name": "smoothing",
        "version": 1,
        "parameters": {"sigma": 0.5, "n0": 100, "n": 100_000, "alpha": 0.001},
    }
    assert smoothing.guarantee is Guarantee.PROBABILISTIC
    assert smoothing.norms == set(Norm)
    assert not smoothing.uses_radii
    model = always(0)
    assert smoothing.target(model) == Smoothed(model, 0.5)


@pytest.mark.parametrize("wrong", [{"sigma": 0.0}, {"sigma": 1.0, "alpha": 1.0}, {"sigma": 1.0, "n": 0}, {}])
def test_parameters_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=r"is not allowed|certifier 'smoothing' needs 'sigma'"):
        certifiers.create("smoothing", **wrong)


def test_counts_and_bound_fit_together() -> None:
    smoothing = Smoothing(sigma=2.0, n=50, alpha=0.1)
    for hits in range(51):
        p_a, radius = smoothing.certificate_of_counts(hits)
        assert p_a == clopper_pearson_lower(hits, 50, 0.1)
        assert (radius > 0) is (p_a > 0.5)
