# Everything one does with this repository. Each target works alone on a fresh machine that has python3 and make.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
TOOLS := build coverage editables ftfy hatchling lycoris-lora matplotlib mypy peft pytest pytest-xdist ruff scikit-image sd-parsers types-PyYAML
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
LOWEST := build/lowest
LOWEST_PIP := $(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
TRUST := $(addprefix tests/,runtime/test_manifest_fuzz.py runtime/test_safe_paths.py runtime/test_mutated.py \
	runtime/test_unsafe_graphs.py runtime/test_prompts.py runtime/test_hostile_schedules.py runtime/test_clip_bpe.py runtime/test_hostile_pictures.py runtime/test_files.py runtime/test_signature.py runtime/test_kept_pictures.py \
	contract/test_mutated.py contract/test_strict_reader.py contract/test_hostile_shapes.py exporter/test_mutated_checkpoints.py contract/test_hostile.py contract/test_drawing_faults.py contract/test_memory_limits.py \
	contract/test_many_drawings.py contract/test_quiet.py exporter/test_publish_faults.py exporter/test_whole_exports.py)

.PHONY: help setup demo embedded-demo quality processors samplers test test-slow test-trust test-checkpoints test-lowest coverage lint docs ci bench bench-peers interop outliers serve-clients serve-page batch-formats batch-ray clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' Makefile

setup: $(READY)  ## install everything into .venv

# Build tools first, so that the two packages are built with the same versions everywhere. Of open_clip_torch, only CLIP's
# vocabulary and the tokenizer are used, in tests; whole, it asks for torchvision and timm.
$(READY): Makefile constraints.txt runtime/pyproject.toml exporter/pyproject.toml
	@echo "Installing into .venv; this takes some minutes the first time."
	$(PYTHON) -m venv .venv
	$(PIP) $(TOOLS)
	$(PIP) --no-build-isolation --editable "./runtime[all,serve,signing]" --editable "./exporter[genai,nncf]"
	$(PIP) --no-deps open_clip_torch
	@touch $@

demo: build/demo/manifest.json  ## export the demo model in INT8 and draw a sheet of pictures with it
	$(BIN)/python -m models.demo.draw build/demo -o build/demo.png

build/demo/manifest.json: | $(READY)
	@mkdir -p build
	$(BIN)/nano-export demo -o build/demo --int8 --force

# The bundle inside the runtime's wheel: to be made again, and committed, when the demo model or the exporter's graphs change.
embedded-demo: $(READY)  ## make the demo bundle inside the runtime's wheel anew
	$(BIN)/nano-export demo -o runtime/src/nano_runtime/demo --int8 --compact --force

quality: build/demo/manifest.json  ## 400 prompts: does the demo model draw what was asked, in fp32 and INT8
	$(BIN)/python -m bench.quality build/demo

processors: build/demo/manifest.json  ## the same pictures on emulated processors (qemu-user-static): how far apart; 10 minutes
	$(BIN)/python -m bench.processors build/demo

samplers: $(READY)  ## every sampler from 4 to 50 steps: quality against cost, as a table and a chart; an hour
	$(BIN)/python -m bench.samplers

test: $(READY)  ## the tests, but for those that take minutes
	$(BIN)/python -m pytest -m "not slow" --durations=30 --numprocesses 2 --dist loadfile

test-slow: $(READY)  ## the tests that take minutes or gigabytes
	$(BIN)/python -m pytest -m slow

test-trust: $(READY)  ## the full counts of SECURITY.md: bundles, faults, kills, limits; some hours
	$(BIN)/python -m pytest --counts full $(TRUST)

test-checkpoints: $(READY)  ## every kind of checkpoint and 200 generated ones, against diffusers; a table, many minutes
	$(BIN)/python -m tests.checkpoints --kinds all --seeds 0-199 --processes 2

OUTLIERS := build/outliers
outliers: $(READY)  ## checkpoints with outlier channels (scaled, rotated, learned), and their INT8; a table, an hour
	$(BIN)/python -m tests.outliers folded --scale 10 $(OUTLIERS)/scaled-10
	$(BIN)/python -m tests.outliers folded --scale 40 $(OUTLIERS)/scaled-40
	$(BIN)/python -m tests.outliers folded --scale 1 --spread 0.4 $(OUTLIERS)/spread
	$(BIN)/python -m tests.outliers rotated $(OUTLIERS)/rotated
	$(BIN)/python -m tests.outliers learned --ratio 20 $(OUTLIERS)/learned-20
	$(BIN)/python -m tests.outliers measure $(addprefix $(OUTLIERS)/,scaled-10 scaled-40 spread rotated learned-20)

# The runtime's wheel with the lowest versions that it allows of all it needs, in an environment of its own.
test-lowest: $(LOWEST)/ready  ## the runtime's tests, with the lowest versions that it allows
	rm -f $(LOWEST)/*.whl
	$(BIN)/python -m build --wheel --no-isolation --outdir $(LOWEST) runtime
	$(LOWEST_PIP) --no-index --no-deps --force-reinstall $(LOWEST)/*.whl
	$(LOWEST)/bin/python -m pip check
	$(LOWEST)/bin/python -m pytest -m "not slow" tests/runtime --numprocesses 2 --dist loadfile

$(LOWEST)/ready: Makefile constraints.txt runtime/pyproject.toml tests/packaging/lowest.py | $(READY)
	$(PYTHON) -m venv --clear $(LOWEST)
	$(BIN)/python tests/packaging/lowest.py runtime/pyproject.toml onnxruntime > $(LOWEST)/requirements.txt
	$(LOWEST_PIP) --constraint constraints.txt pytest pytest-xdist
	$(LOWEST_PIP) --requirement $(LOWEST)/requirements.txt
	@touch $@

coverage: $(READY)  ## the share of networks/, drawing/ and sampling/ that tests/runtime runs, without torch; at least 90 %
	$(BIN)/python -m coverage run --source=nano_runtime.networks,nano_runtime.drawing,nano_runtime.sampling \
		-m pytest -m "not slow" tests/runtime
	$(BIN)/python -m coverage report --fail-under=90

ci: lint test test-lowest  ## what has to pass before a change is taken

lint: $(READY)  ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: $(READY)  ## write the parts of the documents that come from the code
	$(BIN)/python -m docs.generate

bench: build/synthetic-int8/manifest.json  ## export the full-size network in INT8 and time it; needs gigabytes and patience
	$(BIN)/nano-bench build/synthetic-int8

SERVE_CLIENTS := build/serve-clients
serve-clients: $(READY)  ## openai-python, openai-node, webuiapi and SillyTavern against nano-serve with the demo; needs registries
	$(PYTHON) -m venv $(SERVE_CLIENTS)
	$(SERVE_CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check openai==3.57.0 webuiapi==0.9.17
	if command -v npm > /dev/null; then npm install --silent --ignore-scripts --prefix $(SERVE_CLIENTS) openai@7.59.0 sillytavern@1.19.0; fi
	$(BIN)/python -m tests.serve.clients.run $(SERVE_CLIENTS)

# Rows are read from Parquet there, too.
BATCH_FORMATS := build/batch-formats
batch-formats: $(READY)  ## what nano-batch writes, opened with datasets, webdataset, pyarrow and pandas; needs a registry
	$(PYTHON) -m venv $(BATCH_FORMATS)
	$(BATCH_FORMATS)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		datasets==5.2.0 pandas==3.1.1 pyarrow==26.0.1 webdataset==1.0.2 pytest --editable "./runtime[onnxruntime,parquet]"
	$(BATCH_FORMATS)/bin/python -m pytest -m "not slow" tests/batch/test_formats.py tests/batch/test_formats_opened.py tests/runtime/test_parquet_rows.py

BATCH_RAY := build/batch-ray
batch-ray: $(READY)  ## nano-batch on a test cluster of Ray whose rows and nodes come to harm, and pipelines; 2 GB, half an hour
	$(PYTHON) -m venv $(BATCH_RAY)
	$(BATCH_RAY)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable "./runtime[onnxruntime]"
	$(BATCH_RAY)/bin/python -m pip install --quiet --disable-pip-version-check "ray[data]==2.60.0" daft==0.7.26 pyspark==4.3.0
	$(BIN)/python -m tests.batch.ray.run $(BATCH_RAY)

# Chromium and the screenshots' font come from the system (apt-get install chromium fonts-inter); Playwright drives it, axe-core judges the page.
PAGE_TOOLS := build/page-tools
serve-page: $(READY)  ## nano-serve's page in Chromium (whole flow, axe-core, the docs' screenshots) and Firefox; minutes
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --target $(PAGE_TOOLS) playwright==1.65.2
	cd $(PAGE_TOOLS) && npm pack --silent axe-core@4.14.1 && tar xzf axe-core-4.14.1.tgz
	PYTHONPATH=$(PAGE_TOOLS) NANO_SCREENSHOTS=docs/images $(BIN)/python -m pytest -m slow \
		tests/serve/test_browser.py tests/serve/test_browser_tabs.py tests/serve/test_browser_models.py \
		tests/serve/test_browser_rough.py tests/serve/test_firefox.py

interop: | $(READY)  ## open our bundles with optimum and openvino-genai, adopt their folders: a table; 4 GB, and minutes
	$(BIN)/python -m bench.interop

bench-peers: build/synthetic-int8/manifest.json  ## the same, beside openvino-genai, optimum-intel and diffusers; 15 GB, and an hour the first time
	$(BIN)/python -m bench.peers

build/synthetic-int8/manifest.json: | $(READY)
	@mkdir -p build
	$(BIN)/nano-export synthetic -o build/synthetic-int8 --int8 --force

clean:  ## remove what the others built; .venv stays
	rm -rf build runtime/dist exporter/dist .mypy_cache .pytest_cache .ruff_cache
	find runtime exporter tests bench models -name __pycache__ -prune -exec rm -rf {} +
