# The commands of the project. Each target sets up what it needs in .venv; the first run needs a package index.
PYTHON ?= python3
VENV   ?= .venv
SPEC   ?= openapi.yaml
ADMIN_SPEC ?= admin-openapi.yaml
# The script that starts the reference servers for test-live.
REFERENCE_SERVERS ?= ../shared/reference/servers.py
BIN    := $(VENV)/bin
PY     := $(BIN)/python
# The demo needs few packages, so its set-up takes seconds; the development set-up takes a minute.
DEMO   := $(VENV)/.runs
STAMP  := $(VENV)/.installed
BENCH  := $(VENV)/bench
OPERATORS := $(VENV)/.operators
RELEASE := $(VENV)/release
# Two workers per processor, because tests wait for processes and sockets. Each takes 5 s to read the tests, and more
# than eight wait for each other.
WORKERS ?= $(shell expr 2 '*' "$$(getconf _NPROCESSORS_ONLN)")
PIP    := -m pip install --quiet --disable-pip-version-check -c constraints.txt

# Tests of the project's own tools and texts. `make test` leaves them out, and runs the long ones of the others in short
# form (`tests/support/short.py`). `make check` runs all of them in full.
TOOL_TESTS := tests/client/test_option_errors.py tests/client/test_reprs.py tests/conformance \
  tests/embedded/test_schemathesis.py tests/embedded/test_testing_page.py tests/generator/test_checks.py \
  tests/generator/test_coverage.py tests/generator/test_mutated_specs.py tests/generator/test_new_servers.py \
  tests/generator/test_overlay.py tests/generator/test_pipeline.py tests/generator/test_requests_match_the_schemas.py \
  tests/generator/test_spec_diff.py tests/generator/test_spec_structure.py tests/integrations/test_examples.py \
  tests/mutation tests/operators/test_help.py tests/options/test_complete.py \
  tests/performance/test_benchmark_imports.py tests/project/test_assertions.py tests/project/test_audit.py \
  tests/project/test_background_start.py tests/project/test_citations.py tests/project/test_demo.py \
  tests/project/test_import_rules.py tests/project/test_messages.py tests/project/test_packaging.py \
  tests/project/test_pages.py tests/project/test_protocol_pages.py tests/project/test_requirements.py \
  tests/project/test_size.py tests/project/test_structure.py tests/project/test_worker_reports.py \
  tests/simulation tests/structure/test_warm.py tests/test_docs.py tests/website
LEFT_OUT = $(if $(TOOL_TESTS),-p no:schemathesis $(TOOL_TESTS:%=--ignore=%))

.DEFAULT_GOAL := help
.PHONY: help bench-exact demo demo-fleet test simulate simulate-planted simulate-calls mutate test-random test-faults test-stores test-live test-providers install-providers test-operators install-operators test-bars test-shares test-agents install-agents test-all check generate generate-check spec-diff format bench build clean messages size test-integrations install-integrations test-family install-family docs docs-serve docs-outputs diagrams test-docs compare api test-package test-lowest test-free-threaded audit lock release-files

help:  ## list the targets
	@echo "make TARGET [PYTHON=python3.13] [VENV=.venv]"
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 19

# pip's output as the names of the packages on one line, and its errors; the exit status is that of pip.
define SHOW_PROGRESS
/^exit [0-9]+$$/ { status = $$2; next } \
/^Collecting / { sub(/[^A-Za-z0-9_.-].*/, "", $$2); printf "%s ", $$2; fflush(); next } \
/^Installing collected/ { print ""; print "installing"; next } \
/ERROR|error:/ { print } \
END { exit status }
endef

# An interrupted set-up has an interpreter but no pip, so it is made again.
define set_up
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: $(PYTHON) is not Python 3.11 or newer; choose another: make $(or $(MAKECMDGOALS),demo) PYTHON=python3.13"; \
	  exit 1; }
	@echo "setting up $(VENV) for $(1) (only this once)"
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
endef

