"""What `certbench import` is asked for: logs, and what they do not say of themselves."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class LogFile:
    """One published log, and what it does not say of itself.

    Attributes:
        path: the file.
        name: of its entry on the board, and of its classifier.
        source: where it comes from: an address or a citation.
        alpha: failure probability per image.
        sigma: of the noise, where known.
        n: samples per image, where known.
        certifier: the method, where it is not the one that writes such files.
    """

    path: Path
    name: str
    source: str
    alpha: float = 0.001
    sigma: float | None = None
    n: int | None = None
    certifier: str | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """Logs that belong on one board.

    Attributes:
        run: name of the run that they become.
        title: of its board; empty for its name.
        dataset: that the images are of; empty for that of the run beside.
        split: its part; empty for that of the run beside.
        norm: of the radii; empty for that of the run beside.
        radii: of the board as written; none for multiples of `STEP` up to the largest radius.
        images: how many images a whole log has, where the data set does not say it.
        labels: a Cohen-format log of the same images, for logs that name no classes.
        first_id: the id here of the image that logs call 0.
    """

    run: str
    title: str = ""
    dataset: str = ""
    split: str = ""
    norm: str = ""
    radii: tuple[str, ...] = ()
    images: int | None = None
    labels: Path | None = None
    first_id: int = 0
