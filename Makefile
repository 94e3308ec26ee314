# Makefile: everything from a fresh clone. `make demo` and `make test` set up what they need in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
export CMAKE_BUILD_PARALLEL_LEVEL ?= $(JOBS)

# What decides how the package is built; a change of anything else is found by CMake itself.
SETUP := pyproject.toml CMakeLists.txt

.PHONY: help venv build demo test sanitize lint bench clean

help:
	@echo "make demo      train on handwritten digits, eager and traced; writes demo.html"
	@echo "make test      run the tests, on the machine's instruction level and on the lowest one"
	@echo "make build     (re)build the package into .venv, editable"
	@echo "make sanitize  build with ASan and UBSan and run the tests under them"
	@echo "make lint      ruff, mypy, clang-format"
	@echo "make bench     our times beside those of the libraries that are installed"
	@echo "make clean     remove everything built"

# ---- environment ----

$(VENV)/.ready: tools/check_setup.sh pyproject.toml
	@sh tools/check_setup.sh "$(PYTHON)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "scikit-build-core>=0.10" "cython>=3.0.10" "pybind11>=2.13" "numpy>=2.0" cmake ninja
	touch $@

venv: $(VENV)/.ready

# Without build isolation the build folder is kept, so that a rebuild compiles only what changed.
build: venv
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --editable .

$(VENV)/.demo: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet scikit-learn
	touch $@

$(VENV)/.test: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet pytest mpmath safetensors scikit-learn
	touch $@

$(VENV)/.lint: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet ruff mypy clang-format
	touch $@

# ---- what it is for ----

demo: build $(VENV)/.demo
	$(BIN)/python examples/digits.py

test: build $(VENV)/.test
	$(PYTEST) $(ARGS)
	NEURLANG_ISA=$$($(BIN)/python -c "from neurlang import _tensor; print(_tensor.isa_supported()[0])") $(PYTEST) -q $(ARGS)

# The interpreter itself is not instrumented, so the sanitizer's library has to be there before it. Leaks are not looked
# for: the interpreter has its own.
sanitize: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --upgrade --target build/sanitize \
	    -C build-dir=build/sanitize-objects -C cmake.define.NL_SANITIZE=ON -C install.strip=false .
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so.6)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	PYTHONPATH=build/sanitize $(PYTEST) -q -p no:cacheprovider $(ARGS)

lint: build $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(find csrc -name '*.[ch]pp' -o -name '*.h')

bench: build
	$(BIN)/python -m benchmarks $(ARGS)

clean:
	rm -rf build dist $(VENV) demo.html
