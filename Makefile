# Everything needs Python 3.11 and make; the rest is fetched, pinned by hash, into .venv.
# Set-up chatter goes to stderr, so that what a target prints on stdout is its result.

.DEFAULT_GOAL := help
SHELL := /bin/sh

# The first interpreter that is a Python 3.11, whatever it is called here.
PYTHON ?= $(shell for name in python3.11 python3 python; do \
	command -v $$name >/dev/null 2>&1 \
	&& $$name -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1 \
	&& command -v $$name && break; done)
BIN := .venv/bin
LOCKS := requirements/bootstrap.txt requirements/dev.txt pyproject.toml
STAMP := .venv/.locked-$(shell cat $(LOCKS) | cksum | tr ' ' '-')

# make demo SECONDS=20 JSON=1
SECONDS ?=
JSON ?=
# make test ARGS="tests/engine -x"
ARGS ?=

.PHONY: help venv demo test check bench format doctor servers lock clean

help:
	@echo "make demo      a synthetic market, everything embedded (SECONDS=20 JSON=1)"
	@echo "make test      the whole suite, real Kafka, Postgres, QuestDB and Redis included"
	@echo "make check     lint, types and the fast tests"
	@echo "make bench     measure on two cores for half an hour; rewrites docs/benchmarks.md"
	@echo "make doctor    name what this machine lacks, before anything is downloaded"
	@echo "make venv      .venv from the locks; make servers: the real servers"
	@echo "make format    format the code; make lock: renew the locks; make clean"

venv: $(STAMP)

$(STAMP): $(LOCKS)
	@if [ -z "$(PYTHON)" ]; then \
		echo "repricer: no Python 3.11 found as python3.11, python3 or python." >&2; \
		echo "  Install it (Debian: apt-get install python3.11 python3.11-venv) or name it:" >&2; \
		echo "  make venv PYTHON=/path/to/python3.11" >&2; exit 1; fi
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "repricer: $(PYTHON) cannot make a virtual environment." >&2; \
		echo "  Debian keeps that apart: apt-get install python3.11-venv" >&2; exit 1; }
	@echo "repricer: making .venv from the locks" >&2
	@test -x $(BIN)/uv || { $(PYTHON) -m venv --clear .venv >&2 \
		&& $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input \
			--require-hashes -r requirements/bootstrap.txt >&2; }
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes \
		requirements/dev.txt >&2
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation \
		--editable . >&2
	@rm -f .venv/.locked-* && touch $(STAMP)

demo: venv
	@$(BIN)/repricer demo $(if $(SECONDS),--seconds $(SECONDS)) $(if $(JSON),--json)

test: venv servers
	@$(BIN)/python -m pytest $(ARGS)

check: venv
	@$(BIN)/ruff check . >&2
	@$(BIN)/ruff format --check . >&2
	@$(BIN)/mypy >&2
	@$(BIN)/python -m pytest -m "not servers and not slow" $(ARGS)

bench: venv servers
	@$(BIN)/python -m perf.bench $(ARGS)

format: venv
	@$(BIN)/ruff check --fix . >&2
	@$(BIN)/ruff format . >&2

doctor:
	@if [ -z "$(PYTHON)" ]; then \
		echo "missing  python 3.11: apt-get install python3.11 python3.11-venv"; exit 1; fi
	@$(PYTHON) cluster/doctor.py

servers: venv
	@$(BIN)/python -m cluster.servers install >&2

# The locks name versions and hashes and never a registry's address.
COMPILE = $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

lock: venv
	@$(COMPILE) requirements/bootstrap.in -o requirements/bootstrap.txt
	@$(COMPILE) requirements/runtime.in -o requirements/runtime.txt
	@$(COMPILE) requirements/dev.in -c requirements/runtime.txt \
		-c requirements/bootstrap.txt -o requirements/dev.txt
	@$(COMPILE) requirements/exam.in -o requirements/exam.txt
	@$(COMPILE) cluster/servers/jre.in -o cluster/servers/jre.txt
	@for peer in perf/peers/*.in; do $(COMPILE) $$peer -o $${peer%.in}.txt || exit 1; done

clean:
	@rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
