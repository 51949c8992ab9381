# `make` or `make help` lists what there is. Every target does its own set-up first.
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long lint bench bench-all lock clean

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UNFINISHED := $(VENV)/.installing

# In the order of their folders the files with the longest tests come first.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# Without bytecode each process of the stack compiles everything it imports.
unexport PYTHONDONTWRITEBYTECODE

help: ## list the targets
	@echo "make TARGET, one of:"
	@sed -n 's/^\([a-z-]*\):.*## /  \1|/p' $(firstword $(MAKEFILE_LIST)) | while IFS='|' read -r name text; do \
		printf '  %-10s %s\n' $$name "$$text"; done

setup: $(STAMP) ## make .venv and install what requirements.lock names (PYTHON=… chooses an interpreter)
	@:

demo: $(STAMP) ## tell the whole story on a real stack (DATA=file of reservations, KEEP=1 leaves it up, ARGS=…)
	@$(BIN)/cancellations demo $(if $(DATA),--data '$(DATA)') $(if $(KEEP),--keep) $(ARGS)

test: $(STAMP) ## run the tests, a file on each core (ARGS=… goes to pytest)
	@$(PYTEST) $(ARGS)

test-long: $(STAMP) ## run all tests, those that take minutes too
	@$(PYTEST) -m "" $(ARGS)

lint: $(STAMP) ## style and types: ruff, mypy
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

bench: $(STAMP) ## run one benchmark: make bench NAME=scoring ARGS=--quick
	@test -n "$(NAME)" || { echo "which benchmark? make bench NAME=…, one of:" $$(ls benchmarks 2>/dev/null | sed -n 's/^\([a-z]*\)\.py$$/\1/p' | grep -E '^(batch|decisions|ingesting|latency|monitor|replay|scoring|serving|simulator|story)$$') >&2; exit 2; }
	@$(BIN)/python -m benchmarks.$(NAME) $(ARGS)

bench-all: $(STAMP) ## run all benchmarks, more than an hour of a machine that does nothing else, and write docs/results.md
	@$(BIN)/python -m benchmarks.everything $(if $(DATA),--data '$(DATA)') $(ARGS)

lock: $(STAMP) ## resolve requirements.lock anew from pyproject.toml
	@$(BIN)/uv pip compile --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--group dev --no-annotate --no-header pyproject.toml -o requirements.lock --quiet

clean: ## remove .venv, caches and the demo's home
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis var *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# 3.11 first: it is what requirements.lock was resolved and tested with.
$(STAMP): requirements.lock pyproject.toml
	@set -e; \
	usable() { command -v "$$1" >/dev/null && "$$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }; \
	python=; \
	for candidate in $(if $(PYTHON),'$(PYTHON)',python3.11 python3.12 python3.13 python3.14 python3); do \
		if usable "$$candidate"; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo "$(if $(PYTHON),$(PYTHON) is not a Python 3.11 or newer,no Python 3.11 or newer was found). Install one, or name it: make $(firstword $(MAKECMDGOALS) setup) PYTHON=/path/to/python3.11" >&2; exit 2; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
		echo "$$python lacks the modules venv and ensurepip. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; \
	fi; \
	if [ -e $(UNFINISHED) ]; then \
		other=$$(cat $(UNFINISHED)); \
		if kill -0 "$$other" 2>/dev/null; then \
			echo "process $$other is installing into $(VENV) now; wait for it" >&2; exit 1; \
		fi; \
		echo "an earlier set-up was interrupted: beginning anew"; rm -rf $(VENV); \
	fi; \
	echo "installing into $(VENV) with $$("$$python" --version) …"; \
	mkdir -p $(VENV); echo $$$$ >$(UNFINISHED); rm -f $(STAMP); \
	"$$python" -m venv $(VENV); \
	export PIP_DISABLE_PIP_VERSION_CHECK=1 VIRTUAL_ENV="$$PWD/$(VENV)"; \
	if { $(BIN)/python -m pip install --quiet uv \
		&& $(BIN)/uv pip install --quiet --require-hashes --compile-bytecode -r requirements.lock; }; then :; else \
		echo "uv could not install; trying pip, which takes longer …"; \
		$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock; \
	fi; \
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .; \
	mv $(UNFINISHED) $(STAMP); touch $(STAMP)
