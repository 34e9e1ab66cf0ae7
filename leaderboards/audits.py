"""Audits: what attacks on stored certificates found, kept beside the rows, which they never change.

An audit of one certificate says: within `radius` of the image it was attacked, and the nearest input found that is
answered otherwise lies at `attack_radius`. That refutes the certificate where it is at most the certified radius; else
the two enclose the robust radius.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from leaderboards import numerals
from leaderboards.metrics import expected_false_certificates
from leaderboards.verified_files import StoredDataError, digest_of, read_verified


def _column(name: str, kind: pa.DataType, doc: str) -> pa.Field:
    return pa.field(name, kind, nullable=False, metadata={"doc": doc})


#: One row: one certificate under one attack.
AUDIT_SCHEMA = pa.schema(
    [
        _column("image_id", pa.int64(), "row number in the source data set"),
        _column("prediction", pa.int64(), "class that the certificate speaks of"),
        _column("radius", pa.float64(), "the certified radius that was attacked"),
        _column("attack_radius", pa.float64(), "distance of the nearest input found with another answer; inf: none"),
        _column("answer", pa.int64(), "class of that input; -1: none"),
        _column("margin", pa.float64(), "score of that class less that of the prediction; of votes, their share"),
        _column("p_value", pa.float64(), "0 for a replayed counterexample, else of the test; 1: none"),
        _column("method", pa.string(), "the attack that found it; empty: none"),
        _column("witness", pa.string(), "file that holds a refuting input; empty: none"),
        _column("attack", pa.string(), "settings of the attack, as JSON"),
        _column("forward_passes", pa.int64(), "inputs sent through a member"),
        _column("seconds", pa.float64(), "wall time"),
    ]
)

_AUDIT_NAME = re.compile(r"^audit-\d+-(?P<digest>[0-9a-f]{32})\.parquet$")


@dataclass(frozen=True)
class Audit:
    """What an entry's audits come to.

    Attributes:
        certificates: the entry's CERTIFIED images, as stored.
        audited: how many of these were attacked in their whole ball.
        refuted: how many were refuted; an entry with any is unsound.
        enclosed: of how many not refuted both radii are known, so that they count in the tightness.
        tightness: median of certified radius / attack radius over these; None where there is none.
        expected_false: bound on the expected number of false certificates among all images of the entry. Those audited
            have no smaller bound of their own: alpha is that of an image, not of a certificate.
    """

    certificates: int
    audited: int
    refuted: int
    enclosed: int
    tightness: float | None
    expected_false: float = 0.0

    @property
    def unsound(self) -> bool:
        """Whether any certificate was refuted."""
        return self.refuted > 0

    def warnings(self) -> tuple[str, ...]:
        """What must stand beside the entry's name."""
        if not self.unsound:
            return ()
        expected = f", at most {self.expected_false:.2g} expected of all images" if self.expected_false else ""
        return (f"UNSOUND: {self.refuted} of {self.audited} audited certificates refuted{expected}",)


def audit_cells(audit: Audit | None) -> dict[str, float | int]:
    """The columns that a table of entries has where any of them was audited."""
    return {
        "audited": audit.audited if audit else 0,
        "refuted": audit.refuted if audit else 0,
        "tightness": math.nan if audit is None or audit.tightness is None else audit.tightness,
    }


def audit_texts(audit: Audit | None) -> tuple[str, str]:
    """How many certificates were audited and refuted, and the tightness, rounded down, for readers."""
    if audit is None:
        return numerals.NOTHING, numerals.NOTHING
    known = numerals.NOTHING if audit.tightness is None else numerals.radius(audit.tightness)
    return f"{audit.audited} of {audit.certificates}, {audit.refuted} refuted", known


def reading_of_audits() -> str:
    """What the columns of an audit mean, for the guide of a board."""
    return (
        "Audited: certificates inside whose ball attacks searched for a counterexample, and how many they refuted. A "
        "refuted certificate counts as none, and its entry is UNSOUND and without a rank. Tightness: the median of "
        "certified radius / distance of the nearest counterexample found, over the audited images where both are "
        "known; 1 is exact, and what it falls short of 1 the certifier or the attack leaves open. A certifier "
        "that decides the radii of the board alone proves none between them."
    )


