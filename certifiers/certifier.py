"""The contract of a certifier: `certify` is final and fail-closed; an author writes one method."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from certifiers.certificate import Certificates, Findings, Guarantee, Norm, ThreatModel, Unsupported, Verdict
from certifiers.randomness import KeyedRandomness
from certifiers.sanitize import CleanAnswer, refused, sanitized
from certifiers.undisturbed import undisturbed
from ensembles.ensemble import members_of
from ensembles.parameters import Parameters


@dataclass(frozen=True, kw_only=True)
class Certifier(Parameters, ABC):
    """A method that proves robustness: a frozen dataclass of hyper-parameters.

    Authors derive from `RadiusCertifier` or `DecisionCertifier`, not from this class.

    Attributes:
        name: the registered name; set by `register` or by the entry point.
        version: raised whenever the numbers may change.
        norms: the norms it can certify.
        guarantee: proof, or true except with a stated probability.
        uses_radii: whether the radii asked for change what is computed (they then belong to the key).
        complete: whether every true radius is certified, up to one per cent, of the classifiers that it supports and
            whose nearest other answer lies in the box [0, 1].
        example: parameters with which the conformance kit makes it: those without a default, and small ones where the
            defaults are dear.
        expected_failures: the conformance checks that it is known to fail, each with the reason. Strict: one that it
            passes is a failure. They are shown, and count as failures of its level.
    """

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    norms: ClassVar[frozenset[Norm]] = frozenset()
    guarantee: ClassVar[Guarantee] = Guarantee.DETERMINISTIC
    uses_radii: ClassVar[bool] = False
    complete: ClassVar[bool] = False
    example: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    expected_failures: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse a subclass that replaces `certify`: what guards the answers cannot be opted out of."""
        super().__init_subclass__(**options)
        for method in ("certify", "certify_together"):
            if getattr(cls, method) is not getattr(Certifier, method):
                raise TypeError(
                    f"{cls.__name__} overrides {method}, which is final. Write `radii` (of a RadiusCertifier) or "
                    "`margins` (of a DecisionCertifier) instead."
                )

    def target(self, classifier: nn.Module) -> Any:
        """The function the certificate speaks about: the classifier itself, unless a method smooths it."""
        return classifier

    def describe(self) -> dict[str, Any]:
        """Name, version and parameters: the form in keys and results."""
        return {"name": self.name, "version": self.version, "parameters": self.identity()}

    def largest_radius(self, threat: ThreatModel, dimensions: int) -> float:
        """The largest radius that the parameters allow for inputs of so many dimensions, of whatever classifier.

        Infinite where none is known. A plan says which radii of a spec lie beyond.
        """
        return math.inf

    def rehearsal(self) -> "tuple[Certifier, float]":
        """A cheaper certifier of the same kind, and how many times its time an image takes: what a plan measures."""
        return self, 1.0

    @final
    def certify(
        self,
        classifier: nn.Module,
        inputs: Tensor,
        threat: ThreatModel,
        radii: Sequence[float | int] | None = None,
        seed: int = 0,
        image_ids: Sequence[int] | None = None,
    ) -> Certificates:
        """Certificates for a batch of images.

        The classifier runs in eval mode and is left as it was, and so are the global generators, grad mode,
        default dtype and thread count. Whatever is NaN, infinite, tied or in doubt is not CERTIFIED.

        Args:
            classifier: an `Ensemble`, or any module from inputs to logits [batch, classes].
            inputs: images in [0, 1], float [batch, *shape], on the classifier's device.
            threat: the norm.
            radii: the radii that matter, ascending; methods that decide one radius at a time search these.
                None: they search by bisection.
            seed: base of all randomness.
            image_ids: the images' identities, which key the randomness; None: 0, 1, 2, ...

        Returns:
            One answer an image. A method that does not apply answers UNSUPPORTED, with the reason.

        Raises:
            ValueError: inputs, radii or image ids are malformed.
            Exception: whatever the author's method raises, except `Unsupported` and `TimeoutError`.
        """
        return self.certify_together([classifier], inputs, threat, radii, seed, image_ids)[0]

    @final
    def certify_together(
        self,
        classifiers: Sequence[nn.Module],
        inputs: Tensor,
        threat: ThreatModel,
        radii: Sequence[float | int] | None = None,
        seed: int = 0,
        image_ids: Sequence[int] | None = None,
    ) -> list[Certificates]:
        """`certify` for several classifiers on the same images, in one pass where the method can share one.

        Every answer equals that of `certify` alone, but for the measured seconds.
        """
        _check_inputs(inputs)
        ids = tuple(range(len(inputs))) if image_ids is None else _checked_ids(image_ids, len(inputs))
        wanted = None if radii is None else _checked_radii(radii)
        if threat.norm not in self.norms:
            allowed = ", ".join(sorted(self.norms)) or "none"
            why = (
                f"{self.name or type(self).__name__} does not certify the norm {threat.norm}; it certifies: {allowed}."
            )
            return [refused(len(inputs), Verdict.UNSUPPORTED, why) for _ in classifiers]
        if not len(inputs) or not classifiers:
            return [refused(0, Verdict.UNKNOWN, "") for _ in classifiers]
        with undisturbed(classifiers):
            started = time.perf_counter()
            clean = [
                CleanAnswer.of(classifier, inputs) if self.guarantee is Guarantee.DETERMINISTIC else None
                for classifier in classifiers
            ]
            found = self._search(classifiers, inputs, clean, threat, wanted, KeyedRandomness(seed, ids))
            seconds = (time.perf_counter() - started) / (len(inputs) * len(classifiers))
        return [
            refused(len(inputs), answer[0], answer[1], seconds)
            if isinstance(answer, tuple)
            else sanitized(answer, self.guarantee, len(inputs), own, len(members_of(classifier)), seconds)
            for classifier, answer, own in zip(classifiers, found, clean, strict=True)
        ]

    @abstractmethod
    def _search(
        self,
        classifiers: Sequence[nn.Module],
        x: Tensor,
        clean: "Sequence[CleanAnswer | None]",
        threat: ThreatModel,
        radii: Sequence[float] | None,
        rng: KeyedRandomness,
    ) -> "list[Findings | tuple[Verdict, str]]":
        """What the two families implement."""