$(OPERATORS): $(STAMP) tests/operators/install.sh tests/operators/requirements.txt tests/operators/npm.txt
	@VENV=$(VENV) sh tests/operators/install.sh

$(DEMO): pyproject.toml constraints.txt
	$(call set_up,the demo)
	@{ $(PY) -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt -e '.[run]' 2>&1; \
	  echo "exit $$?"; } | awk '$(SHOW_PROGRESS)'
	@touch $@

$(STAMP): pyproject.toml requirements/dev.txt
	$(call set_up,development; this takes a minute)
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(PY) -m pytest -qq --collect-only >/dev/null 2>&1 || true  # compiles the tests, or each worker would
	@touch $(DEMO) $@

demo: $(DEMO)  ## watch agents spend budgets until a call is denied (20 s, and a set-up the first time)
	@$(PY) examples/demo.py

test: $(STAMP)  ## run the tests of the package; those of tools and texts, and the simulation, only run in `make check`
	$(if $(TOOL_TESTS),SHORT_TESTS=1) $(PY) -m pytest -n $(WORKERS) --maxprocesses 8 --dist worksteal $(LEFT_OUT)

test-random: $(STAMP)  ## run the tests in random order in New York, and note which lines they run, for mutate (ORDER=seed CHANGED=commits SHORT_TESTS=1: those of make test)
	@$(PY) $(PIP) 'coverage>=7.6,<8'
	TZ=America/New_York $(PY) -m tests.mutation.random_order $(ORDER) $(if $(CHANGED),--changed $(CHANGED)) $(if $(SHORT_TESTS),--pytest $(LEFT_OUT))

simulate: $(STAMP)  ## run the simulation of the whole system (SEEDS=1000, SEED=n for one with its trace, MINUTES=m)
	PYTHONHASHSEED=0 $(PY) -m tests.simulation.run $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),1000)) $(if $(FIRST),--first $(FIRST)) $(if $(MINUTES),--minutes $(MINUTES))

simulate-planted: $(STAMP)  ## show that the simulation finds planted faults, and after how many seeds
	$(PY) -m tests.simulation.planted

simulate-calls: $(STAMP)  ## run the simulation of calls that wait for budget, and its planted faults (SEEDS=5000, FIRST=n)
	PYTHONHASHSEED=0 $(PY) -m tests.simulation.calls --seeds $(or $(SEEDS),5000) $(if $(FIRST),--first $(FIRST))
	PYTHONHASHSEED=0 $(PY) -m tests.simulation.calls_planted

mutate: $(STAMP)  ## plant random faults, and print which the tests find (MODULES="_core _http" SAMPLE=200 FIRST=n CHANGED=commits MINUTES=m)
	@$(PY) $(PIP) 'coverage>=7.6,<8'
	@$(PY) -m tests.mutation.run $(MODULES) --sample $(or $(SAMPLE),200) --first $(or $(FIRST),0) \
	  $(if $(CHANGED),--changed $(CHANGED),--stores) $(if $(MINUTES),--minutes $(MINUTES))

test-stores: $(STAMP)  ## run the tests of journal stores on a private redis-server, PostgreSQL and PgBouncer
	@$(PY) $(PIP) -e '.[redis,postgres]' 'psycopg[binary]>=3.1,<4'
	$(PY) -m tests.stores.servers

demo-fleet: $(STAMP)  ## kill half of a fleet that shares a journal in Redis, and compare the sums (needs redis-server)
	@$(PY) $(PIP) -e '.[redis]'
	@$(PY) examples/fleet/run_fleet.py

test-faults: $(STAMP)  ## run 200 mixed guards while the server is killed, stopped and restored; 10,001 tasks, 1,000 threads
	CYCLES_FAULT_GUARDS=200 CYCLES_LOAD_TASKS=10001 CYCLES_LOAD_THREADS=1000 $(PY) -m pytest -q -p no:xdist \
	  tests/live/test_faults.py tests/performance/test_many_callers.py

test-live: $(STAMP)  ## run the contract and the fault runs on the reference servers (REFERENCE_SERVERS=FILE)
	$(PY) -m tests.live.run $(REFERENCE_SERVERS)

