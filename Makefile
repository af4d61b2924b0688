PYTHON ?= python3
BIN = .venv/bin
# The constraints hold wherever pip runs, in build environments too: a newer torch would pull gigabytes.
export PIP_CONSTRAINT = $(CURDIR)/constraints.txt

.PHONY: demo test lint docs wheel check-wheel clean

demo: .venv/demo
	$(BIN)/handful demo

# A process a core, each with one thread: most tests are too small to share.
test: .venv/test lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --durations 30

lint: .venv/test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: .venv/docs
	$(BIN)/zensical build --strict --clean

# Without what an earlier build has left: setuptools would pack files that are no longer there.
wheel: $(BIN)/python
	rm -rf build dist
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

# In an environment that holds torch alone, and outside of this folder.
check-wheel: wheel
	PYTHON="$(PYTHON)" .ci/check-wheel dist/*.whl

$(BIN)/python:
	$(PYTHON) -m venv .venv

.venv/demo: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[photos]"
	touch $@

.venv/test: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[photos,test]"
	touch $@

.venv/docs: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	touch $@

clean:
	rm -rf .venv build dist
