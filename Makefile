# The commands of the README. The first one that needs it makes the environment; later ones install and fetch nothing.
#
#   PYTHON=/usr/bin/python3.12   the interpreter to make the environment with (3.11 or newer)
#   VENV=/path/to/environment    use this environment instead of .venv; a GPU build of torch found there is kept
#   TORCH_INDEX=URL              take torch from this index, e.g. https://download.pytorch.org/whl/cpu (small) or .../cu130
#   ARGS="..."                   passed on: make test ARGS="-k lens", make run ARGS="--port 8051"

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
TORCH_INDEX ?=
ARGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PINS := $(VENV)/constraints.txt
# -qq: errors only
PIP = $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint $(PINS)

# Threads that spin while they wait make a shared machine thirty times slower
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help run test test-slow fuzz gallery thumbnails coverage lint types docs wheel bench calibration circuits mutants notebooks notebooks-full install model

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

run: model  ## start the explorer on http://127.0.0.1:8050 (sets everything up the first time)
	@$(BIN)/workbench app $(ARGS)

# All tests are run by a process a core: tests of tiny models use one each. What ARGS names is run by one.
test: model  ## run the tests; browser tests where there is a Chromium (CHROMIUM=path, REQUIRE_BROWSER=1)
	@$(BIN)/python -m pytest $(if $(ARGS),$(ARGS),-n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder --durations 20)

test-slow: model  ## run only the slow tests
	@$(BIN)/python -m pytest -m slow $(ARGS)

fuzz: model  ## the fuzz tests with FUZZ times as many examples (default 50): changed files, requests, links, parameters
	@FUZZ=$(or $(FUZZ),50) $(BIN)/python -m pytest -m "slow or not slow" tests/workbench/storage tests/workbench/test_fuzz.py \
	  tests/workbench/test_records.py tests/workbench/models tests/apps/cli/test_prompts.py \
	  tests/apps/cli/test_strangers.py tests/apps/explorer/web/test_requests.py $(ARGS)

lint: $(STAMP)  ## check style and format with ruff
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(STAMP)  ## check types with mypy (strict for workbench/)
	@$(BIN)/mypy $(ARGS)

docs: model  ## build the documentation into site/, strictly: a broken link or an undocumented name is an error
	@$(BIN)/python docs/make.py $(ARGS) $(ARGS_DOCS)

gallery: model  ## photograph every view of the page into gallery/ (ARGS="--studies", "--pictures" for the README's)
	@$(BIN)/python docs/gallery.py $(ARGS)

coverage: model  ## run the tests with coverage and print what no test runs
	@$(BIN)/coverage run -m pytest $(ARGS)
	@$(BIN)/coverage report --skip-covered --show-missing

wheel: $(STAMP)  ## build the wheel, install it into an empty environment and run its console script
	@$(BIN)/python tests/wheel.py $(ARGS)

bench: model  ## measure our passes against a bare forward; prints a table and saves JSON
	@$(BIN)/workbench bench $(ARGS)

calibration: model  ## count how often checks and labels say yes where nothing is, and what intervals cover: ARGS=...
	@$(BIN)/python -m apps.calibration $(ARGS)

thumbnails: model  ## draw the examples that stand below the Start of studies (ARGS="NAME ...")
	@$(BIN)/python docs/thumbnails.py $(ARGS)

circuits: model  ## rankings of edges beside each other, measured from where it was left: docs/pages/circuits.md
	@$(BIN)/python -m apps.circuits $(ARGS)

mutants: model  ## break the numeric code in one place after another and see whether a test notices (outside CI)
	@$(BIN)/python tests/mutants.py $(ARGS)

notebooks: model  ## execute every notebook in its quick form
	@$(BIN)/python tests/run_notebooks.py $(ARGS)

notebooks-full: model  ## execute every notebook in full
	@$(BIN)/python tests/run_notebooks.py --full $(ARGS)

install: $(STAMP)  ## make the environment

model: $(STAMP)  ## fetch and convert the default model if it is not in the cache
	@$(BIN)/workbench models fetch

# A GPU build of torch that is already there stays; otherwise torch comes first, from where the user says.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, not '$(PYTHON)'. Name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV) || \
	  { echo "Could not make $(VENV): on Debian install python3-venv, then repeat." >&2; exit 1; }
	@echo "Installing the pinned libraries into $(VENV); the first time takes a few minutes."
	@if $(BIN)/python -c 'import sys, torch; sys.exit(not (torch.version.cuda or torch.version.hip))' 2>/dev/null; then \
	  echo "Keeping the GPU build of torch in $(VENV)."; grep -v '^torch==' constraints.txt > $(PINS); \
	else \
	  cp constraints.txt $(PINS) && $(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch; \
	fi
	@$(PIP) setuptools
	@$(PIP) --no-build-isolation --editable '.[app,notebook,docs,dev]'
	@touch $@
