# Everything one does with this repository. Each target works alone on a fresh machine that has python3 and make.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
TOOLS := build editables hatchling mypy pytest ruff scikit-image types-PyYAML
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow lint bench clean

help:
	@echo "make setup      install everything into .venv"
	@echo "make demo       export a model and draw a picture with it"
	@echo "make test       the tests; 'make test-slow' for those that take minutes"
	@echo "make lint       ruff and mypy"
	@echo "make bench      export the full-size network in INT8 and time it; needs gigabytes and patience"
	@echo "make clean      remove what the others built; .venv stays"

setup: $(READY)

# Build tools first, so that the two packages are built with the same versions everywhere.
$(READY): Makefile constraints.txt runtime/pyproject.toml exporter/pyproject.toml
	@echo "Installing into .venv; this takes some minutes the first time."
	$(PYTHON) -m venv .venv
	$(PIP) $(TOOLS)
	$(PIP) --no-build-isolation --editable "./runtime[all]" --editable ./exporter
	@touch $@

demo: $(READY)
	@mkdir -p build
	$(BIN)/nano-export tiny -o build/tiny --int8 --force
	$(BIN)/nano-generate "A watercolor painting of an otter" --bundle build/tiny -o build/otter.png --force
	@echo "build/otter.png is drawn. The tiny model has random weights: noise is what it should show."

test: $(READY)
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy runtime/src/nano_runtime exporter/src/nano_export

bench: build/synthetic-int8/manifest.json
	$(BIN)/nano-bench build/synthetic-int8

build/synthetic-int8/manifest.json: | $(READY)
	@mkdir -p build
	$(BIN)/nano-export synthetic -o build/synthetic-int8 --int8 --force

clean:
	rm -rf build runtime/dist exporter/dist .mypy_cache .pytest_cache .ruff_cache
	find runtime exporter tests bench models -name __pycache__ -prune -exec rm -rf {} +
