# Every command does its own set-up first, which takes no time when nothing changed.
# `make run ARGS="--port 9000"` passes arguments on; `make PYTHON=/path/to/python3 …` names the Python.

PYTHON ?=
export PYTHON
SETUP = scripts/bootstrap
BIN = .venv/bin

.PHONY: help setup run test check bench chaos fuzz docs clean

help:
	@echo "make run     set up, then start everything on this machine"
	@echo "make setup   only the set-up"
	@echo "make test    every check: format, lint, types, imports, unit, integration, journeys, browser"
	@echo "make check   the quick ones of them"
	@echo "make bench   measure, beside peers, into benchmarks/results.json"
	@echo "make chaos   kill and hold up replicas, agents and the database, seed after seed, for ten minutes at most;"
	@echo "             then a hostile client for ten minutes, at the webhooks and the sockets"
	@echo "make fuzz    ask the Management API 20,000 things, good and bad: nothing but what it describes may come back"
	@echo "make docs    the documentation, into docs/_build/html"
	@echo "make clean   remove what was made in this clone"

setup:
	@$(SETUP)

run:
	@exec $(SETUP) -- $(BIN)/ocmt up $(ARGS)

check:
	@$(SETUP) --group dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/npm.py --prefix ui run check

test: check
	@$(BIN)/python scripts/browser.py
	@$(BIN)/python scripts/proxies.py
	$(BIN)/python scripts/npm.py --prefix ui test
	@marks=$$($(BIN)/python scripts/journeys.py $(if $(FRESH),--fresh)) && set -x && \
	  $(BIN)/pytest -m "$$marks" -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)
	@$(if $(ARGS),true,$(BIN)/python scripts/journeys.py --passed)

bench:
	@$(SETUP) --group dev
	$(BIN)/python -m benchmarks $(ARGS)

SEEDS ?= 1 2 3 4 5 6 7 8 9 10
HOSTILE_SECONDS ?= 600
chaos:
	@$(SETUP) --group dev
	@for seed in $(SEEDS); do \
	  OCMT_CHAOS_SECONDS=30 OCMT_CHAOS_SEED=$$seed $(BIN)/pytest tests/chaos -q -s --no-header || exit 1; \
	done
	OCMT_HOSTILE_SECONDS=$(HOSTILE_SECONDS) $(BIN)/pytest tests/hostile -q -s --no-header

CASES ?= 20000
fuzz:
	@$(SETUP) --group dev
	OCMT_FUZZ_CASES=$(CASES) $(BIN)/pytest tests/services/test_openapi.py tests/services/test_workflows.py -q -n0 --no-header

docs:
	@$(SETUP) --group dev --group docs
	$(BIN)/sphinx-build -W --keep-going -q docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean:
	rm -rf .venv ui/node_modules ui/dist docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache setup.log
	find src tests benchmarks scripts -name __pycache__ -type d -prune -exec rm -rf {} +
