# Two commands: `make lab` opens the course, `make test` tests everything. Each sets up what it needs.
# A laptop without a GPU may take smaller torch wheels from an index of its choice: make lab TORCH_INDEX=<url>

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# uv installs the set in a third of pip's time; where uv cannot reach the registry (it does not read pip's
# configuration), pip does the same.
INSTALL = $(BIN)/uv pip install --quiet --python $(BIN)/python $(1) || $(BIN)/python -m pip install --quiet $(2)
LAB_FLAGS := $(if $(filter 0,$(shell id -u)),--allow-root) \
	$(if $(or $(DISPLAY),$(WAYLAND_DISPLAY),$(filter Darwin,$(shell uname -s))),,--no-browser)

.PHONY: help setup lab test check-all bench lint clean

help:
	@echo "make lab     open the course in JupyterLab"
	@echo "make test    run the library's tests and every notebook"
	@echo "make check-all  also what takes long: every network of torchvision, 30,000 damaged files"
	@echo "make setup   make .venv and install everything (the three above do it themselves)"
	@echo "make bench   time everything beside other libraries (25 minutes on two free cores; Linux)"
	@echo "make lint    check style with ruff, and types with mypy"
	@echo "make clean   remove .venv and build output"

setup: $(VENV)/ready

$(VENV)/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "ggo_lab needs Python 3.11 or newer, found: $$($(PYTHON) --version 2>&1). Try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@echo "Setting up $(VENV): torch is large, so this takes from 20 seconds to a few minutes."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ echo "Python could not make $(VENV); on Debian and Ubuntu: apt install python3-venv"; rm -rf $(VENV); exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
ifdef TORCH_INDEX
	@$(call INSTALL,--index $(TORCH_INDEX) torch torchvision,--extra-index-url $(TORCH_INDEX) torch torchvision)
endif
	@$(call INSTALL,--editable '.[lab$(comma)test]',--editable '.[lab$(comma)test]')
	@$(BIN)/jupyter labextension disable --level=sys_prefix @jupyterlab/apputils-extension:announcements
	@touch $@

comma := ,

# OpenMP's threads wait asleep, not in a loop: beside other programs an epoch of ResNet-18 on two threads took 18 to 100 s
# and 5 to 10 s of processor time with the loop, 7 to 17 s and 3 s without (60 scans, 96 pixels; two cores, load 11 to
# 15). On free cores sleeping costs a third; but a laptop with a browser is seldom free, and a multiple looks like a crash.
lab: export OMP_WAIT_POLICY ?= PASSIVE
# Served from here, so that links from a notebook to data/ and docs/ lead somewhere.
lab: setup
	$(BIN)/jupyter lab $(LAB_FLAGS) --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb

# Threads: two processes with one torch thread each keep two cores busier than one process with two, for tests and for
# notebooks: small trainings on two threads that other programs interrupt wait for each other and took twice the processor
# time. Files are handed out as they are found, the browser's first: the fewest tests last would be the slowest last.
# GGO_LAB_QUICK lets the notebook on nine networks take fewer scans and smaller images.
# OpenMP's threads wait asleep there too, see `lab`: the notebooks' cells ran into their time limit otherwise.
test: export OMP_WAIT_POLICY := PASSIVE
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations=25
	OMP_NUM_THREADS=1 GGO_LAB_QUICK=1 $(BIN)/python -m pytest -q -p tests.budgets --timeout=0 --nbval-lax --nbval-cell-timeout=300 -n 2 --dist loadfile --no-loadscope-reorder --durations=0 --durations-min=10 notebooks

check-all: export OMP_WAIT_POLICY := PASSIVE
check-all: test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m long -n 2 --durations=0
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz_readers.py --count 20000
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz_files.py --count 10000

# Peers, which are only compared with, are installed here and not by setup. Two threads, as the figures in the README.
bench: export OMP_NUM_THREADS := 2
bench: setup
	@$(call INSTALL,--editable '.[lab$(comma)test$(comma)bench]',--editable '.[lab$(comma)test$(comma)bench]')
	$(BIN)/python benchmarks/run_all.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
