"""Diagnostics of trained ensembles, computed once and stored: what their members agree on."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from bench.datasets import Split
from bench.keys import digest
from bench.store import Store
from ensembles import Ensemble, seeded_generator
from ensembles.diversity import Diversity, measure

_VERSION = 1


def diagnostics_of(
    ensemble: Ensemble,
    weights: list[str],
    precision: str,
    images: Split,
    sigma: float,
    seed: int,
    device: str,
    store: Store,
) -> dict[str, Any]:
    """The `Diversity` of an ensemble on these images as plain data, from the store where it is there.

    `weights` are the digests of the trained members, and `precision` the number format that they are evaluated in.

    A file that cannot be read is computed again: it holds nothing that a certificate rests on.
    """
    fields = {"version": _VERSION, "weights": weights, "data": images.digest, "sigma": sigma, "seed": seed}
    key = digest(fields if precision == "float32" else fields | {"precision": precision})
    path = store.root / "diagnostics" / f"{key[:32]}.json"
    if path.is_file():
        try:
            return asdict(Diversity(**json.loads(path.read_text(encoding="utf-8"))))
        except (ValueError, TypeError):
            path.unlink()
    x, y = images.images(np.arange(len(images))).to(device), images.labels.to(device)
    found = asdict(measure(ensemble, x, y, sigma=sigma, generator=seeded_generator(seed, "diagnostics")))
    store.write_json(path, found)
    return found


def flat(diversity: Mapping[str, Any]) -> dict[str, float]:
    """The measures as one number a name: quartiles become `name q25`, `name q50`, `name q75`."""
    numbers: dict[str, float] = {}
    for name, value in diversity.items():
        if name in ("images", "sigma"):
            continue
        if isinstance(value, (tuple, list)):
            numbers |= {f"{name}_q{share}": float(item) for share, item in zip((25, 50, 75), value, strict=True)}
        else:
            numbers[name] = float(value)
    return numbers
