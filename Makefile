# Four words do everything: make setup | check | test | docs | demo.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.alter-setup

.PHONY: setup check test docs demo clean

setup: $(STAMP)

# torch comes first and alone: constraints.txt pins it to a build for CPUs where pip is set up to find one.
$(STAMP): pyproject.toml constraints.txt packages/alter-mini/pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "alter needs Python 3.11 or newer: make setup PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]' -e packages/alter-mini
	touch $(STAMP)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Two workers of one thread each: tests are many and small.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --durations=10

docs: $(STAMP)
	$(BIN)/python docs/build.py

demo: $(STAMP)
	$(BIN)/alter demo --output-dir runs/demo

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
