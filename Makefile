# The two commands of a fresh machine: `make demo`, `make test`. Needs Python 3.11 or later, and make.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,$(shell $(name) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))
VENV := .venv
BIN := $(VENV)/bin
# On Linux, torch's default build carries CUDA. TORCH_VARIANT=cpu takes the small one from torch's own index.
TORCH_VARIANT ?=
# Python compiles what it loads when it first does, and keeps that; pip would compile ten times as much.
unexport PYTHONDONTWRITEBYTECODE
PIP_INSTALL := $(BIN)/python -m pip install --quiet --no-compile
TORCH_INDEX := $(if $(TORCH_VARIANT),--extra-index-url https://download.pytorch.org/whl/$(TORCH_VARIANT))

.PHONY: help demo serve test check chaos hostile bench format openapi audit clean

help: ## lists the commands
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

demo: $(VENV)/installed ## starts the service, fits gold and real data over HTTP, shows what came out
	$(BIN)/python examples/demo.py

serve: $(VENV)/installed ## starts the service at http://127.0.0.1:8000, data in ./mixserve-data
	$(BIN)/mixserve serve

test: $(VENV)/installed-dev ## runs every test, with a real PostgreSQL and a real browser
	$(BIN)/python tests/require_browser.py
	$(BIN)/python tests/require_spectral.py
	$(BIN)/pytest -n 2 --dist loadscope --no-loadscope-reorder  # the long ones are first

check: $(VENV)/installed-dev ## ruff, mypy --strict, import-linter
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

chaos: $(VENV)/installed-dev ## kills any process of a running service, a hundred times on each database
	$(BIN)/python -m tests.chaos --database sqlite
	$(BIN)/python -m tests.chaos --database postgresql

hostile: $(VENV)/installed-dev ## tries for about half an hour to break a running service with requests made to
	HOSTILE="at length" $(BIN)/pytest -n 0 tests/hostile

bench: $(VENV)/installed-dev ## measures what the service adds to a fit, its queue, and its answers to questions
	$(BIN)/python -m benchmarks.service_latency
	$(BIN)/python -m benchmarks.service_queue --database sqlite
	$(BIN)/python -m benchmarks.service_queue --database postgresql
	$(BIN)/python -m benchmarks.scoring_one_point
	$(BIN)/python -m benchmarks.scoring_many_points
	$(BIN)/python -m benchmarks.scoring_latency

format: $(VENV)/installed-dev ## puts the code in shape
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

audit: $(VENV)/installed-dev ## looks for known vulnerabilities in what is installed; needs the network
	$(PIP_INSTALL) pip-audit
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+[a-z0-9.]*$$//' > $(VENV)/audited.txt
	$(BIN)/pip-audit --strict --disable-pip --no-deps --requirement $(VENV)/audited.txt --progress-spinner off

openapi: $(VENV)/installed-dev ## writes openapi.json anew, as the service answers it
	$(BIN)/python -m scripts.write_openapi

clean: ## removes the environment and what runs leave behind
	rm -rf $(VENV) mixserve-data mixserve-demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "mixserve needs Python 3.11 or later; none was found on PATH"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) has no venv; on Debian: apt-get install python3-venv"; exit 1; }

$(VENV)/installed: $(VENV)/bin/python pyproject.toml
	$(PIP_INSTALL) $(TORCH_INDEX) "torch>=2.11,<2.14"
	$(PIP_INSTALL) --editable ".[plots]"
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP_INSTALL) --editable ".[dev]"
	@touch $@
