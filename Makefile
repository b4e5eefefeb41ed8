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
.PHONY: help setup demo ui test check clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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

test: check ## all checks and the whole test suite
	@$(BIN)/pytest -n 2

clean: ## remove what the demo made (the environment stays)
	rm -rf .secateur .cache
