# Two commands do all: `make repro` runs the pipeline, `make test` the tests. Each makes the environment if it is missing.
PYTHON ?= python3
ENV := .venv
export PATH := $(CURDIR)/$(ENV)/bin:$(PATH)
export PYTHONNOUSERSITE := 1

LOCKED := environment/locked.txt
INSTALL = python -m pip install --quiet --constraint $(LOCKED) --requirement

.PHONY: repro test mutants faults cluster-test lint docs bench crossval app locked audit

repro: $(ENV)/ready
	dvc repro

test: $(ENV)/ready-dev
	python -m pytest

# Changes the code that decides validity, a line at a time, and counts which changes the tests notice: see CONTRIBUTING.md.
mutants: $(ENV)/ready-dev
	python -m pip install --quiet 'mutmut>=3.8.1,<3.9'
	mutmut run
	mutmut results

faults: $(ENV)/ready-dev
	python -m tests.faults

cluster-test: $(ENV)/ready-dev
	python -m pytest --numprocesses 0 tests/cluster_hosts.py

crossval: $(ENV)/ready
	python -m crossval $(ARGUMENTS)

app: $(ENV)/ready-app
	python -m app

lint: $(ENV)/ready-dev
	ruff check .
	ruff format --check .

docs: $(ENV)/ready
	python -m docs.make_parameters

bench: $(ENV)/ready-bench
	python -m benchmarks.run

# The versions that everybody gets, from what the requirements allow today: run it on the oldest Python.
locked:
	rm -rf $(ENV) && : > $(LOCKED)
	$(MAKE) $(ENV)/ready-dev
	python -m pip freeze --quiet > $(LOCKED)

# Needs a network: asks for known weaknesses of these versions.
audit: $(ENV)/ready
	$(PYTHON) -m venv $(ENV)/audit
	$(ENV)/audit/bin/pip install --quiet pip-audit
	$(ENV)/audit/bin/pip-audit --no-deps --disable-pip --requirement $(LOCKED)

# DVC starts stages as `python`, which .venv/bin/dvc must find where the environment is not activated.
$(ENV)/ready: requirements.txt $(wildcard environment/*)
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "error: TensorFlow needs Python 3.11 to 3.13, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.13")'
	$(PYTHON) -m venv $(ENV)
	$(INSTALL) requirements.txt
	python -c 'import pathlib, vl_convert; pathlib.Path("$(ENV)/vega.js").write_text(vl_convert.javascript_bundle(), "utf-8")'
	cp environment/dvc_safeguards.* $$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
	printf '%s\n' '#!/bin/sh' 'PATH="$$(dirname "$$(readlink -f "$$0")"):$$PATH"' 'export PATH' 'exec python -P -m dvc "$$@"' >$(ENV)/bin/dvc
	touch $@

$(ENV)/ready-dev: $(ENV)/ready requirements-dev.txt requirements-cluster.txt app/requirements.txt
	$(INSTALL) requirements-dev.txt
	touch $@

$(ENV)/ready-app: $(ENV)/ready app/requirements.txt
	$(INSTALL) app/requirements.txt
	touch $@

# TorchEnsemble asks for torchvision, which it uses for nothing that is measured here.
$(ENV)/ready-bench: $(ENV)/ready benchmarks/requirements.txt
	$(INSTALL) benchmarks/requirements.txt
	python -m pip install --quiet --no-deps torchensemble==0.2.0
	touch $@
