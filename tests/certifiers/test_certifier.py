import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import certifiers
from certifiers import (
    Certifier,
    Findings,
    Guarantee,
    KeyedRandomness,
    Norm,
    RadiusCertifier,
    ThreatModel,
    Unsupported,
    Verdict,
)
from ensembles import Ensemble, MaxMargin, Single

L2 = ThreatModel("l2")


@dataclass(frozen=True, kw_only=True)
class Half(RadiusCertifier):
    """What an outsider writes: a radius for `x -> (sum x, 1)`, whose boundary is where the pixels sum to 1."""

    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L1, Norm.L2})

    def radii(self, classifier: nn.Module, x: Tensor, threat: ThreatModel, rng: KeyedRandomness) -> Tensor:
        scores = classifier(x)
        return (scores[:, 0] - scores[:, 1]).abs() / (x[0].numel() ** 0.5 if threat.norm is Norm.L2 else 1.0)


@dataclass(frozen=True, kw_only=True)
class Scripted(RadiusCertifier):
    """Answers, raises or disturbs as the test says."""

    norms: ClassVar[frozenset[Norm]] = frozenset(Norm)
    script: Any = None

    def radii(self, classifier: nn.Module, x: Tensor, threat: ThreatModel, rng: KeyedRandomness) -> Any:
        return self.script(classifier, x, threat, rng)


class Sum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        total = x.flatten(1).sum(1)
        return torch.stack([total, torch.ones_like(total)], 1)


@pytest.fixture
def x() -> Tensor:
    return torch.tensor([[[0.5, 0.7]], [[0.1, 0.3]], [[1.0, 1.0]]])


def test_outsiders_certifier_of_a_dozen_lines(x: Tensor) -> None:
    found = Half().certify(Sum(), x, L2)
    assert found.prediction.tolist() == [0, 1, 0]
    assert found.verdict.tolist() == [Verdict.CERTIFIED] * 3
    # The distance of a point to the line x_1 + x_2 = 1.
    expected = [0.2 / 2**0.5, 0.6 / 2**0.5, 1.0 / 2**0.5]
    assert found.radius.tolist() == pytest.approx(expected, rel=1e-6)
    assert (found.radius.dtype, found.prediction.dtype, found.verdict.dtype) == (torch.float64, torch.int64, torch.int8)
    assert found.failure_probability.tolist() == [0.0] * 3
    assert found.reason == ("",) * 3
    assert found.cost.forward_passes.tolist() == [1, 1, 1], "the clean answer; the author counted none"
    assert bool((found.cost.seconds > 0).all())
    assert found.evidence == {}


def test_norm_that_is_not_certified_is_unsupported_without_asking(x: Tensor) -> None:
    class Unasked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            pytest.fail("asked")

    found = Half().certify(Unasked(), x, ThreatModel("linf"))
    assert found.verdict.tolist() == [Verdict.UNSUPPORTED] * 3
    assert found.prediction.tolist() == [-1] * 3
    assert found.radius.tolist() == [0.0] * 3
    assert set(found.reason) == {"Half does not certify the norm linf; it certifies: l1, l2."}

    @dataclass(frozen=True, kw_only=True)
    class Normless(Half):
        norms: ClassVar[frozenset[Norm]] = frozenset()
        name: ClassVar[str] = "normless"

    reason = Normless().certify(Sum(), x, L2).reason[0]
    assert reason == "normless does not certify the norm l2; it certifies: none."


@pytest.mark.parametrize("how", ["class", "mix-in", "inherited"])
@pytest.mark.parametrize("method", ["certify", "certify_together"])
def test_overriding_what_guards_the_answers_is_refused(method: str, how: str) -> None:
    def certify(self: Any, *args: Any) -> str:
        return "trust me"

    bases: tuple[type, ...] = (RadiusCertifier,)
    body: dict[str, Any] = {method: certify}
    if how == "mix-in":
        bases, body = (type("Mixin", (), body), RadiusCertifier), {}
    elif how == "inherited":
        bases = (Half,)
    message = (
        f"Sly overrides {method}, which is final. Write `radii` (of a RadiusCertifier) or "
        "`margins` (of a DecisionCertifier) instead."
    )
    with pytest.raises(TypeError, match=re.escape(message)):
        type("Sly", bases, body)


