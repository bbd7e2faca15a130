# Two commands to know: `make serve` and `make test`.

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# A target whose recipe fails is not left half made.
.DELETE_ON_ERROR:
.PHONY: serve test lint types tests bench soak clean

serve: $(VENV)/.serve
	@exec $(BIN)/python -m glance_api.cmd.serve

test: lint types tests

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test
	$(BIN)/mypy

# Two files of tests at a time: most of the time goes into waiting for servers.
tests: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

bench: $(VENV)/.test
	$(BIN)/python -m tests.bench $(ARGS)

soak: $(VENV)/.test
	$(BIN)/python -m tests.soak $(ARGS)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed. Name one: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: setup.py | $(VENV)/bin/python
	$(PIP) -e .
	@touch $@

$(VENV)/.test: setup.py | $(VENV)/bin/python
	$(PIP) -e '.[all,test]'
	@touch $@ $(VENV)/.serve

clean:
	rm -rf $(VENV) .servers var build *.egg-info
