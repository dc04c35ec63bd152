.PHONY: check check-all check-random lint docs docs-build lock release

# Processes that run tests. Tests of one file run in one process.
WORKERS ?= 2
PYTEST = python -m pytest -q -n $(WORKERS) --dist loadfile

# Everything a change must pass: linters, types, import contract, fast tests and doctests.
check: lint
	$(PYTEST)

# The same with slow tests and the benchmarks' tests. CI runs this.
check-all: lint
	$(PYTEST) --slow --durations=15 lightning_sd tests benchmarks/tests

# The tests of check-all in random order. Repeat an order with ARGS=--randomly-seed=NUMBER.
check-random:
	$(PYTEST) -p randomly --slow $(ARGS) lightning_sd tests benchmarks/tests

lint:
	ruff check .
	ruff format --check .
	mypy
	lint-imports

# Serve the documentation at http://127.0.0.1:8000 and rebuild it after each change.
docs:
	mkdocs serve

# Build the documentation; a broken link or a missing reference is an error.
docs-build:
	mkdocs build --strict

# Build dist/, check it, and run the quickstart from the wheel in an empty environment.
release:
	.ci/release

# Write requirements/ci.txt. Needs Python 3.11 on Linux and "pip install pip-tools torch==2.13.0".
lock:
	pip-compile --quiet --generate-hashes --strip-extras --extra dev \
	  --unsafe-package torch --unsafe-package lightning-sd \
	  --no-emit-find-links --no-emit-index-url --no-emit-trusted-host --no-emit-options \
	  --annotation-style line --no-header --output-file requirements/ci.txt pyproject.toml requirements/compiled.in
