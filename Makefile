# Simile's commands; `make` alone lists them.

PYTHON ?= python3
VENV ?= .venv
PORT ?=

BIN := $(VENV)/bin
GENERATED := services/shared/contracts
PROTOC_OUT := build/proto
PROTOC_FILES := messages_pb2.py messages_pb2.pyi
# What the current messages must stay compatible with: the last release, else the last commit.
PROTO_BASE ?= $(shell git describe --tags --abbrev=0 2>/dev/null || echo HEAD~1)

# Torch, which only GPUs and other models than EfficientNet-Lite need, is 3 GB with CUDA's libraries.
TORCH ?= $(filter cuda,$(DEVICE))
RUN_INSTALLED = $(VENV)/$(if $(TORCH),.installed-torch,.installed)

IMAGE_OPTIONS = $(if $(BASE),--base '$(BASE)') $(if $(DEVICE),--device '$(DEVICE)')

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup system run test bench bench-search check lint typecheck format docs \
	dashboards dashboard-pictures proto proto-check proto-compiled audit sbom constraints clean \
	test-hostile test-faults images test-images

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

setup: $(VENV)/.installed-dev ## Install everything into .venv

# A compiler and Python's headers come first: Annoy is compiled on this machine.
$(VENV)/bin/pip:
	PYTHON='$(PYTHON)' sh tools/system.sh build
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/pip
	@echo 'Installing Simile into $(VENV): about 220 MB to download, a minute or two besides.'
	$(BIN)/pip install -c constraints.txt -e '.[cpu]'
	touch $@

$(VENV)/.installed-torch: $(VENV)/.installed
	@echo 'Installing torch into $(VENV): 3 GB more to download, with the libraries of CUDA.'
	$(BIN)/pip install -c constraints.txt -e '.[all]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[all,dev]'
	touch $@

system: ## Install the tests' system packages: RabbitMQ, Chromium, Prometheus
	sh tools/system.sh test

# Passed through the environment, unexpanded: neither a shell nor make interprets a space, a quote or a $.
# Most shells do not expand the tilde of IMAGES=~/Pictures: `simile up` expands it.
run: export RUN_IMAGES := $(value IMAGES)
run: export RUN_COLLECTION := $(value COLLECTION)
ifdef DEVICE
run: export SIMILE_EMBEDDER_DEVICE := $(DEVICE)
endif
run: $(RUN_INSTALLED) ## Start Simile; IMAGES=folder searches your own images; PORT=8080, DEVICE=cuda
	$(BIN)/simile up $(if $(PORT),--port $(PORT)) $(if $(value IMAGES),--images "$$RUN_IMAGES") \
		$(if $(value COLLECTION),--collection "$$RUN_COLLECTION") $(if $(WATCH),--watch)

# Tests that measure whole systems run one at a time. The other tests of hostile images measure the CPU
# time of one process, which runs beside others.
ALONE := $(addprefix tests/,browser e2e faults first_hour integration \
	hostile/test_messages.py hostile/test_poison.py)

test: setup system check ## Run every check and every test
	$(BIN)/pytest --numprocesses=2 --dist=loadfile --durations=25 $(ALONE:%=--ignore=%)
	$(BIN)/pytest --durations=25 $(ALONE)

test-hostile: setup ## Decode 10,000 broken images and every decompression bomb (10 minutes)
	HOSTILE_LONG=1 $(BIN)/pytest tests/hostile/test_decoding.py

test-faults: setup system ## Kill services at random under load (15 minutes); KILLS=20 SEED=7
	$(BIN)/pytest tests/faults -m long --timeout 3600 \
		$(if $(KILLS),--kills $(KILLS)) $(if $(SEED),--seed $(SEED))

