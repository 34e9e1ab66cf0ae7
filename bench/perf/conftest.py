"""Ratios against plain references, interleaved in one run: machines are shared, so seconds alone mean little."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest

Work = Callable[[], object]
_RATIOS = pytest.StashKey[list[tuple[str, str]]]()


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Prints a line about this benchmark at the end of the run."""
    return lambda text: request.config.stash.setdefault(_RATIOS, []).append((request.node.name, text))


@pytest.fixture
def against(benchmark: Any, tell: Callable[[str], None]) -> Callable[..., float]:
    """`against(reference, engine)` times both in turn; returns the median of reference / engine.

    Above 1 the engine is faster. The ratio, its extremes and what one run of the engine does per second are
    kept with the benchmark (`extra_info`), and printed at the end.
    """

    def measure(reference: Work, engine: Work, *, amount: float, unit: str, rounds: int = 7) -> float:
        seconds: list[float] = []

        def time_reference() -> None:
            started = time.perf_counter()
            reference()
            seconds.append(time.perf_counter() - started)

        benchmark.pedantic(engine, setup=time_reference, rounds=rounds, warmup_rounds=1)
        if benchmark.stats is None:
            pytest.skip("ratios need --benchmark-enable")
        spent = benchmark.stats.stats.data
        ratios = [slow / fast for slow, fast in zip(seconds[-len(spent) :], spent, strict=True)]
        ratio = statistics.median(ratios)
        rate, plain = amount / statistics.median(spent), amount / statistics.median(seconds[-len(spent) :])
        benchmark.extra_info.update(ratio=ratio, ratio_min=min(ratios), ratio_max=max(ratios), unit=unit)
        benchmark.extra_info.update(per_second=rate, reference_per_second=plain)
        tell(
            f"{ratio:.2f}x the reference ({min(ratios):.2f} to {max(ratios):.2f}); "
            f"{rate:,.0f} {unit}/s beside {plain:,.0f}"
        )
        return ratio

    return measure


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the ratios, medians with extremes."""
    ratios = config.stash.get(_RATIOS, [])
    if ratios:
        terminalreporter.section("ratios of speed (median, with extremes), and memory")
        for name, text in ratios:
            terminalreporter.write_line(f"{name}: {text}")
