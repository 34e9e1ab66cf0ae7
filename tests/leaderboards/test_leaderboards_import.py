import subprocess
import sys

import leaderboards


def test_reading_results_imports_no_torch_and_no_plots() -> None:
    heavy = {"torch", "certifiers", "ensembles", "bench", "matplotlib"}
    code = f"import sys, leaderboards; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_map_names_what_exists() -> None:
    assert all(hasattr(leaderboards, name) for name in leaderboards.__all__)
