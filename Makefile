# Every target makes its own virtual environment and installs exactly what constraints.txt names;
# the only needs are make and a Python >= 3.11 with venv. A second call installs nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq -c constraints.txt
# The extras that `topospike demo` needs; the tests install them all.
RUN := cli,data,analysis,report
LOCK := pyproject.toml constraints.txt
# Tests read no hub: a call that would is an error, not a download.
TEST_ENV := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
# A file's tests stay in one process: what they share is made once.
PYTEST := $(TEST_ENV) $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile \
          --benchmark-disable

.PHONY: help demo test test-all lint docs bench clean
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
# Options of every benchmark.
BENCH ?=

help:
	@echo "make demo        train, convert, measure and report the small example (runs/demo)"
	@echo "make test        the test suite without the slow tests"
	@echo "make test-all    the whole test suite, every annotation checked as it runs"
	@echo "make lint        ruff, basedpyright, import-linter"
	@echo "make docs        build the documentation into site/, strictly"
	@echo "make bench       the benchmarks, one after the other; BENCH=--quick: about a minute each"
	@echo "make clean       remove the environment and every built file, keep runs/"

demo: $(VENV)/.installed-run
	@$(BIN)/topospike demo

test: $(VENV)/.installed-dev
	@$(PYTEST) -q -m "not slow"

test-all: $(VENV)/.installed-dev
	@$(PYTEST) -q -p tests.typechecks

lint: $(VENV)/.installed-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/basedpyright
	@$(BIN)/lint-imports

docs: $(VENV)/.installed-docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(VENV)/.installed-dev
	@for script in benchmarks/*.py; do \
	  echo "$$script"; $(TEST_ENV) $(BIN)/python "$$script" $(BENCH) || exit 1; done

clean:
	rm -rf $(VENV) build dist site .pytest_cache .ruff_cache .hypothesis .benchmarks \
	       .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "error: no '$(PYTHON)' here; install Python 3.11 \
	or newer, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; ok = v >= (3, 11); print("" if ok else \
	f"error: $(PYTHON) is Python {v[0]}.{v[1]}; 3.11 or newer is required: make PYTHON=python3.11", \
	end="" if ok else "\n", file=sys.stderr); sys.exit(not ok)'
	@echo "making $(VENV) and installing (once)"
	@$(PYTHON) -m venv --clear $(VENV) || { echo "error: '$(PYTHON) -m venv' failed; on Debian \
	install the package python3-venv" >&2; exit 1; }

$(VENV)/.installed-run: $(LOCK) | $(BIN)/python
	@$(PIP) hatchling editables
	@$(PIP) --no-build-isolation -e ".[$(RUN)]"
	@touch $@

$(VENV)/.installed-dev: $(LOCK) | $(BIN)/python
	@$(PIP) hatchling editables
	@$(PIP) --no-build-isolation -e ".[dev]"
	@# NeuroBench asks for torchaudio, which it imports for audio data alone and which breaks
	@# transformers beside a CPU torch; what our tests use of it needs snntorch only.
	@$(PIP) --no-deps neurobench snntorch
	@touch $@ $(VENV)/.installed-run

$(VENV)/.installed-docs: $(LOCK) | $(BIN)/python
	@$(PIP) hatchling editables
	@$(PIP) --no-build-isolation -e ".[$(RUN),docs]"
	@touch $@ $(VENV)/.installed-run
