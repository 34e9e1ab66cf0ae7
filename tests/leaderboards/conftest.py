import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from leaderboards.badges import Badge
from leaderboards.board import Board, board_of
from leaderboards.records import Entry, Run, no_rows

HOSTILE = "<img src=x onerror=alert(1)> </script> | javascript:alert(1) $\\frac{1}{0}$ & [a](http://b.c)"


@pytest.fixture
def make_rows() -> Callable[..., pd.DataFrame]:
    """Rows of label 1 from radii; a None radius abstains, a negative one is certified for another class."""

    def make(radii: Sequence[float | None], **columns: Any) -> pd.DataFrame:
        count = len(radii)
        rows = pd.DataFrame(
            {
                "image_id": np.arange(count) * 10,
                "label": np.ones(count, dtype=np.int64),
                "clean_prediction": np.ones(count, dtype=np.int64),
                "prediction": [-1 if r is None else (2 if r < 0 else 1) for r in radii],
                "verdict": ["ABSTAINED" if r is None else "CERTIFIED" for r in radii],
                "radius": [0.0 if r is None else abs(float(r)) for r in radii],
                "failure_probability": np.full(count, 0.001),
                "forward_passes": np.full(count, 100, dtype=np.int64),
                "bound_passes": np.zeros(count, dtype=np.int64),
                "seconds": np.full(count, 0.5),
                "reason": ["abstained" if r is None else "" for r in radii],
            }
        )
        return rows.assign(**columns)

    return make


@pytest.fixture
def make_entry(make_rows: Callable[..., pd.DataFrame]) -> Callable[..., Entry]:
    def make(name: str, radii: Sequence[float | None] = (0.5, 1.0, None, -2.0), **changes: Any) -> Entry:
        fields: dict[str, Any] = {
            "dataset": "digits",
            "split": "test",
            "images_digest": "abc",
            "images": len(radii),
            "norm": "l2",
            "ensemble": "drt",
            "aggregation": "we",
            "certifier": "smoothing",
            "guarantee": "probabilistic",
            "status": "complete",
            "rows": make_rows(radii),
            "key": "k" * 64,
        }
        return Entry(name=name, **(fields | changes))

    return make


@pytest.fixture
def verified() -> Callable[[Entry], Entry]:
    """The entry with a certifier that was checked."""
    return lambda entry: replace(entry, conformance=Badge(certifier={}, level=2, kit=1, seed=7))


@pytest.fixture
def make_run() -> Callable[..., Run]:
    def make(*entries: Entry, radii: tuple[str, ...] = ("0", "0.5", "1")) -> Run:
        return Run("quick", "Quick board", "What it is.", radii, "name = 'quick'\n", entries)

    return make


@pytest.fixture
def three(make_entry: Callable[..., Entry]) -> Board:
    """On 200 images the second differs from the best by chance, the third by much."""
    generator = np.random.default_rng(0)
    radii = generator.random(200) + 0.3
    chance = generator.random(200)
    near = radii + np.where(chance < 0.05, -0.3, 0.0) + np.where(chance > 0.97, 0.3, 0.0)
    far = np.where(generator.random(200) < 0.5, radii - 0.29, radii)
    return board_of(
        [make_entry(name, values) for name, values in (("best", radii), ("near", near), ("far", far))], ["0.5", "1"]
    )


@pytest.fixture
def hostile_run(make_run: Callable[..., Run], make_entry: Callable[..., Entry]) -> Run:
    """Every text of a run is an attack; two entries are ranked, two have no numbers."""
    texts = {"ensemble": HOSTILE, "aggregation": HOSTILE, "certifier": HOSTILE, "guarantee": HOSTILE}
    texts |= {"key": HOSTILE, "parameters": {HOSTILE: HOSTILE}, "provenance": {HOSTILE: [HOSTILE]}}
    shared = {"dataset": HOSTILE, "split": HOSTILE, "images_digest": HOSTILE, "norm": HOSTILE}
    rows = {"rows": no_rows(), "images": 4}
    entries = (
        make_entry(HOSTILE, **texts, **shared),
        make_entry("_private $x$", (1.5, 1.0, 0.2, 0.1), **shared, details={"x": HOSTILE}),
        make_entry(HOSTILE + "2", status="unsupported", reason=HOSTILE, **texts, **shared, **rows),
        make_entry("later", status="incomplete", reason="3 of 4 images are missing", **shared, **rows),
    )
    return Run(HOSTILE, HOSTILE, HOSTILE, ("0", "8/255", "1"), f"```\n{HOSTILE}\n</code></pre>", entries)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium; without one, or without playwright, its tests are skipped."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra `dev`)")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("there is no chromium or google-chrome here")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def problems() -> list[str]:
    """What went wrong on a page, and what it asked the network for."""
    return []


@pytest.fixture
def opened(browser: Any, tmp_path: Path, problems: list[str]) -> Iterator[Callable[..., Any]]:
    """Opens HTML as a file; in the end there may be no problems."""
    contexts = []

    def open_page(html: str, view: str = "", width: int = 1280, scheme: str = "light") -> Any:
        path = tmp_path / "page.html"
        path.write_text(html, encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        # Violations of the policy are told on the console, as errors.
        page.on("console", lambda said: problems.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda asked: problems.append(asked.url) if asked.url.startswith("http") else None)
        page.goto(path.as_uri() + view)
        page.wait_for_selector("html.scripts", state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []
