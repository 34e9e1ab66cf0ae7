"""Soundness alarms: certificates that cannot be true, or whose certifier is known to be wrong.

None of these is a matter of chance or of a margin, and none needs a baseline to be wrong.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import betaincinv, ndtri

from leaderboards.gate.findings import Finding, Kind, Outcome
from leaderboards.gate.measured import Measured, classifier_of
from leaderboards.radii import parse_radius
from leaderboards.records import EVIDENCE_PREFIX, VERDICTS, Entry

#: What rounding may add to a radius that is computed again from its counts.
_ROUNDING = 1e-9

#: The certifier whose radius in l1 follows from a lower bound and the noise it used.
_L1 = "smoothing-l1"

#: Certifiers whose radius in l2 is at most `sigma Phi^-1(p)` of a lower bound p, in other norms at most that (but for
#: `_L1`), and the evidence it follows from: the number of samples; and their votes, where the bound is that of Clopper
#: and Pearson or less.
_COUNTED = {
    "smoothing": ("n", "n_A"),
    "smoothing-integer": ("n", "n_A"),
    _L1: ("n", "n_A"),
    "smoothing-eas": ("n",),
    "smoothing-adaptive": ("samples",),
    "smoothing-phases": ("samples",),
}

#: Evidence that says how near an input lies that is answered otherwise.
_DISTANCES = (f"{EVIDENCE_PREFIX}refuted_radius", f"{EVIDENCE_PREFIX}witness_distance")

#: For each classifier and prediction, the nearest input known with another answer, by image.
Refuted = Mapping[tuple[str, int, int], float]

_Mask = npt.NDArray[np.bool_]
_Radii = npt.NDArray[np.float64]


def soundness(head: Measured, known: Refuted) -> list[Finding]:
    """The soundness of each entry of a run: every alarm, or one finding that there is none."""
    found: list[Finding] = []
    for entry in head.run.entries:
        said = [text for check in _CHECKS for text in check(entry)] + _contradicted(entry, known)
        found += [Finding(Kind.SOUNDNESS, entry.name, Outcome.REGRESSION, text) for text in said]
        if not said and len(entry.rows):
            certified = int((entry.rows["verdict"] == "CERTIFIED").sum())
            fine = f"nothing speaks against its {certified} certificates"
            found.append(Finding(Kind.SOUNDNESS, entry.name, Outcome.PASS, fine))
    return found


def counterexamples(runs: Iterable[Measured]) -> Refuted:
    """The nearest input known to be answered otherwise, by classifier, image and prediction, over some runs.

    From audits of deterministic certifiers, from the cascade's attacks and from witnesses of mixed-integer programs;
    and, for the very same cell, from audits of any certifier. Where a certifier says FALSIFIED and not how far away,
    the input lies within the largest radius that its run asked for.
    """
    nearest: dict[tuple[str, int, int], float] = defaultdict(lambda: np.inf)

    def note(name: str | None, images: pd.Series, predictions: pd.Series, distances: pd.Series) -> None:
        if name is not None:
            for image, prediction, away in zip(images, predictions, distances, strict=True):
                if np.isfinite(away):
                    at = (name, int(image), int(prediction))
                    nearest[at] = min(nearest[at], float(away))

    for measured in runs:
        for entry in measured.run.entries:
            for name in _names(entry):
                if (audits := measured.audits.get(entry.key)) is not None:
                    note(name, audits["image_id"], audits["prediction"], audits["attack_radius"])
            if entry.guarantee == "deterministic" and len(entry.rows):
                # What was refuted is the classifier's own answer, whether or not a smaller ball was proved.
                rows = entry.rows
                note(classifier_of(entry), rows["image_id"], rows["clean_prediction"], _distances(entry, measured))
    return dict(nearest)


def _distances(entry: Entry, measured: Measured) -> pd.Series:
    """How near each image's answer is known to change, from the rows themselves; infinite where nothing is known."""
    rows = entry.rows
    known = [rows[column].fillna(np.inf).to_numpy(dtype=np.float64) for column in _DISTANCES if column in rows]
    found = pd.Series(np.min([np.full(len(rows), np.inf), *known], axis=0), index=rows.index)
    # What an audit has refuted is FALSIFIED here too, and the audit knows how far away.
    said = (rows["verdict"] == "FALSIFIED") & ~rows["reason"].str.startswith("refuted by an audit") & np.isinf(found)
    return found.mask(said, max((float(parse_radius(radius)) for radius in measured.run.radii), default=np.inf))


def false_images(entry: Entry, known: Refuted) -> dict[int, float]:
    """The images of an entry whose certificates reach a known counterexample, with its distance."""
    rows = entry.rows[entry.rows["verdict"] == "CERTIFIED"]
    found: dict[int, float] = {}
    for name in _names(entry):
        for image, prediction, radius in zip(rows["image_id"], rows["prediction"], rows["radius"], strict=True):
            away = known.get((name, int(image), int(prediction)), np.inf)
            if np.isfinite(away) and radius >= away:
                found[int(image)] = min(away, found.get(int(image), np.inf))
    return found


def _names(entry: Entry) -> list[str]:
    """What an entry's certificates are about: its cell; and, if they are about the classifier itself, that."""
    own = classifier_of(entry) if entry.guarantee == "deterministic" else None
    return [name for name in (entry.key, own) if name]


def _contradicted(entry: Entry, known: Refuted) -> list[str]:
    false = false_images(entry, known)
    if not false:
        return []
    image, away = min(false.items())
    where = f"at distance {away:.6g} from image {image}"
    return [f"{_images(sorted(false))}: certified beyond an input that is answered otherwise, {where}"]


def misfits(entry: Entry) -> list[str]:
    """Rows that are not what the schema says: nothing that is computed from them means anything."""
    rows = entry.rows
    radius, certified = rows["radius"].to_numpy(dtype=np.float64), (rows["verdict"] == "CERTIFIED").to_numpy()
    alpha = rows["failure_probability"].to_numpy(dtype=np.float64)
    # NaN is in no range: every rule is written so that it fails.
    rules: dict[str, _Mask] = {
        "its verdict is none of " + ", ".join(VERDICTS): ~rows["verdict"].isin(VERDICTS).to_numpy(),
        "an image has two rows": rows["image_id"].duplicated().to_numpy(),
        "a radius that is not a number at least 0": ~(np.isfinite(radius) & (radius >= 0)),
        "a radius without a certificate": ~certified & ~(radius == 0),
        "a certificate without a class": certified & ~(rows["prediction"] >= 0).to_numpy(),
        "a failure probability that is not in [0, 1)": ~((alpha >= 0) & (alpha < 1)),
    }
    if entry.guarantee == "deterministic":
        rules["a proof with a failure probability"] = certified & ~(alpha == 0)
    else:
        rules["a probabilistic certificate without a failure probability"] = certified & ~(alpha > 0)
    return [f"{_images(rows['image_id'][wrong])}: {what}" for what, wrong in rules.items() if wrong.any()]


def _audited(entry: Entry) -> list[str]:
    return list(entry.audit.warnings()) if entry.audit else []


def _not_finite(entry: Entry) -> list[str]:
    """Certificates of a classifier that answers NaN or infinity, and proofs of another answer than its own."""
    rows = entry.rows
    certified = rows["verdict"] == "CERTIFIED"
    said = []
    # Only rows that were measured here say -1 for "not finite"; in published logs it says "not known".
    nan = certified & (rows["clean_prediction"] < 0)
    if not entry.imported and nan.any():
        said.append(f"{_images(rows['image_id'][nan])}: CERTIFIED, but the classifier itself has no finite answer")
    both = (rows["clean_prediction"] >= 0) & (rows["prediction"] >= 0)
    other = certified & both & (rows["prediction"] != rows["clean_prediction"])
    if entry.guarantee == "deterministic" and other.any():
        said.append(f"{_images(rows['image_id'][other])}: proved for a class that the classifier does not answer")
    return said


