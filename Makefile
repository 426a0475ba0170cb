# Everything a newcomer needs: `make run`, `make test`. Each target sets itself up.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: run test engines lint bench docs clean help
help:            ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(BIN)/qwharf: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "qwharf needs Python 3.11 or newer; found $$($(PYTHON) --version). Try: make PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $(BIN)/qwharf

$(VENV)/.dev: pyproject.toml $(BIN)/qwharf
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

run: $(BIN)/qwharf   ## deploy the pocket model, prove it, show an answer
	@$(BIN)/qwharf dev demo

test: $(VENV)/.dev   ## every test but those of `engines`; the embedded engine is a real one
	$(BIN)/python -m pytest -m 'not platforms'

engines: $(VENV)/.dev ## install mlx-lm and vLLM (2.6 GB, once) and run the tests that need them
	-$(BIN)/qwharf engine install mlx   # what cannot be had here is said, and its tests are skipped
	-$(BIN)/qwharf engine install vllm
	$(BIN)/python -m pytest -rs -m 'platforms and not restarts'

lint: $(VENV)/.dev   ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev  ## print the README's measured tables
	$(BIN)/python -m benchmarks

docs: $(VENV)/.dev   ## rebuild the generated reference pages
	$(BIN)/python -m qwharf dev docs docs/reference

clean:           ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
