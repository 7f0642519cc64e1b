# `make help` lists the commands. Settings may follow a command: make run RELAY_URL=wss://... BACKFILL_DAYS=-1
# (make hands what stands on its command line to the environment of what it runs).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input install

.DEFAULT_GOAL := help
.PHONY: help run demo test debian check docs-check bench fuzz chaos mutants mutants-random up down status requirements clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/local.stamp ## A relay's firehose through Kafka into Postgres, until it has caught up
	@$(BIN)/python -m streams.local run

demo: $(VENV)/local.stamp ## The same with the development relay, in its own topic and schema
	@$(BIN)/python -m streams.local run --demo

# Most of the tests' time is waiting, so several processes run them, each with its own Kafka and Postgres; then, whatever
# came of those, the tests that measure time or pace, one by one.
TEST_PROCESSES ?= 5
test: $(VENV)/dev.stamp debian ## All tests, on real Kafka and Postgres; `make check` is one of them
	@$(BIN)/python -m pytest -m "not alone" -n $(TEST_PROCESSES) --no-loadscope-reorder; together=$$?; \
	$(BIN)/python -m pytest -m alone; alone=$$?; \
	exit $$((together ? together : alone))

# What some tests use and no Python package holds: a browser for the live page, a pooler in front of Postgres. All of it is
# Debian's: root on a machine with apt gets it. A line for each: a command that proves it is there, and its packages.
# A Docker engine, on which docker-compose.yml is run, is for CI alone: on a machine that is used it would be a service.
CHROMIUM = chromium-headless-shell
debian: ## What tests use besides Python, where root and apt can get it
	@PATH="$$PATH:/usr/sbin:/usr/local/sbin"; missing=; \
	has() { for name; do command -v "$$name" >/dev/null 2>&1 && return; done; return 1; }; \
	has $(CHROMIUM) chromium chromium-browser google-chrome || missing="$$missing $(CHROMIUM) fonts-dejavu-core"; \
	has pgbouncer || missing="$$missing pgbouncer"; \
	[ -z "$$CI" ] || has dockerd || missing="$$missing docker.io iptables"; \
	[ -n "$$missing" ] || exit 0; \
	if [ "`id -u`" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then \
		echo "Not here:$$missing. The tests that use them are skipped. Install them (Debian: apt install$$missing)."; exit 0; fi; \
	began=`date +%s`; echo "installing$$missing ..."; export DEBIAN_FRONTEND=noninteractive; \
	apt-get -qq update >/dev/null 2>&1 </dev/null; \
	for package in $$missing; do apt-get -qq install -y --no-install-recommends $$package >/dev/null 2>&1 </dev/null \
	|| echo "$$package could not be installed: the tests that use it are skipped."; done; \
	echo "installed what could be, $$((`date +%s` - began)) s"

check: $(VENV)/dev.stamp ## Lint, format, types, layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

docs-check: $(VENV)/dev.stamp ## Every command of the documents, executed or held against what exists
	@$(BIN)/python -m pytest -q tests/acceptance/test_docs_commands.py

BENCH ?=
bench: $(VENV)/local.stamp ## Events a second and CPU microseconds an event; BENCH="--events 200000 --runs 3 --against HEAD~1"
	@$(BIN)/python -m benchmarks $(BENCH)

FUZZ ?= --frames 100000 --messages 20000 --rows 20000
fuzz: $(VENV)/dev.stamp ## Bad input at scale; FUZZ="--frames 1000000 --seed 7" for more or other cases
	@nice -n 10 $(BIN)/python -m tests.fuzz $(FUZZ)

CHAOS ?= --seed 1 --faults 200
chaos: $(VENV)/dev.stamp ## Everything breaks at random, for a quarter of an hour; CHAOS="--seed 7 --faults 2000" for hours
	@$(BIN)/python -m tests.chaos $(CHAOS)

mutants: $(VENV)/dev.stamp ## Known bugs, put in one at a time: each must be caught by a named test
	@$(BIN)/python -m tests.mutants

RANDOM_MUTANTS ?= --seed 1 --edits 400
mutants-random: $(VENV)/dev.stamp ## Random edits of the pure modules: unit tests must catch 95 % of them; RANDOM_MUTANTS="--seed 7"
	@nice -n 10 $(BIN)/python -m tests.mutants.random_edits $(RANDOM_MUTANTS)

up: $(VENV)/local.stamp ## Start the embedded Kafka and Postgres and leave them running
	@$(BIN)/python -m streams.local up

down: $(VENV)/local.stamp ## Stop them; the data stays in .local
	@$(BIN)/python -m streams.local down

status: $(VENV)/local.stamp ## What is up, and what it takes
	@$(BIN)/python -m streams.local status

clean: ## Remove the virtual environment and caches (not the data)
	@rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# -- set-up: each stamp is made again when the pinned requirements or the project's metadata change.
$(VENV)/local.stamp: requirements/build.txt requirements/local.txt pyproject.toml | $(VENV)/python.stamp
	$(call install,requirements/local.txt)

$(VENV)/dev.stamp: requirements/build.txt requirements/dev.txt pyproject.toml | $(VENV)/python.stamp
	$(call install,requirements/dev.txt)
	@touch $(VENV)/local.stamp # dev holds local

$(VENV)/python.stamp:
	@command -v "$(PYTHON)" >/dev/null 2>&1 || { echo "No $(PYTHON) here: install Python 3.11 or newer, or name it: make PYTHON=/path/to/python3" >&2; exit 2; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed, and $(PYTHON) is `"$(PYTHON)" -V 2>&1`: name another, make PYTHON=python3.12" >&2; exit 2; }
	@began=`date +%s`; "$(PYTHON)" -m venv --clear $(VENV) || { echo "$(PYTHON) cannot make a virtual environment: install its venv module (Debian: python3-venv)" >&2; exit 2; }; \
	touch $@; echo "virtual environment in $(VENV): `"$(PYTHON)" -V`, $$((`date +%s` - began)) s"

# All that is pinned is published as wheels: no compiler is needed. Our own package is built with the pinned setuptools.
define install
@began=`date +%s`; echo "installing $(1) ..."; \
{ $(PIP) --require-hashes -r requirements/build.txt \
&& $(PIP) --require-hashes --no-build-isolation -r $(1) \
&& $(PIP) --no-build-isolation --no-deps --editable .; } \
|| { echo "Set-up failed: see above; it needs a network" >&2; exit 2; }; \
touch $@ && echo "installed $(1), $$((`date +%s` - began)) s"
endef

# -- the pins: `make requirements` after a change in pyproject.toml, with UPGRADE=--upgrade for newer versions. Needs uv.
UV ?= uv
UPGRADE ?=
COMPILE = $(UV) pip compile --quiet $(UPGRADE) --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links

requirements: ## Pin the requirements again from pyproject.toml (needs uv)
	@command -v "$(UV)" >/dev/null 2>&1 || { echo "uv is needed for this (pip install uv), or name it: make requirements UV=/path/to/uv" >&2; exit 2; }
	@echo 'setuptools>=77' | $(COMPILE) -o requirements/build.txt -
	@$(COMPILE) --extra dev -o requirements/dev.txt pyproject.toml
	@$(COMPILE) --extra local -c requirements/dev.txt -o requirements/local.txt pyproject.toml
	@$(COMPILE) -c requirements/dev.txt -o requirements/runtime.txt pyproject.toml