def _conformance(entry: Entry) -> list[str]:
    badge = entry.conformance
    return [f"its certifier fails the conformance kit: {badge}"] if badge is not None and badge.failed else []


def _beyond_samples(entry: Entry) -> list[str]:
    """Radii larger than n samples allow at the alpha that the rows state: that of `p = alpha^(1/n)`.

    No lower bound that holds with probability 1 - alpha exceeds `alpha^(1/n)` after n votes for one class: a class of
    just smaller probability has them all with probability alpha. Where the bound is that of Clopper and Pearson, every
    radius is computed again from its votes.
    """
    rows = entry.rows
    certified = (rows["verdict"] == "CERTIFIED").to_numpy()
    if entry.imported or entry.certifier not in _COUNTED or not certified.any():
        return []
    needed = ("sigma", *_COUNTED[entry.certifier])
    if missing := [name for name in needed if f"{EVIDENCE_PREFIX}{name}" not in rows]:
        lacking = f"its radii cannot be computed again: the evidence lacks {', '.join(missing)}"
        return [f"{lacking}. Run the spec again; a method of another kind needs a name of its own"]
    claims = rows[certified]
    sigma, n, *votes = (claims[f"{EVIDENCE_PREFIX}{name}"].to_numpy(dtype=np.float64) for name in needed)
    alpha = claims["failure_probability"].to_numpy(dtype=np.float64)
    bound = alpha ** (1 / n)
    for won in votes:
        with np.errstate(invalid="ignore"):
            bound = np.where((won >= 1) & (won <= n), betaincinv(np.maximum(won, 1), n - won + 1, alpha), 0.0)
    largest = _l1_radius(claims, sigma, bound) if entry.certifier == _L1 else sigma * ndtri(bound)
    # Not "radius > largest": NaN allows nothing.
    beyond = ~(claims["radius"].to_numpy(dtype=np.float64) <= largest + _ROUNDING * np.abs(largest))
    if not beyond.any():
        return []
    return [f"{_images(claims['image_id'][beyond])}: a radius beyond what its samples and alpha allow"]


def _l1_radius(claims: pd.DataFrame, sigma: npt.NDArray[np.float64], bound: npt.NDArray[np.float64]) -> _Radii:
    """The radius in l1 of a lower bound: `2 lambda (p - 1/2)`, or `-lambda log(2 (1 - p))` under Laplace noise.

    The half-width of the uniform interval is `lambda = sqrt(3) sigma`, the scale of Laplace's law `sigma / sqrt(2)`
    (Yang et al., ICML 2020; Teng et al., 2020). Of unknown noise no radius is allowed.
    """
    column = f"{EVIDENCE_PREFIX}noise"
    noise = claims[column].to_numpy() if column in claims else np.full(len(claims), "")
    with np.errstate(divide="ignore", invalid="ignore"):
        laplace = -sigma / np.sqrt(2) * np.log(2 * (1 - bound))
    uniform = 2 * np.sqrt(3) * sigma * (bound - 0.5)
    return np.where(noise == "uniform", uniform, np.where(noise == "laplace", laplace, np.nan))


_CHECKS: Sequence[Callable[[Entry], list[str]]] = (_audited, misfits, _not_finite, _conformance, _beyond_samples)


def _images(ids: Iterable[int]) -> str:
    """`image 7`, `3 images (7, 9, 12)`, `50 images (7, 9, 12, ...)`."""
    listed = [int(image) for image in ids]
    if len(listed) == 1:
        return f"image {listed[0]}"
    shown = ", ".join(map(str, listed[:3])) + (", ..." if len(listed) > 3 else "")
    return f"{len(listed)} images ({shown})"