def audit_name(content: bytes, first_image: int) -> str:
    """The name of a file of audits: `audit-<first image>-<digest of its bytes>.parquet`."""
    return f"audit-{first_image:06d}-{digest_of(content)}.parquet"


def read_audits(folder: Path) -> pd.DataFrame | None:
    """All audits of a cell, with the columns of `AUDIT_SCHEMA`; None where there are none.

    Raises:
        StoredDataError: a file was altered, is of another cell, or holds numbers that no audit finds.
    """
    frames = []
    for path in sorted(folder.glob("audit-*.parquet")):
        match = _AUDIT_NAME.match(path.name)
        frame: pd.DataFrame = read_verified(path, match["digest"] if match else None, AUDIT_SCHEMA).to_pandas()
        frames.append(checked_audits(frame, path))
    return pd.concat(frames, ignore_index=True) if frames else None


def checked_audits(audits: pd.DataFrame, where: Path) -> pd.DataFrame:
    """The audits, if they hold only numbers that an audit finds.

    Raises:
        StoredDataError: a radius is not a positive number.
    """
    strange = audits["attack_radius"].isna() | (audits["attack_radius"] < 0) | ~(audits["radius"] > 0)
    if strange.any():
        raise StoredDataError(f"{where}: an audit has a radius that is not a positive number.")
    return audits


def attack_radii(rows: pd.DataFrame, audits: pd.DataFrame | None) -> dict[int, float]:
    """The distance of the nearest input found with another answer, by image; infinite where attacks found none.

    Only audits of what a CERTIFIED row says count: those of its image and prediction, and where nothing was found those
    of its whole ball.
    """
    if audits is None:
        return {}
    claims = rows.loc[rows["verdict"] == "CERTIFIED", ["image_id", "prediction", "radius"]]
    found = claims.merge(audits, on=["image_id", "prediction"], suffixes=("", "_attacked"))
    found = found[np.isfinite(found["attack_radius"]) | (found["radius_attacked"] >= found["radius"])]
    nearest = found.sort_values("attack_radius").drop_duplicates("image_id")
    return dict(zip(nearest["image_id"].tolist(), nearest["attack_radius"].tolist(), strict=True))


def audited(rows: pd.DataFrame, audits: pd.DataFrame | None) -> tuple[pd.DataFrame, Audit | None]:
    """The rows with refuted certificates turned FALSIFIED, radius 0, and what the audits come to.

    A counterexample at distance d refutes every certificate of its image and prediction with a radius of d or more,
    whatever radius was attacked. Audits of other predictions are about other claims and count for nothing.
    """
    if audits is None:
        return rows, None
    claims = rows[rows["verdict"] == "CERTIFIED"]
    found = claims[["image_id", "prediction", "radius"]].merge(
        audits[["image_id", "prediction", "radius", "attack_radius", "answer"]],
        on=["image_id", "prediction"],
        suffixes=("", "_attacked"),
    )
    nearest = found.sort_values("attack_radius").drop_duplicates("image_id").set_index("image_id")
    refuted = nearest[nearest["attack_radius"] <= nearest["radius"]]
    attacked = set(found.loc[found["radius_attacked"] >= found["radius"], "image_id"]) | set(refuted.index)
    judged = nearest.loc[sorted(attacked)]
    standing = judged.drop(index=refuted.index)
    standing = standing[np.isfinite(standing["attack_radius"])]
    summary = Audit(
        certificates=len(claims),
        audited=len(judged),
        refuted=len(refuted),
        enclosed=len(standing),
        tightness=float((standing["radius"] / standing["attack_radius"]).median()) if len(standing) else None,
        expected_false=expected_false_certificates(rows) if len(rows) else 0.0,
    )
    told = {
        int(image): f"refuted by an audit: an input at distance {away:.6g} is answered {answer}, not {prediction}"
        for image, away, answer, prediction in zip(
            refuted.index, refuted["attack_radius"], refuted["answer"], refuted["prediction"], strict=True
        )
    }
    false = rows["image_id"].isin(list(told))
    rows = rows.assign(
        verdict=rows["verdict"].mask(false, "FALSIFIED"),
        radius=rows["radius"].mask(false, 0.0),
        failure_probability=rows["failure_probability"].mask(false, 0.0),
        reason=rows["reason"].mask(false, rows["image_id"].map(told)),
    )
    return rows, summary
