"""Every registered deterministic certifier against exact answers and planted counterexamples, whatever it is."""

from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

import certifiers
from certifiers import Certificates, Guarantee, Norm, ThreatModel, Verdict
from certifiers.conformance import Truth, enumerated, linear, planted
from ensembles import Aggregation, MaxMargin, Single, WeightedAverage

NAMES = [name for name in certifiers.names() if certifiers.get(name).guarantee is Guarantee.DETERMINISTIC]
#: Shares of the exact radius that are asked for.
SHARES = (0.1, 0.5, 0.9, 0.999, 1.001, 1.1, 2.0)
EXACT = {"milp"}
#: These bound each member alone, so that of a weighted average of linear models they lose what cancels.
MEMBER_WISE = {"ibp", "native-ibp", "lipschitz", "lipsdp"}


def certify(name: str, truth: Truth, image: int, shares: tuple[float, ...] = SHARES) -> Certificates:
    """One image, asked for radii about its own exact one."""
    exact = float(truth.radius[image])
    radii = [share * exact for share in shares] if exact < 10 else [0.1, 0.5]
    return certifiers.create(name).certify(truth.classifier, truth.x[image : image + 1], truth.threat, radii=radii)


def radii_of(name: str, truth: Truth) -> tuple[Tensor, set[int]]:
    found = [certify(name, truth, image) for image in range(len(truth.x))]
    return torch.cat([part.radius for part in found]), {int(part.verdict[0]) for part in found}


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    if request.param in ("ibp", "crown-ibp", "crown", "alpha-crown") and find_spec("auto_LiRPA") is None:
        pytest.skip("auto_LiRPA is not installed")
    return str(request.param)


KINDS: list[Aggregation | None] = [None, Single(member=1), WeightedAverage(of="logit"), MaxMargin(of="logit")]


@pytest.mark.parametrize("aggregation", KINDS, ids=lambda kind: "network" if kind is None else kind.name)
@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L1])
def test_no_certificate_reaches_the_exact_radius(name: str, norm: Norm, aggregation: Aggregation | None) -> None:
    truth = enumerated(5, ThreatModel(norm), aggregation, batch=1)
    radius, verdicts = radii_of(name, truth)
    assert bool((radius <= truth.radius * (1 + 1e-7)).all())
    if name in EXACT and norm in certifiers.get(name).norms:
        assert bool((radius >= 0.99 * truth.radius.clamp(max=0.5)).all())
    if Verdict.UNSUPPORTED in verdicts:
        assert verdicts == {int(Verdict.UNSUPPORTED)}
        assert certify(name, truth, 0).reason[0]


@pytest.mark.parametrize("norm", list(Norm))
def test_of_linear_models_all_are_exact(name: str, norm: Norm) -> None:
    if norm not in certifiers.get(name).norms:
        pytest.skip(f"{name} does not certify {norm}")
    average = None if name in MEMBER_WISE else WeightedAverage(of="logit")
    truth = linear(1, ThreatModel(norm), average, batch=1)
    radius, _ = radii_of(name, truth)
    # Float32 bounds give away some parts in 10^5; the last share below the boundary is 0.999.
    assert bool((radius <= truth.radius).all())
    assert bool((radius >= 0.9 * truth.radius * (1 - 1e-6)).all())


@pytest.mark.parametrize("norm", list(Norm))
def test_planted_counterexamples_are_never_certified(name: str, norm: Norm) -> None:
    threat = ThreatModel(norm)
    if norm not in certifiers.get(name).norms:
        pytest.skip(f"{name} does not certify {norm}")
    for trap in planted(threat):
        modes = [module.training for module in trap.classifier.modules()]
        radii = sorted({trap.distance * share for share in (0.5, 1.0, 1.5)} or {0.1})
        radii = [radius for radius in radii if radius > 0] or [0.05, 0.1]
        found = certifiers.create(name).certify(trap.classifier, trap.x, threat, radii=radii)
        assert float(found.radius[0]) <= trap.safe, trap.name
        assert [module.training for module in trap.classifier.modules()] == modes, trap.name


@pytest.mark.parametrize(
    "weaker", [("native-ibp", "lp"), ("native-crown", "lp"), ("lp", "milp"), ("crown", "alpha-crown")]
)
def test_a_method_that_contains_another_proves_no_less(weaker: tuple[str, str]) -> None:
    if "crown" in weaker and find_spec("auto_LiRPA") is None:
        pytest.skip("auto_LiRPA is not installed")
    truth = enumerated(0, ThreatModel(Norm.LINF), WeightedAverage(of="logit"), batch=2)
    less, more = (radii_of(name, truth)[0] for name in weaker)
    assert bool((more >= less - 1e-9).all())