test-providers:  ## run the tests of provider clients with the lowest and the newest versions of each SDK
	@PYTHON=$(PYTHON) VENV=$(VENV) WORKERS=$(WORKERS) sh tests/providers/run_versions.sh

install-providers:  ## install the versions of each SDK that test-providers needs; fail if one cannot be installed
	@PYTHON=$(PYTHON) VENV=$(VENV) sh tests/providers/run_versions.sh install

install-operators: $(STAMP)  ## install the browser and the packages that test-operators needs
	@VENV=$(VENV) sh tests/operators/install.sh

test-operators: $(OPERATORS)  ## run the tests of the command line, the guard proxy and the dashboard as processes
	CYCLES_OPERATORS=1 $(PY) -m pytest -q -n $(WORKERS) --maxprocesses 4 --dist loadfile tests/operators

test-bars: $(OPERATORS)  ## check the times of the dashboard and of many callers; nothing else may run on the machine
	CYCLES_OPERATORS=1 CYCLES_BARS=1 $(PY) -m pytest -q -p no:xdist tests/operators/test_dashboard_bars.py tests/performance/test_many_callers.py

test-shares: $(STAMP)  ## run 1,000 random trees of shares; make test-operators runs 100 (TREES=n)
	CYCLES_OPERATORS=1 CYCLES_SHARE_TREES=$(or $(TREES),1000) $(PY) -m pytest -q -p no:xdist tests/operators/test_shares.py

install-agents: $(STAMP)  ## install the coding agents of test-agents (NAMES="claude codex gemini aider" for some)
	@VENV=$(VENV) PYTHON=$(PYTHON) NAMES="$(NAMES)" sh tests/agents/install.sh

test-agents: $(STAMP)  ## run real coding agents under cycles run against a fake provider (AGENTS="Codex aider" fails without them)
	$(PY) -m tests.agents $(VENV)/agents $(AGENTS)

test-family:  ## run the examples of the other clients for this protocol, unchanged, against cycles dev
	@PYTHON=$(PYTHON) VENV=$(VENV) sh tests/family/run.sh

install-family:  ## install what test-family needs; fail if it cannot be had
	@PYTHON=$(PYTHON) VENV=$(VENV) sh tests/family/run.sh install

test-integrations:  ## run the tests of integrations with the lowest and the newest version of each framework
	@PYTHON=$(PYTHON) VENV=$(VENV) WORKERS=$(WORKERS) sh tests/integrations/run_versions.sh

install-integrations:  ## install the versions that test-integrations needs; fail if one cannot be installed
	@PYTHON=$(PYTHON) VENV=$(VENV) sh tests/integrations/run_versions.sh install

test-all:  ## run the tests on every supported Python that is installed
	@for python in python3.11 python3.12 python3.13 python3.14; do \
	  if $$python -c '' 2>/dev/null; then \
	    echo "== $$python"; $(MAKE) --no-print-directory test PYTHON=$$python VENV=$(VENV)/$$python || exit 1; \
	  else echo "== $$python: not found, skipped"; fi; done

check: $(STAMP)  ## format, lint, types, import rules, generated tree, all tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(MAKE) --no-print-directory generate-check
	$(MAKE) --no-print-directory test TOOL_TESTS=

generate: $(STAMP)  ## regenerate cycles_client from SPEC=openapi.yaml, cycles_admin_client from ADMIN_SPEC=admin-openapi.yaml
	$(PY) -m generator $(SPEC)
	$(PY) -m generator --admin $(ADMIN_SPEC)

generate-check: $(STAMP)  ## fail if a generated package differs from what its document generates
	$(PY) -m generator --check
	$(PY) -m generator --admin --check

spec-diff: $(STAMP)  ## compare OLD=... and NEW=...: changes, and which of them break users (JSON=1: as JSON)
	@$(PY) -m generator.diff $(OLD) $(NEW) $(if $(JSON),--json)

