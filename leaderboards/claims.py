"""What rows may claim: certificates of a class, with a probability, and no radius without a certificate."""

from leaderboards.records import Entry


def wrong_claim(entry: Entry) -> str:
    """What no certifier may write, in a sentence, or nothing.

    `label >= 0`; `prediction >= 0` where CERTIFIED; `radius = 0` where not; `0 <= failure_probability < 1`, and 0 where
    a deterministic certifier has CERTIFIED. A CERTIFIED row of label -1 and prediction -1 would count as right.
    """
    rows = entry.rows
    certified, risk = rows["verdict"] == "CERTIFIED", rows["failure_probability"]
    # Each is what must hold: no comparison with NaN does.
    allowed = {
        "a label below 0": rows["label"] >= 0,
        "a certificate of no class": ~certified | (rows["prediction"] >= 0),
        "a radius without a certificate": certified | (rows["radius"] == 0),
        "a failure probability outside [0, 1)": (risk >= 0) & (risk < 1),
        "a failure probability, although it is deterministic": (risk == 0)
        | ~certified
        | (entry.guarantee != "deterministic"),
    }
    for what, holds in allowed.items():
        if not holds.all():
            images = rows["image_id"][~holds]
            more = f" and {len(images) - 1} others" if len(images) > 1 else ""
            return (
                f"Entry {entry.name!r} has {what}, at image {images.iloc[0]}{more}. The certifier that wrote it is "
                "wrong, or its rows were altered: run it again."
            )
    return ""
