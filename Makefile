# Everything one does with this repository. Each target works alone on a fresh machine that has python3 and make.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
TOOLS := build editables hatchling matplotlib mypy peft pytest ruff scikit-image types-PyYAML
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
TRUST := $(addprefix tests/,runtime/test_manifest_fuzz.py runtime/test_safe_paths.py runtime/test_mutated.py \
	runtime/test_unsafe_graphs.py runtime/test_prompts.py runtime/test_files.py runtime/test_signature.py \
	contract/test_mutated.py contract/test_hostile.py contract/test_drawing_faults.py contract/test_memory_limits.py \
	contract/test_many_drawings.py contract/test_quiet.py exporter/test_publish_faults.py exporter/test_whole_exports.py)

.PHONY: help setup demo embedded-demo quality samplers test test-slow test-trust lint bench bench-peers clean

help:
	@echo "make setup      install everything into .venv"
	@echo "make demo       export the demo model in INT8 and draw a sheet of pictures with it"
	@echo "make test       the tests; 'make test-slow' for those that take minutes"
	@echo "make test-trust the full counts of SECURITY.md: bundles, faults, kills, limits; some hours"
	@echo "make lint       ruff and mypy"
	@echo "make quality    400 prompts: does the demo model draw what was asked, in fp32 and INT8"
	@echo "make samplers   every sampler from 4 to 50 steps: quality against cost, as a table and a chart; an hour"
	@echo "make bench      export the full-size network in INT8 and time it; needs gigabytes and patience"
	@echo "make bench-peers  the same, beside openvino-genai, optimum-intel and diffusers; 15 GB, and an hour the first time"
	@echo "make embedded-demo  make the demo bundle inside the runtime's wheel anew"
	@echo "make clean      remove what the others built; .venv stays"

setup: $(READY)

# Build tools first, so that the two packages are built with the same versions everywhere.
$(READY): Makefile constraints.txt runtime/pyproject.toml exporter/pyproject.toml
	@echo "Installing into .venv; this takes some minutes the first time."
	$(PYTHON) -m venv .venv
	$(PIP) $(TOOLS)
	$(PIP) --no-build-isolation --editable "./runtime[all,signing]" --editable ./exporter
	@touch $@

demo: build/demo/manifest.json
	$(BIN)/python -m models.demo.draw build/demo -o build/demo.png

build/demo/manifest.json: | $(READY)
	@mkdir -p build
	$(BIN)/nano-export demo -o build/demo --int8 --force

# The bundle inside the runtime's wheel: to be made again, and committed, when the demo model or the exporter's graphs change.
embedded-demo: $(READY)
	$(BIN)/nano-export demo -o runtime/src/nano_runtime/demo --int8 --compact --force

quality: build/demo/manifest.json
	$(BIN)/python -m bench.quality build/demo

samplers: $(READY)
	$(BIN)/python -m bench.samplers

test: $(READY)
	$(BIN)/python -m pytest -m "not slow" --durations=30

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

test-trust: $(READY)
	$(BIN)/python -m pytest --counts full $(TRUST)

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy runtime/src/nano_runtime exporter/src/nano_export

bench: build/synthetic-int8/manifest.json
	$(BIN)/nano-bench build/synthetic-int8

bench-peers: build/synthetic-int8/manifest.json
	$(BIN)/python -m bench.peers

build/synthetic-int8/manifest.json: | $(READY)
	@mkdir -p build
	$(BIN)/nano-export synthetic -o build/synthetic-int8 --int8 --force

clean:
	rm -rf build runtime/dist exporter/dist .mypy_cache .pytest_cache .ruff_cache
	find runtime exporter tests bench models -name __pycache__ -prune -exec rm -rf {} +