def test_author_must_write_the_method() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Lazy(RadiusCertifier):
        norms: ClassVar[frozenset[Norm]] = frozenset(Norm)

    with pytest.raises(TypeError, match=r"abstract.*radii"):
        Lazy()


# The inputs.


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


# The classifier.


@pytest.mark.parametrize(
    ("answer", "got"),
    [
        (lambda x: x.flatten(1).sum(1), r"\[3\]"),
        (lambda x: x.flatten(1)[:, :1], r"\[3, 1\]"),
        (lambda x: x, r"\[3, 1, 2\]"),
        (lambda x: x.flatten(1)[:2], r"\[2, 2\]"),
        (lambda x: (x, x), "tuple"),
    ],
)
def test_classifier_that_does_not_return_scores_is_refused(answer: Any, got: str, x: Tensor) -> None:
    class Wrong(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return answer(x)

    message = rf"The classifier must map 3 inputs to scores \[3, classes\] of two classes or more, got {got}\."
    with pytest.raises(ValueError, match=message):
        Half().certify(Wrong(), x, L2)


@pytest.mark.parametrize(
    "scores",
    [
        [float("nan"), 0.0, 0.0],
        [5.0, float("nan"), 0.0],
        [float("inf"), 0.0, 0.0],
        [5.0, float("-inf"), 0.0],
        [1.0, 1.0, 0.0],
        [0.0, 0.0, 0.0],
    ],
)
def test_image_without_a_sure_answer_is_never_certified(scores: list[float], x: Tensor) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            good = torch.tensor([5.0, 1.0, 0.0])
            return torch.stack([good, torch.tensor(scores), good])

    found = Scripted(script=lambda *args: torch.ones(3)).certify(Odd(), x, L2)
    assert found.verdict.tolist() == [Verdict.CERTIFIED, Verdict.UNKNOWN, Verdict.CERTIFIED]
    assert found.prediction.tolist() == [0, -1, 0]
    assert float(found.radius[1]) == 0.0
    assert found.reason == ("", "the classifier's scores are tied, NaN or infinite", "")


def test_classifier_runs_in_eval_mode_and_gradients_are_off(x: Tensor) -> None:
    def script(classifier: nn.Module, x: Tensor, threat: ThreatModel, rng: KeyedRandomness) -> Tensor:
        assert not any(module.training for module in classifier.modules())
        assert not torch.is_grad_enabled()
        assert torch.equal(classifier(x), classifier(x)), "dropout is off"
        return torch.ones(len(x))

    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(2, 3)).train()
    assert len(Scripted(script=script).certify(model, x, L2)) == 3
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("raises", [None, ZeroDivisionError, Unsupported, TimeoutError, KeyboardInterrupt])
def test_process_and_model_are_as_before(raises: type[BaseException] | None, x: Tensor) -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(2), nn.Dropout(0.5), nn.Linear(2, 3)).train()

    def script(classifier: nn.Module, x: Tensor, threat: ThreatModel, rng: KeyedRandomness) -> Tensor:
        torch.rand(2), np.random.rand(2)  # noqa: NPY002
        classifier.train()
        classifier.requires_grad_(requires_grad=False)
        torch.set_grad_enabled(True)
        torch.set_default_dtype(torch.float64)
        if raises:
            raise raises("stop")
        return torch.ones(len(x))

    def state() -> list[Any]:
        return [
            torch.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),  # noqa: NPY002
            torch.is_grad_enabled(),
            torch.get_default_dtype(),
            torch.get_num_threads(),
            [module.training for module in model.modules()],
            [parameter.requires_grad for parameter in model.parameters()],
            {name: tensor.tolist() for name, tensor in model.state_dict().items()},
        ]

    before, weights = state(), copy.deepcopy(model.state_dict())
    if raises in (None, Unsupported, TimeoutError):
        Scripted(script=script).certify(model, x, L2)
    else:
        assert raises is not None
        with pytest.raises(raises, match="stop"):
            Scripted(script=script).certify(model, x, L2)
    assert state() == before
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def test_inputs_are_not_altered(x: Tensor) -> None:
    before = x.clone()
    Half().certify(Sum(), x, L2)
    assert torch.equal(x, before)


# What an author may raise.


