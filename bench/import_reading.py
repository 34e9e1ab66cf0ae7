"""Reading the logs that are imported: formats, ids, and whether they contradict each other or what was told of them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from bench.import_requests import LogFile, Table
from leaderboards import LogError, PublishedLog, read_cohen_log, read_dsrs_log
from leaderboards.published_images import ImageSet
from leaderboards.records import PRINTED_RADIUS, SCHEMA_VERSION

#: Raised whenever the same bytes may be read as other rows.
READER_VERSION = 1


@dataclass(frozen=True, eq=False)
class ReadLog:
    """One log that was read.

    Attributes:
        given: the file.
        log: what it says.
        rows: its rows under the ids of the board.
        sha256: of its bytes.
        left_out: how many of its images the run beside it does not have.
        key_fields: what decides its rows: the key of their cell is the digest of it.
    """

    given: LogFile
    log: PublishedLog
    rows: pd.DataFrame
    sha256: str
    left_out: int = 0
    key_fields: Mapping[str, Any] = field(default_factory=dict)


def read_log(given: LogFile, table: Table, labels: Mapping[int, int] | None) -> ReadLog:
    """Read a log, whichever of the known formats it has.

    Raises:
        FileNotFoundError: there is no such file.
        LogError: it is of no known format or cannot be read, or its radii are beyond what its samples allow.
        ValueError: alpha is not in (0, 1).
    """
    content = given.path.read_bytes()
    if content.partition(b"\n")[0].startswith(b"idx") or b"\t" in content.partition(b"\n")[0]:
        form, log = "cohen", read_cohen_log(given.path, alpha=given.alpha)
    elif content[:1].isdigit() or content.lstrip()[:1] in (b"x", b"o"):
        if labels is None and not given.path.name.startswith("time-"):
            raise LogError(
                f"{given.path}: a text file of DSRS names no classes. Say where the labels of the images are: --labels "
                "with a Cohen-format log of the same data set."
            )
        form, log = "dsrs", read_dsrs_log(given.path, labels or {}, alpha=given.alpha)
    else:
        # What is no text at all is named as such by the reader.
        read_cohen_log(given.path, alpha=given.alpha)
        raise LogError(f"{given.path}:1: neither a Cohen-format log nor a text file of DSRS.")
    if form == "cohen" and given.certifier is None and table.norm == "l2":
        _check_reach(given, log)
    sha256 = hashlib.sha256(content).hexdigest()
    rows = log.rows.assign(image_id=log.rows["image_id"] + table.first_id)
    fields = {
        "schema": SCHEMA_VERSION,
        "published": {"format": form, "reader": READER_VERSION, "bytes": sha256, "alpha": given.alpha},
        "first_id": table.first_id,
        "labels": [int(label) for label in rows["label"]] if form == "dsrs" else None,
        "threat": {"norm": table.norm},
    }
    return ReadLog(given, log, rows, sha256, key_fields=fields)


def _check_reach(given: LogFile, log: PublishedLog) -> None:
    """Refuse radii that no votes of so many samples give: sigma, n or alpha is another one, or the log is altered.

    All n votes for one class give `sigma * Phi^-1(alpha^(1/n))` (Cohen et al., 2019), and nothing gives more.
    """
    from scipy.stats import norm

    if given.sigma is None or given.n is None:
        return
    # A margin for the last digits of either computation.
    reach = (1 + 1e-9) * given.sigma * float(norm.ppf(given.alpha ** (1 / given.n)))
    beyond = log.rows[log.rows["radius"] > reach]
    if len(beyond):
        first = beyond.iloc[0]
        raise LogError(
            f"{given.path}: image {first['image_id']} has radius {first[PRINTED_RADIUS]:g}, but sigma {given.sigma:g}, "
            f"n {given.n} and alpha {given.alpha:g} reach {reach:.4g} at most; {len(beyond)} of {len(log.rows)} rows "
            "lie beyond. Check --sigma, --n and --alpha, or name the method: --certifier."
        )


def restricted(item: ReadLog, images: ImageSet) -> ReadLog:
    """The part of a log that is about these images.

    Raises:
        LogError: it has none of them.
    """
    rows = item.rows[item.rows["image_id"].isin(images.ids)]
    if rows.empty:
        raise LogError(
            f"{item.given.path}: none of its {len(item.rows)} images is one of the run's, which has image "
            f"{images.ids[0]} and others. Say which id the run gives the log's image 0: --first-id."
        )
    return ReadLog(item.given, item.log, item.rows, item.sha256, len(item.rows) - len(rows), item.key_fields)


def check_labels(read: Sequence[ReadLog], known: dict[int, tuple[str, int]]) -> None:
    """All logs must agree about the true class of every image, also with what is known of it: who says what.

    Raises:
        LogError: two of them do not.
    """
    for item in read:
        for image, label in zip(item.rows["image_id"].tolist(), item.rows["label"].tolist(), strict=True):
            who, other = known.setdefault(image, (str(item.given.path), label))
            if other != label:
                raise LogError(
                    f"{item.given.path}: image {image} has label {label}, in {who} it has {other}. They are not about "
                    "the same images: check the files, --dataset and --first-id."
                )
