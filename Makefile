.PHONY: check check-all lint test

# Everything a change must pass, without the slow tests.
check: lint
	python -m pytest -q

# The same with the slow tests: what CI runs.
check-all: lint
	python -m pytest -q --slow --durations=15

lint:
	ruff check .
	ruff format --check .
	mypy