def raising(error: BaseException) -> Scripted:
    def script(*args: Any) -> Tensor:
        raise error

    return Scripted(script=script)


def test_unsupported_is_an_answer_with_its_reason(x: Tensor) -> None:
    found = raising(Unsupported("needs ReLU layers; try smoothing")).certify(Sum(), x, L2)
    assert found.verdict.tolist() == [Verdict.UNSUPPORTED] * 3
    assert found.reason == ("needs ReLU layers; try smoothing",) * 3
    assert found.prediction.tolist() == [-1] * 3
    assert found.radius.tolist() == [0.0] * 3
    assert bool((found.cost.seconds > 0).all())


@pytest.mark.parametrize(("text", "reason"), [("stopped after 3 s", "stopped after 3 s"), ("", "out of time")])
def test_timeout_is_an_answer(text: str, reason: str, x: Tensor) -> None:
    found = raising(TimeoutError(text)).certify(Sum(), x, L2)
    assert found.verdict.tolist() == [Verdict.TIMEOUT] * 3
    assert found.reason == (reason,) * 3
    assert not bool(found.certified.any())


def test_other_errors_are_raised(x: Tensor) -> None:
    with pytest.raises(ZeroDivisionError, match="oops"):
        raising(ZeroDivisionError("oops")).certify(Sum(), x, L2)


def test_one_classifier_that_is_unsupported_does_not_stop_the_others(x: Tensor) -> None:
    class Other(Sum):
        pass

    def script(classifier: nn.Module, x: Tensor, threat: ThreatModel, rng: KeyedRandomness) -> Tensor:
        if isinstance(classifier, Other):
            raise Unsupported("not this one")
        return torch.ones(len(x))

    found = Scripted(script=script).certify_together([Sum(), Other(), Sum()], x, L2)
    assert [int(answer.verdict[0]) for answer in found] == [
        Verdict.CERTIFIED,
        Verdict.UNSUPPORTED,
        Verdict.CERTIFIED,
    ]


# Several classifiers, costs, description.


def test_together_equals_alone_and_the_clean_answer_counts_members(x: Tensor) -> None:
    class Shift(Sum):
        def __init__(self, by: float) -> None:
            super().__init__()
            self.by = by

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + torch.tensor([self.by, 0.0])

    ensemble = Ensemble([Shift(-0.5), Shift(0.1), Shift(0.3)])
    classifiers: Sequence[nn.Module] = [
        ensemble,
        ensemble.with_aggregation(MaxMargin()),
        ensemble.with_aggregation(Single(member=1)),
        Shift(-0.5),
    ]
    together = Half().certify_together(classifiers, x, L2)
    for found, classifier in zip(together, classifiers, strict=True):
        alone = Half().certify(classifier, x, L2)
        for name in ("prediction", "radius", "verdict"):
            assert torch.equal(getattr(found, name), getattr(alone, name))
        assert torch.equal(found.cost.forward_passes, alone.cost.forward_passes)
    assert [int(found.cost.forward_passes[0]) for found in together] == [3, 3, 1, 1]


def test_description_has_what_a_key_needs() -> None:
    certifier = certifiers.create("closed-form-margins", bisection_steps=5)
    assert certifier.describe() == {"name": "closed-form-margins", "version": 1, "parameters": {"bisection_steps": 5}}
    model = Sum()
    assert certifier.target(model) is model


def test_probabilistic_certifier_does_not_ask_the_clean_classifier(x: Tensor) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Chance(Scripted):
        guarantee: ClassVar[Guarantee] = Guarantee.PROBABILISTIC

    class Unasked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            pytest.fail("asked")

    def script(*args: Any) -> Findings:
        return Findings(radius=torch.ones(3), prediction=torch.tensor([2, 0, -1]), failure_probability=0.001)

    found = Chance(script=script).certify(Unasked(), x, L2)
    assert found.prediction.tolist() == [2, 0, -1]
    assert found.verdict.tolist() == [Verdict.CERTIFIED, Verdict.CERTIFIED, Verdict.UNKNOWN]
    assert found.failure_probability.tolist() == [0.001, 0.001, 0.0]
    assert found.cost.forward_passes.tolist() == [0, 0, 0]


def test_certifiers_are_abstract_or_final() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Certifier()
