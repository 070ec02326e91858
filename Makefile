# Everything a contributor or a newcomer runs. Each target sets itself up in .venv; the first run needs a package index.
PYTHON ?= python3
VENV   ?= .venv
SPEC   ?= openapi.yaml
BIN    := $(VENV)/bin
PY     := $(BIN)/python
STAMP  := $(VENV)/.installed
BENCH  := $(VENV)/bench
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo test check generate generate-check spec-diff format bench build clean

help:  ## say what each target does
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 18

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)  ## run real guarded work against an embedded Cycles server
	@$(PY) examples/demo.py

test: $(STAMP)  ## run the tests
	$(PY) -m pytest -n $(WORKERS) --dist loadgroup

check: $(STAMP)  ## format, lint, types, import rules, generated tree, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(MAKE) --no-print-directory generate-check
	$(MAKE) --no-print-directory test

generate: $(STAMP)  ## regenerate cycles_client from SPEC (default openapi.yaml)
	$(PY) -m generator $(SPEC)

generate-check: $(STAMP)  ## fail when cycles_client is not what openapi.yaml gives
	$(PY) -m generator openapi.yaml --check

spec-diff: $(STAMP)  ## say what changed between OLD=... and NEW=... and what breaks (JSON=1: as JSON)
	@$(PY) -m generator.diff $(OLD) $(NEW) $(if $(JSON),--json)

format: $(STAMP)  ## format and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(BENCH)/.installed  ## measure, side by side, in one interleaved run (BENCH_ARGS=--quick for a short one)
	$(BENCH)/bin/python -m benchmarks $(BENCH_ARGS)

$(BENCH)/.installed: pyproject.toml constraints.txt benchmarks/requirements.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@for package in $$(cat benchmarks/requirements.txt); do \
	  $(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check $$package \
	    || echo "bench: $$package is not to be had here; its rows are skipped"; done
	@touch $@

build: $(STAMP)  ## build sdist and wheel into dist/
	$(PY) -m pip install --quiet build
	$(PY) -m build

clean:  ## remove what the other targets made
	rm -rf $(VENV) dist build .ruff_cache .mypy_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
