# Two commands do all: `make repro` runs the pipeline, `make test` the tests. Each makes the environment if it is missing.
PYTHON ?= python3
ENV := .venv
export PATH := $(CURDIR)/$(ENV)/bin:$(PATH)
export PYTHONNOUSERSITE := 1

# pip checks each file's hash, and builds with the setuptools of requirements/build.txt instead of one that it would download.
INSTALL = python -m pip install --quiet --require-hashes --use-pep517 --no-build-isolation --requirement
COMPILE = UV_CUSTOM_COMPILE_COMMAND='make locked' $(ENV)/uv/bin/uv pip compile --quiet --universal --fork-strategy fewest \
	--python-version 3.11 --generate-hashes --no-emit-index-url --annotation-style line $(ARGUMENTS)

.PHONY: repro test test-unit mutants faults cluster-test lint docs bench crossval app repair locked audit

repro: $(ENV)/ready
	dvc repro

test: $(ENV)/ready-dev
	python -m pytest

# Seconds, for the loop while editing: no DVC, no training.
test-unit: $(ENV)/ready-dev
	python -m pytest tests/unit

# Changes the code that decides validity, a line at a time, and counts which changes the tests notice: see CONTRIBUTING.md.
mutants: $(ENV)/ready-dev
	python -m pip install --quiet 'mutmut>=3.8.1,<3.9'
	mutmut run
	mutmut results

faults: $(ENV)/ready-dev
	MUTATIONS=20000 python -m pytest --numprocesses 0 tests/unit/test_mutated_images.py
	python -m pytest --numprocesses 0 tests/faults/app_memory.py
	python -m tests.faults

cluster-test: $(ENV)/ready-dev
	python -m pytest --numprocesses 0 tests/faults/cluster_hosts.py

crossval: $(ENV)/ready
	python -m brainmri.crossval $(ARGUMENTS)

app: $(ENV)/ready-app
	python -m brainmri.app

# After a crash or a full disk, where `dvc repro` refuses: docs/reliability.md
repair: $(ENV)/ready
	python -m brainmri.repair

lint: $(ENV)/ready-dev
	ruff check .
	ruff format --check .

# The generated pages, tables and figures, and the documentation as a site: open site/index.html
docs: $(ENV)/ready-dev
	python -m docs.make_parameters
	python -m docs.make_dag
	python -m docs.make_results
	python -m docs.make_architecture
	python -m docs.make_site

bench: $(ENV)/ready-bench
	python -m benchmarks.run

# The versions that everybody gets, and their hashes: versions that are locked stay, unless ARGUMENTS is --upgrade or
# "--upgrade-package NAME".
locked:
	$(PYTHON) -m venv $(ENV)/uv
	$(ENV)/uv/bin/python -m pip install --quiet uv==0.13.9
	$(COMPILE) requirements/dev.in --output-file requirements/dev.txt
	for part in requirements $(addprefix requirements/,app build cluster dicom docs export gpu logs); do \
		$(COMPILE) $$part.in --constraint requirements/dev.txt --output-file $$part.txt || exit; \
	done

# Needs a network: asks for known weaknesses of these versions.
audit: $(ENV)/ready
	$(PYTHON) -m venv $(ENV)/audit
	$(ENV)/audit/bin/pip install --quiet pip-audit
	$(ENV)/audit/bin/pip-audit --no-deps --disable-pip --requirement requirements/dev.txt

$(ENV)/ready: requirements/build.txt requirements.txt brainmri/configure.py .dvc/plots/page.html
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "error: TensorFlow needs Python 3.11 to 3.13, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.13")'
	$(PYTHON) -m venv $(ENV)
	$(INSTALL) requirements/build.txt
	$(INSTALL) requirements.txt
	python -m brainmri.configure
	touch $@

$(ENV)/ready-dev: $(ENV)/ready requirements/dev.txt
	$(INSTALL) requirements/dev.txt
	touch $@

$(ENV)/ready-app: $(ENV)/ready requirements/app.txt
	$(INSTALL) requirements/app.txt
	touch $@

# TorchEnsemble asks for torchvision, which it uses for nothing that is measured here.
$(ENV)/ready-bench: $(ENV)/ready requirements/bench.in requirements/export.txt
	$(INSTALL) requirements/export.txt
	python -m pip install --quiet --requirement requirements/bench.in
	python -m pip install --quiet --no-deps torchensemble==0.2.0
	touch $@
