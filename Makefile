.PHONY: check check-all docs lint

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

# The documentation at http://127.0.0.1:8000, rebuilt at each change.
docs:
	mkdocs serve
