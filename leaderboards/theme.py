"""What figures share: colours, and a drawing that touches no global state of matplotlib."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Theme:
    """The colours of a figure; `lines` are told apart with every common colour blindness."""

    paper: str
    ink: str
    rule: str
    lines: tuple[str, ...]


#: Okabe and Ito's colours without black and yellow, which vanish on one of the two papers.
LIGHT = Theme(
    paper="#ffffff",
    ink="#1c2430",
    rule="#d5dae1",
    lines=("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"),
)

#: The same hues, lighter.
DARK = Theme(
    paper="#161b22",
    ink="#e3e8ef",
    rule="#3a434f",
    lines=("#3D9FDB", "#F0813A", "#1FBF94", "#E09CC3", "#93D3F8", "#F5BC42"),
)


def svg_of(figure: Figure) -> str:
    """A figure as SVG; equal figures give equal bytes, and text stays text. Drawn within `quiet`."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def png_of(figure: Figure) -> bytes:
    """A figure as PNG at two pixels a point of a common screen (192 dpi). Drawn within `quiet`."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=192, metadata={"Software": None})
    return buffer.getvalue()


@contextmanager
def quiet() -> Iterator[None]:
    """Settings under which a figure is drawn and written, and no warnings of missing glyphs."""
    settings: dict[Any, Any] = {"svg.hashsalt": "certbench", "svg.fonttype": "none"}
    with mpl.rc_context(settings), warnings.catch_warnings():
        # Only the measure of a name in another script is approximate then; the text itself is right in SVG.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield
