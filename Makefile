# make run, make test: both begin with setup, which does nothing when it is up to date.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: run test test-fast soak setup lint clean help

run: setup ## the demo: from a crawl to an evaluated model, in at most 10 minutes on 2 cores
	@$(BIN)/headrace run demo

test: setup ## every test that runs without a GPU, about an hour on 2 cores
	@$(BIN)/ruff check --no-cache .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/pytest -m "not gpu and not soak"

soak: setup ## the long tests of faults that make test leaves out
	@$(BIN)/pytest -m soak

test-fast: setup ## the tests of the inner loop, in under 3 minutes
	@$(BIN)/pytest -m "not slow and not gpu and not cluster and not clients and not soak"

setup: $(STAMP) ## makes .venv with headrace in it

# The lock holds the versions that were tested together; pyproject.toml holds the bounds within which others may work.
$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Headrace needs Python 3.11 or newer: make PYTHON=python3.11 …")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv (once; some minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[test]'
	@touch $(STAMP)

lint: setup
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

clean: ## removes .venv; checkpoints under .headrace stay
	rm -rf .venv

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/ —/'
