# Every target sets up .venv by itself when it is missing or older than the files that define it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
REGRESS := results/regress
.PHONY: help setup leaderboard zoo board-deterministic lpd-figure2 boards test regress baseline check format bench clean

help:  ## Show this list.
	@sed -n 's/^\([a-z0-9-]*\):.*##/  make \1\t/p' $(MAKEFILE_LIST) | expand -t 30

setup: $(READY)  ## Create .venv with the exact versions of constraints.txt.

$(READY): pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "certbench needs Python >= 3.11, got " + sys.version.split()[0] + ". Choose another: make PYTHON=python3.11")'
	@echo "Setting up $(VENV) (once; a few minutes) ..." >&2
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,vision]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps auto-LiRPA==0.3
	@touch $@

leaderboard: $(READY)  ## Train, certify and publish the quickstart board (resumes if interrupted).
	$(BIN)/certbench run

zoo: $(READY)  ## Train and rank the published objectives (resumes if interrupted).
	$(BIN)/certbench run training-zoo

board-deterministic: $(READY)  ## Rank the deterministic certifiers, in linf and in l2 (resumes if interrupted).
	$(BIN)/certbench run deterministic-mnist5k
	$(BIN)/certbench run deterministic-mnist5k-l2

lpd-figure2: $(READY)  ## Lower bounds on margins, as in LPD's Figure 2 (needs Fashion-MNIST; resumes if interrupted).
	$(BIN)/certbench run lpd-figure2

boards: $(READY)  ## Make the page of every published board, and their index, from stored rows (computes nothing).
	$(BIN)/certbench pages

test: $(READY)  ## Run the tests, a process a core.
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

# A store of its own, made anew: rows that an older program stored would say nothing of this one.
regress: $(READY)  ## Run a small suite, and hold it against the baseline in leaderboards/published/ci.
	rm -rf $(REGRESS)
	$(BIN)/certbench run ci --output $(REGRESS)
	$(BIN)/certbench compare leaderboards/published/ci $(REGRESS) --margin 10 --json $(REGRESS)/gate.json --junit $(REGRESS)/gate.xml --markdown $(REGRESS)/gate.md

baseline: $(READY)  ## Make the last `make regress` the baseline: make baseline REASON="why".
	$(BIN)/certbench baseline $(REGRESS) --to leaderboards/published/ci --reason "$(REASON)"

check: $(READY)  ## Lint (ruff), types (mypy --strict), architecture (import-linter).
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)  ## Format the code and apply the safe fixes.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)  ## Measure speed, as ratios against plain references; trip at 1.25x.
	@mkdir -p results
	$(BIN)/python -m pytest bench/perf --benchmark-enable --benchmark-columns=median,iqr,rounds --benchmark-json=results/perf.json
	$(BIN)/python -m bench.tripwire results/perf.json

clean:  ## Remove .venv and caches; results/ stays.
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
