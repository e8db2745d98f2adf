# Two commands on a fresh machine: `make demo`, `make test`. Needs Python 3.11+ and a C++17 compiler.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TRAIN := .venv-train
PIP := pip --quiet --disable-pip-version-check
NATIVE := $(wildcard kernels/*.cpp kernels/*.h kernels/*/*.cpp kernels/*/*.h kernels/*/*.cu tests/kernels/emulator/*.h)
SOURCES := CMakeLists.txt pyproject.toml $(NATIVE)

.PHONY: demo test test-train test-aarch64 check bench bench-compare clean

demo: $(VENV)/installed
	$(BIN)/lithostream demo --out demo_run

test: $(VENV)/dev-installed
	$(BIN)/pytest

# The same tests with PyTorch installed (about 5 GB): adds those of training and export.
test-train: $(TRAIN)/installed
	$(TRAIN)/bin/pytest tests/training tests/export

# The kernels cross-built and their tests emulated (1 GB below build/aarch64, some minutes); not part of `test`.
test-aarch64:
	@PYTHON=$(PYTHON) cmake/test-aarch64

check: $(VENV)/dev-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(NATIVE)

# Interleaved passes beside peers, then the ratios; bench-compare fails where one got worse than BASELINE.
BASELINE ?= bench/baselines/two_cores.json
RUN := bench/results/latest.json

bench: $(VENV)/bench-installed
	@mkdir -p $(dir $(RUN))
	$(BIN)/pytest bench --benchmark-enable --benchmark-only --benchmark-min-rounds=3 --benchmark-max-time=0.2 --passes=8 --benchmark-json=$(RUN)
	$(BIN)/python bench/compare.py $(RUN)
	$(BIN)/python bench/ceiling.py $(RUN)

bench-compare: $(VENV)/dev-installed
	$(BIN)/python bench/compare.py $(BASELINE) $(RUN)

# Prerequisites first: each missing one ends in a single line that says what to install.
$(VENV)/created:
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is missing: install it (Debian: apt install python3 python3-venv)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed, this is $$($(PYTHON) -V): install it and run make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "Python's venv module is missing: install it (Debian: apt install python3-venv)"; exit 1; }
	@command -v $${CXX:-c++} >/dev/null || { echo "A C++17 compiler is missing: install one (Debian: apt install g++)"; exit 1; }
	@echo 'int main() { if constexpr (true) return 0; }' | $${CXX:-c++} -std=c++17 -x c++ -fsyntax-only - 2>/dev/null || { echo "$${CXX:-c++} does not compile C++17: install a newer one (Debian: apt install g++)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/installed: $(VENV)/created $(SOURCES)
	$(BIN)/$(PIP) install -e '.[cpu]'
	@touch $@

$(VENV)/dev-installed: $(VENV)/installed
	$(BIN)/$(PIP) install -e '.[cpu,dev,cuda-tests,geo]'
	@touch $@

$(VENV)/bench-installed: $(VENV)/dev-installed
	$(BIN)/$(PIP) install -e '.[cpu,dev,bench]'
	@touch $@

$(TRAIN)/installed: $(VENV)/created $(SOURCES)
	@test -d $(TRAIN)/lib || test "$$(df -Pk . | awk 'NR == 2 { print $$4 }')" -gt 9000000 || { echo "The training environment takes 7 GB: free 9 GB beside $(CURDIR)"; exit 1; }
	$(PYTHON) -m venv $(TRAIN)
	$(TRAIN)/bin/$(PIP) install -e '.[cpu,dev,train]'
	@touch $@

clean:
	rm -rf $(VENV) $(TRAIN) build demo_run
