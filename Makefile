# secateur: `make help` lists the targets.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

# Nothing we start phones home.
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := true
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export GIT_PYTHON_REFRESH := quiet
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
BENCH  := .venv-bench
BENCHED := $(BENCH)/.installed

.PHONY: help setup demo ui test check browser bench-accuracy bench-coverage bench-engine bench-pipeline clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## create .venv with the pinned dependencies (once)

$(STAMP): pyproject.toml deploy/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "secateur needs Python 3.11 or newer; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "installing (a few minutes the first time) ..."
	$(BIN)/pip install --quiet --constraint deploy/constraints.txt torch
	$(BIN)/pip install --quiet --constraint deploy/constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP) ## train a small model on real data, register it, compress it, compare
	@$(BIN)/secateur demo

ui: $(STAMP) ## open the MLflow UI and the Prefect UI on what the demo made
	@$(BIN)/secateur ui

check: $(STAMP) ## lint, types, import contracts
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache | tail -n 4

test: check browser ## all checks and the whole test suite
	@$(BIN)/pytest -n 2

browser: # the browser tests want Chromium; where it cannot be had they are skipped, and say so
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && echo "installing chromium for the browser tests ..." && \
	    { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } >/dev/null 2>&1; } || \
	  echo "there is no Chromium: the browser tests will be skipped"

$(BENCHED): $(STAMP) tests/bench/requirements.txt
	$(BIN)/python -m venv $(BENCH)
	@echo "installing the benchmark's model zoos and peers ..."
	$(BENCH)/bin/pip install --quiet --constraint deploy/constraints.txt torch
	$(BENCH)/bin/pip install --quiet --constraint deploy/constraints.txt --editable .
	grep -v torchvision tests/bench/requirements.txt > $(BENCH)/most.txt
	$(BENCH)/bin/pip install --quiet --no-deps $$(grep '^torchvision' tests/bench/requirements.txt)
	$(BENCH)/bin/pip install --quiet --constraint deploy/constraints.txt -r $(BENCH)/most.txt
	@touch $@

bench-coverage: $(BENCHED) ## prune every model of every suite, also with the peers (hours; resumes)
	@$(BENCH)/bin/python -m tests.bench.coverage --engine ours,torch-pruning,torch-kirigami --out .cache/coverage.jsonl
	@$(BENCH)/bin/python -m tests.bench.coverage --report .cache/coverage.jsonl --markdown
	@$(BENCH)/bin/python -m tests.bench.calibrated

bench-accuracy: $(BENCHED) ## accuracy after pruning, side by side with Torch-Pruning (hours; resumes)
	@$(BENCH)/bin/python -m tests.bench.accuracy --markdown --plot .cache/accuracy.png

bench-engine: $(BENCHED) ## seconds and memory of the engine, side by side with the peers
	@$(BENCH)/bin/python -m tests.bench.engine_speed
	@$(BENCH)/bin/python -m tests.bench.compensation_cost

bench-pipeline: $(STAMP) ## what the training step adds to a bare loop; what a flow adds to its steps, also in a crowded registry
	@$(BIN)/python -m tests.bench.pipeline --check 1.05
	@$(BIN)/python -m tests.bench.overhead --check

clean: ## remove what the demo made (the environment stays)
	rm -rf .secateur .cache
