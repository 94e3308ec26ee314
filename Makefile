# Makefile: everything from a fresh clone. `make demo` and `make test` set up what they need in .venv.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
export CMAKE_BUILD_PARALLEL_LEVEL ?= $(JOBS)

BUILD_OPTIONS ?=# of the package, as in `-C cmake.define.NL_SANITIZE=ON`
RUN ?=# what stands before the tests' interpreter
ARGS ?=# of pytest or the benchmarks
PEERS ?=# libraries that the tests also compare with, as in PEERS=torch
PYTEST := $(RUN) $(BIN)/python -m pytest

.PHONY: help venv build demo test smoke accuracy sanitize lint bench clean test-once

help:
	@echo "make demo      train on handwritten digits, eager and traced; writes demo.html"
	@echo "make test      run the tests, on the machine's instruction level and on the lowest one"
	@echo "make smoke     five seconds of tests that touch every part"
	@echo "make build     (re)build the package into .venv, editable"
	@echo "make sanitize  build with ASan and UBSan and run the tests under them"
	@echo "make lint      ruff, mypy, clang-format"
	@echo "make bench     our times beside those of the libraries that are installed"
	@echo "make accuracy  measure the errors of all functions anew (half an hour) and write docs/accuracy.md"
	@echo "make clean     remove everything built"

# ---- the environment; each file says that a step was done ----

$(VENV)/.ready: tools/check_setup.sh pyproject.toml
	@sh tools/check_setup.sh "$(PYTHON)"
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) "scikit-build-core>=0.10" "cython>=3.0.10" "pybind11>=2.13" "numpy>=2.0" cmake ninja
	touch $@

$(VENV)/.demo: $(VENV)/.ready
	$(PIP) scikit-learn
	touch $@

$(VENV)/.test: $(VENV)/.demo
	$(PIP) pytest mpmath safetensors $(PEERS)
	touch $@

$(VENV)/.lint: $(VENV)/.ready
	$(PIP) ruff mypy clang-format
	touch $@

venv: $(VENV)/.ready

# Without build isolation the build folder stays, so that a rebuild compiles only what has changed.
build: $(VENV)/.ready
	$(PIP) --no-build-isolation --no-deps $(BUILD_OPTIONS) --editable .

# ---- what it is for ----

demo: build $(VENV)/.demo
	$(BIN)/python examples/digits.py

test: test-once
	NEURLANG_ISA=$$($(BIN)/python -c "from neurlang import _tensor; print(_tensor.isa_supported()[0])") $(PYTEST) $(ARGS)

accuracy: build $(VENV)/.test
	cd tests && ../$(BIN)/python -m ops.accuracy

smoke: build $(VENV)/.test
	$(PYTEST) -q tests/test_smoke.py

test-once: build $(VENV)/.test
	$(PYTEST) $(ARGS)

# The interpreter is not instrumented, so the sanitizer's library must be loaded before it, and leaks, of which the
# interpreter has its own, are not looked for.
sanitize:
	$(MAKE) test-once VENV=$(VENV)-sanitize \
	    BUILD_OPTIONS="-C build-dir=build-sanitize -C cmake.define.NL_SANITIZE=ON -C install.strip=false" \
	    RUN="env ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	    LD_PRELOAD='$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)'"

lint: build $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(find csrc -name '*.[ch]pp' -o -name '*.h')

bench: build
	$(BIN)/python -m benchmarks $(ARGS)

clean:
	rm -rf build build-sanitize dist $(VENV) $(VENV)-sanitize demo.html