bench: setup ## Benchmark Simile beside other servers, and its parts (40 minutes)
	sh tools/system.sh bench
	$(BIN)/pip install --quiet -c constraints.txt -e '.[all,rivals]'
	$(BIN)/python -m tests.benchmarks.runtimes
	$(BIN)/python -m tests.benchmarks.decode
	$(BIN)/python -m tests.benchmarks.messaging
	$(BIN)/python -m tests.benchmarks.telemetry
	$(BIN)/python -m tests.benchmarks.serving

bench-search: setup ## Benchmark search beside other engines, and swaps under load (an hour)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[all,rivals]'
	$(BIN)/python -m tests.benchmarks.search
	$(BIN)/python -m tests.benchmarks.swaps

check: lint typecheck proto-check ## Run the static checks alone

lint: setup ## Check style, formatting, words, imports between services, messages
	$(BIN)/ruff check .
	$(BIN)/python -m tools.words
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/buf lint proto

typecheck: setup ## Check the types
	$(BIN)/mypy

format: setup ## Format the code, and fix lint errors where possible
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: setup ## Write the generated tables in docs/, and the Python client's modules
	$(BIN)/python -m tools.reference

.PHONY: manifests images-load
manifests: setup ## Write the chart's generated files and k8s/
	$(BIN)/python -m tools.chart

# Check the cluster first: building the images takes half an hour.
images-load: ## Build the images and load them into kind, k3d or minikube
	sh tools/load_images.sh
	$(PYTHON) tools/images.py $(IMAGE_OPTIONS)
	sh tools/load_images.sh $$($(PYTHON) tools/images.py $(IMAGE_OPTIONS) --names)

dashboards: setup ## Write the Grafana dashboards of the chart
	$(BIN)/python -m tools.dashboards

dashboard-pictures: setup system ## Draw the dashboards of docs/ over a Simile under load
	$(BIN)/python -m tests.dashboards.pictures

proto: proto-compiled ## Compile proto/ into services/shared/contracts
	cp $(PROTOC_FILES:%=$(PROTOC_OUT)/simile/v1/%) $(GENERATED)

proto-check: proto-compiled ## Check that compiled messages are current and compatible
	for file in $(PROTOC_FILES); do \
		diff -u $(GENERATED)/$$file $(PROTOC_OUT)/simile/v1/$$file || exit 1; \
	done
	sh tools/proto_breaking.sh $(BIN)/buf '$(PROTO_BASE)'

proto-compiled: setup
	rm -rf $(PROTOC_OUT)
	mkdir -p $(PROTOC_OUT)
	$(BIN)/python -m grpc_tools.protoc --proto_path=proto \
		--plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy \
		--python_out=$(PROTOC_OUT) --mypy_out=$(PROTOC_OUT) proto/simile/v1/messages.proto

audit: $(VENV)/.installed-audit ## Look up known vulnerabilities of every pinned dependency
	$(BIN)/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

sbom: $(VENV)/.installed-audit ## Write the packages of .venv to build/sbom.json (CycloneDX)
	mkdir -p build
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
		--no-validate --output-file build/sbom.json $(VENV)

$(VENV)/.installed-audit: $(VENV)/.installed-torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[all,audit]'
	touch $@

images: ## Build the images with podman or docker; BASE=image, DEVICE=cuda
	$(PYTHON) tools/images.py $(IMAGE_OPTIONS)

# Uses no registry: the base is made of Debian's packages.
test-images: setup ## Build the images, and run Simile on them with podman (root; 20 minutes)
	sh tools/system.sh images
	$(BIN)/python tools/images.py --base local
	$(BIN)/pytest -m images tests/images

constraints: ## Pin the newest versions that fit pyproject.toml (slow: installs them)
	rm -rf build/constraints
	$(PYTHON) -m venv build/constraints
	build/constraints/bin/pip install '.[all,dev,audit,rivals]'
	build/constraints/bin/pip freeze --all \
		| grep -v -e '^pip==' -e '^simile-search' > constraints.txt

clean: ## Remove .venv and everything else that was made here
	rm -rf $(VENV) build dist *.egg-info clients/python/build .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache
	find services clients tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