@dataclass(frozen=True, kw_only=True)
class RadiusCertifier(Certifier):
    """A certifier that computes radii. An author writes `radii`."""

    @abstractmethod
    def radii(
        self,
        classifier: nn.Module,
        x: Float[Tensor, "batch *shape"],
        threat: ThreatModel,
        rng: KeyedRandomness,
    ) -> Float[Tensor, "batch"] | Findings:
        """Radii within which the classifier's answer at each x cannot change, or `Findings` that say more.

        Called with gradients off and the classifier in eval mode. Raise `Unsupported` where the method does
        not apply. A certifier with a probabilistic guarantee returns `Findings` with its predictions.
        """

    def radii_together(
        self, classifiers: Sequence[nn.Module], x: Tensor, threat: ThreatModel, rng: KeyedRandomness
    ) -> list[Findings | tuple[Verdict, str]]:
        """`radii` for several classifiers; a method that can share work among them replaces this one."""
        answers: list[Findings | tuple[Verdict, str]] = []
        for classifier in classifiers:
            try:
                # A copy each: a method that works in place must not change the next one's question.
                found = self.radii(classifier, x.clone(), threat, rng)
            except Unsupported as reason:
                answers.append((Verdict.UNSUPPORTED, str(reason)))
            except TimeoutError as reason:
                answers.append((Verdict.TIMEOUT, str(reason) or "out of time"))
            else:
                answers.append(found if isinstance(found, Findings) else Findings(radius=found))
        return answers

    def radii_asked(
        self,
        classifiers: Sequence[nn.Module],
        x: Tensor,
        threat: ThreatModel,
        wanted: Sequence[float] | None,
        rng: KeyedRandomness,
    ) -> list[Findings | tuple[Verdict, str]]:
        """`radii_together`; a method whose effort depends on the radii asked for (`uses_radii`) replaces this one."""
        return self.radii_together(classifiers, x, threat, rng)

    @final
    def _search(
        self,
        classifiers: Sequence[nn.Module],
        x: Tensor,
        clean: "Sequence[CleanAnswer | None]",
        threat: ThreatModel,
        radii: Sequence[float] | None,
        rng: KeyedRandomness,
    ) -> "list[Findings | tuple[Verdict, str]]":
        return self.radii_asked(classifiers, x, threat, radii, rng)


def _check_inputs(inputs: Tensor) -> None:
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point() or inputs.ndim < 2:
        got = f"{inputs.dtype} {tuple(inputs.shape)}" if isinstance(inputs, Tensor) else type(inputs).__name__
        raise ValueError(f"Inputs must be a float tensor [batch, *shape], got {got}. Convert: images.float() / 255.")
    if len(inputs) and not bool(torch.isfinite(inputs).all() and inputs.min() >= 0 and inputs.max() <= 1):
        raise ValueError(
            f"Inputs must lie in [0, 1], got values from {float(inputs.min()):g} to {float(inputs.max()):g}. "
            "Divide pixels by 255 and put normalisation inside the model."
        )


def _checked_ids(image_ids: Sequence[int], count: int) -> tuple[int, ...]:
    ids = tuple(int(image) for image in image_ids)
    if len(ids) != count or len(set(ids)) != count:
        raise ValueError(
            f"image_ids must name each of the {count} images once, got {len(ids)} ids, "
            f"{len(set(ids))} of them different."
        )
    return ids


def _checked_radii(radii: Sequence[float | int]) -> tuple[float, ...]:
    wanted = tuple(float(radius) for radius in radii)
    if not wanted or any(not 0 <= radius < float("inf") for radius in wanted) or list(wanted) != sorted(set(wanted)):
        raise ValueError(f"Radii must be finite, not negative, ascending and different, got {wanted}.")
    return wanted
