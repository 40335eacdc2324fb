# Two commands: `make run` simulates the shipped network and reports; `make test` proves the tree. Each makes its own environment.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help environment run test cosim-long clean

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OUT := out
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PATH := $(CURDIR)/$(BIN):$(PATH)

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1 - /p' Makefile

environment: $(READY) ## create .venv and install everything into it

$(READY): pyproject.toml .ci/setup
	@.ci/setup $(VENV)
	@touch $@

run: $(READY) ## simulate digits-cnn, co-simulate it, write report, Verilog and figure
	@$(BIN)/accel run --out $(OUT)

test: $(READY) ## lint, format, types, then the tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	NUMBA_DISABLE_JIT=1 $(BIN)/pytest -m golden --durations=5
	$(BIN)/pytest

cosim-long: $(READY) ## 2,000 random cases of every block over pairwise-chosen builds; hours, goes on where it was stopped
	@$(BIN)/python -m accel.sim.long

clean: ## remove the environment and everything generated
	rm -rf $(VENV) $(OUT) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
