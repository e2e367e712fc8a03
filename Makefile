# make train: environment, installation, training on the embedded data. make test: the same for the tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: train test fast coverage check format docs clean
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

docs: $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint requirements.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) build *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: setup.cfg pyproject.toml requirements.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint requirements.txt --editable .
	touch $@

$(VENV)/.installed-test: setup.cfg pyproject.toml requirements.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint requirements.txt --editable '.[test]'
	touch $@ $(VENV)/.installed
