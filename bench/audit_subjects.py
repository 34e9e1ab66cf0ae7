"""What an audit attacks: the classifier, the images and the claims of a stored entry, each bound to its key."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from bench.datasets import Dataset, Split
from bench.keys import canonical_json, digest
from bench.store import Store
from certifiers import Certifier, ThreatModel
from certifiers import from_mapping as certifier_from_mapping
from ensembles import Ensemble, aggregation, checkpoint
from ensembles.checkpoint import CheckpointError
from ensembles.precision import in_precision
from ensembles.registry import RegistryError
from leaderboards.records import read_rows
from leaderboards.verified_files import StoredDataError

_KEY = re.compile(r"^[0-9a-f]{64}$")


class AuditError(ValueError):
    """An entry cannot be audited: what is stored does not fit together."""


@dataclass(frozen=True, eq=False)
class AuditSubject:
    """One entry of a run, ready to be attacked.

    Attributes:
        name: of the entry.
        classifier: digest of its weights and aggregation: entries that share it speak of the same classifier.
        key: of its cell; weights, aggregation, images and threat were found to be those it is the digest of.
        ensemble: the classifier that was certified.
        certifier: which says what its claims are about.
        threat: the norm.
        images: the images of the run.
        claims: the CERTIFIED rows, in the order of the image set.
    """

    name: str
    key: str
    classifier: str
    ensemble: Ensemble
    certifier: Certifier
    threat: ThreatModel
    images: Split
    claims: pd.DataFrame

    def image(self, image_id: int) -> torch.Tensor:
        """The image of that id, [1, *shape]."""
        return self.images.images(np.flatnonzero(self.images.ids == image_id))


def read_manifest(path: Path) -> Mapping[str, Any]:
    """The description of a run, as it was written.

    Raises:
        AuditError: it is not one.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(document["entries"], list) or not isinstance(document["spec_text"], str):
            raise TypeError("entries must be a list and spec_text a text")
        if "packed" in document:
            raise AuditError(
                f"{path}: a published run has rows but no weights to attack. Audit it in the store that it was "
                "published from, and publish it again."
            )
    except AuditError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AuditError(f"{path}: not the description of a run ({error!r}). Run the spec again.") from error
    return document  # type: ignore[no-any-return]


def images_of(entry: Mapping[str, Any], dataset: Dataset) -> Split:
    """The images that an entry was certified on, of which the digest is that of the run.

    Raises:
        AuditError: the data set no longer holds them, or holds others.
    """
    try:
        split = {"test": dataset.test, "validation": dataset.validation}[entry["split"]]
        images = split.of_ids(entry["image_ids"])
    except (KeyError, TypeError, IndexError) as error:
        raise AuditError(f"the data set does not hold its images ({error!r}).") from error
    if images.digest != entry["images_digest"]:
        raise AuditError(
            f"the images of {dataset.name} have digest {images.digest[:12]}, the run was made with "
            f"{str(entry['images_digest'])[:12]}. Audit it with the data that it was made with."
        )
    return images


def subject_of(entry: Mapping[str, Any], images: Split, store: Store, device: str) -> AuditSubject:
    """An entry of `run.json` with its weights from the store.

    The description beside the rows must have the key as its digest; weights, images and threat must be those it names.

    Raises:
        AuditError: the entry is not finished, or something stored is not what the key stands for.
        CheckpointError: a stored checkpoint was altered.
        StoredDataError: a file of rows was altered.
    """
    name = str(entry.get("name"))
    try:
        key, fields = str(entry["key"]), _key_fields(entry, store)
        found = [_checkpoint(store, recipe) for recipe in entry["details"]["training"]]
        _check("weights", fields["weights"], [item.digest for item in found])
        _check("images", [fields["data"], fields["image_ids"]], [images.digest, images.ids.tolist()])
        _check("norm", fields["threat"], {"norm": entry["norm"]})
        _check("certifier", fields["certifier"], entry["details"]["certifier"])
        combined = {item: value for item, value in fields["aggregation"].items() if item != "version"}
        method = fields["certifier"]
        members = [
            in_precision(member, fields["dtype"]).to(torch.device(device)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            for item in found
            for member in item.members
        ]
        certifier = certifier_from_mapping(method["name"], method["parameters"])
        ensemble = Ensemble(members, aggregation.create(combined)).eval()
        _check_version("certifier", method, json.loads(canonical_json(certifier.describe())))
        _check_version("aggregation", fields["aggregation"]["version"], ensemble.aggregation.version)
        threat = ThreatModel(entry["norm"])
    except (CheckpointError, StoredDataError, AuditError):
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RegistryError, ImportError) as error:
        raise AuditError(f"cannot be set up ({type(error).__name__}: {error}).") from error
    rows = read_rows(store.cell(key))
    order = {image: position for position, image in enumerate(images.ids.tolist())}
    claims = rows[rows["image_id"].isin(order) & (rows["verdict"] == "CERTIFIED")]
    claims = claims.sort_values("image_id", key=lambda ids: ids.map(order)).reset_index(drop=True)
    classifier = digest({name: fields[name] for name in ("weights", "aggregation", "dtype")})
    return AuditSubject(name, key, classifier, ensemble, certifier, threat, images, claims)


def _key_fields(entry: Mapping[str, Any], store: Store) -> Mapping[str, Any]:
    """What the key of an entry's cell is the digest of, from the cell.

    Raises:
        AuditError: there is no such description, or its digest is not the key.
    """
    key, folder = str(entry["key"]), entry["folder"]
    if not folder or not _KEY.match(key):
        raise AuditError(f"it has no finished rows ({entry['status']}). Run the spec to the end first.")
    path = store.cell(key) / "cell.json"
    if folder != store.cell(key).relative_to(store.root).as_posix():
        raise AuditError(f"its rows lie in {folder!r}, which is not the folder of its key.")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))["key_fields"]
        own = digest(fields)
    except FileNotFoundError:
        raise AuditError(f"{path} is missing: it is not finished. Run the spec to the end first.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AuditError(f"{path} is damaged ({error!r}). Run the spec again: it is written anew.") from error
    if own != key:
        raise AuditError(f"{path} describes the key {own[:12]}, the entry has {key[:12]}; it was altered.")
    return fields  # type: ignore[no-any-return]


def _checkpoint(store: Store, labelled: Mapping[str, Any]) -> checkpoint.Checkpoint:
    """The members made by a recipe, which stands in the manifest under a label."""
    path = store.checkpoint(digest({item: value for item, value in labelled.items() if item != "label"}))
    try:
        return checkpoint.load(path)
    except FileNotFoundError:
        raise AuditError(f"No checkpoint at {path}: without weights nothing can be attacked. Run again.") from None


def _check(what: str, expected: Any, got: Any) -> None:
    if expected != got:
        raise AuditError(f"its key is about other {what}: {_short(expected)}, got {_short(got)}.")


def _check_version(what: str, expected: Any, got: Any) -> None:
    """What is attacked is what the code of today says that certificates are about."""
    if expected != got:
        raise AuditError(
            f"the {what} is {_short(expected)}, and in this program {_short(got)}: other claims would be attacked than "
            "were made. Run the spec again."
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
