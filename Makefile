# make run    sets lcpu up in .venv and lets the embedded model tell a story
# make test   the same, with what the tests need, and runs them
# Needs Python 3.10 or newer and the package index, nothing else. Another Python: make PYTHON=python3.12 test

PYTHON ?= python3
PROMPT ?= Once upon a time, there was a little
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check

.PHONY: run test lint wheel clean
.DELETE_ON_ERROR:

run: $(VENV)/installed
	@$(BIN)/lcpu run -p "$(PROMPT)" </dev/null

test: $(VENV)/installed-test
	$(BIN)/python -m pytest

lint: $(VENV)/installed-lint
	$(BIN)/ruff check .
	@# mypy finds a package by its folder's name, and this folder may have any: it looks from beside a link named lcpu.
	@mkdir -p $(VENV)/types && ln -sfn "$(CURDIR)" $(VENV)/types/lcpu
	cd $(VENV)/types && ../bin/mypy -p lcpu --config-file lcpu/pyproject.toml

wheel: $(VENV)/installed
	@rm -rf build
	$(BIN)/python -m pip wheel -qq --disable-pip-version-check --no-deps --wheel-dir dist .
	@rm -rf build

clean:
	rm -rf $(VENV) build dist lcpu.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || \
	    { echo "error: lcpu needs Python 3.10 or newer, which '$(PYTHON)' is not; name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# A stamp per set of extras: installed anew when pyproject.toml changes; the code itself is used in place.
$(VENV)/installed: pyproject.toml | $(BIN)/python
	@$(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/installed-test: pyproject.toml | $(BIN)/python
	@$(PIP_INSTALL) --editable '.[test]'
	@touch $@ $(VENV)/installed

$(VENV)/installed-lint: pyproject.toml | $(BIN)/python
	@$(PIP_INSTALL) --editable '.[lint]'
	@touch $@ $(VENV)/installed