size: $(STAMP)  ## print how much there is to read, with limits: code lines, files of a warm call; fail above a limit
	@$(PY) -m tests.project.size

messages: $(STAMP)  ## print every error, warning, event and log message of the package as one page
	@$(PY) -m tests.support.messages

format: $(STAMP)  ## format, and fix lint errors that can be fixed automatically
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(BENCH)/.installed  ## measure, side by side, in one interleaved run (BENCH_ARGS=--quick for a short one)
	$(BENCH)/bin/python -m benchmarks $(BENCH_ARGS)

bench-exact: $(STAMP)  ## measure how much of a budget calls can use, and what is denied (BENCH_ARGS=--quick for a short one)
	$(PY) -m benchmarks.exact $(BENCH_ARGS)

.PHONY: overspend
overspend: $(STAMP)  ## run this product and other tools against a provider that keeps the bill (TOOLS=G,R CASES=parallel QUICK=1 WRITE=1)
	VENV=$(VENV) $(PY) -m benchmarks.overspend --tools "$(TOOLS)" --cases "$(CASES)" $(if $(QUICK),--quick) $(if $(WRITE),--write)

$(BENCH)/.installed: pyproject.toml constraints.txt benchmarks/requirements.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python $(PIP) -e .
	@for package in $$(cat benchmarks/requirements.txt); do \
	  $(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check $$package \
	    || echo "bench: $$package cannot be installed; its rows are skipped"; done
	@touch $@

docs: $(STAMP)  ## build the documentation site in build/site; a broken link or a missing docstring fails
	$(PY) -m website

docs-serve: docs  ## build the documentation site and show it on http://127.0.0.1:8000
	$(PY) -m http.server --bind 127.0.0.1 --directory build/site 8000

docs-outputs: $(STAMP)  ## run the commands that the pages show, and renew their output in the pages
	$(PY) -m website --renew-outputs
	$(PY) -m website.tutorial

diagrams: $(STAMP)  ## draw docs/diagrams/*.mmd again (needs npm and Chromium)
	$(PY) -m website.diagrams

test-docs: $(OPERATORS)  ## build the site, look at it in Chromium, and run the tutorial in a clean environment
	CYCLES_TEST_SITE=1 $(PY) -m pytest -q -p no:xdist tests/website

compare: $(BENCH)/.installed  ## run every failure with this SDK and with runcycles, and renew docs/comparison.md
	$(BENCH)/bin/python -m benchmarks.failures --write docs/comparison.md

api: $(STAMP)  ## write the public names and signatures into tests/project/public_api.txt
	$(PY) -m tests.project.public_api

$(RELEASE)/.installed: pyproject.toml constraints.txt
	@test -x $(RELEASE)/bin/pip || $(PYTHON) -m venv $(RELEASE)
	@$(RELEASE)/bin/python $(PIP) -e '.[release]'
	@touch $@

test-package: $(RELEASE)/.installed  ## build twice, install each extra and all of them, check the types, run the demo offline
	$(RELEASE)/bin/python -m release.package

test-lowest: $(RELEASE)/.installed  ## run the tests in short form with the lowest versions of all dependencies
	$(RELEASE)/bin/python -m release.lowest $(VENV)/lowest

test-free-threaded: $(RELEASE)/.installed  ## run the tests on free-threaded Python (3.13t, 3.14t), on each that is installed
	$(RELEASE)/bin/python -m release.free_threaded $(VENV)/free-threaded

audit: $(RELEASE)/.installed  ## look for secrets and for known vulnerabilities
	$(RELEASE)/bin/python -m release.audit

lock: $(RELEASE)/.installed  ## resolve the development requirements again: requirements/dev.txt and constraints.txt
	$(RELEASE)/bin/python -m release.lock

release-files: $(RELEASE)/.installed  ## make the files of a release in dist/, with bill of materials and licences
	$(RELEASE)/bin/python -m release.files

build: $(STAMP)  ## build sdist and wheel into dist/
	$(PY) -m build

clean:  ## remove the files that the other targets made
	rm -rf $(VENV) dist build .ruff_cache .mypy_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
