# `make help` lists what there is. Everything installs what it lacks; nothing needs an active virtualenv.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo setup test scenarios lint check bench fuzz simulate chaos compose-check clean

help: ## This list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' Makefile

$(VENV)/core.stamp: setup.cfg pyproject.toml
	@PYTHON=$(PYTHON) deploy/make-venv.sh $(VENV)
	@echo "installing liteflow"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[sql]'
	@touch $@

$(VENV)/test.stamp: $(VENV)/core.stamp
	@echo "installing what the tests and linters need"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,dev]'
	@touch $@

demo: $(VENV)/core.stamp ## 1,000 orders from a file through a workflow, in this process, over SQLite
	@$(BIN)/python -m samples.orders

setup: $(VENV)/test.stamp ## A virtualenv in .venv with all that development needs
	@deploy/get-servers.sh $(BIN)/python

# Tests wait more than they compute, so two processes run them, each with servers of its own.
test: setup ## All tests, on real servers that are started for them; ARGS="tests/core -k name" for some
	@$(BIN)/python -m pytest $(or $(ARGS),-n 2 --dist loadfile --no-loadscope-reorder)

scenarios: setup ## All scenarios over all combinations of providers, or COMBINATIONS="sqlite+local+local ..."
	@LITEFLOW_TEST_SCENARIOS="$(or $(COMBINATIONS),all)" $(BIN)/python -m pytest tests/scenarios $(ARGS)

lint: $(VENV)/test.stamp ## ruff and mypy --strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

check: lint test ## What CI runs

bench: setup ## Measurements, see bench/README.md; NAME="W1 W2" RUNS=5 PEERS=restate,dbos
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,bench]'
	@$(BIN)/python -m bench $(NAME) $(if $(RUNS),--runs $(RUNS)) $(if $(PEERS),--peers $(PEERS)) $(ARGS)

MESSAGES ?= 100000
fuzz: $(VENV)/test.stamp ## Hostile messages and stored documents at gateway and codec: MESSAGES=1000000 SEED=1
	@PYTHONPATH=tests $(BIN)/python -m fuzz --messages $(MESSAGES) $(if $(SEED),--seed $(SEED))

SEEDS ?= 5000
simulate: $(VENV)/test.stamp ## Histories of a simulated cluster, checked for broken promises: SEEDS=50000 FIRST=1
	@$(BIN)/python -m liteflow.core.testing.simulation --seeds $(SEEDS) $(if $(FIRST),--first $(FIRST)) $(ARGS)

chaos: setup ## Hurt a cluster for SECONDS=600 and check every promise; SEED=n decides what happens when
	@PYTHONPATH=$(CURDIR):$(CURDIR)/tests $(BIN)/python -m chaos.run $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) $(ARGS)

compose-check: ## The compose file for real: three workers, one killed, orders from Node.js (needs Docker)
	@deploy/check-compose.sh

clean: ## Remove the virtualenv and caches
	rm -rf $(VENV) .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
