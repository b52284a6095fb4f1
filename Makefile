# Simile's commands; `make` alone lists them.

PYTHON ?= python3
VENV ?= .venv
PORT ?= 8080

BIN := $(VENV)/bin
GENERATED := services/shared/contracts
PROTOC_OUT := build/proto
PROTOC_FILES := messages_pb2.py messages_pb2.pyi
# What the current messages must stay compatible with: the last release, else the last commit.
PROTO_BASE ?= $(shell git describe --tags --abbrev=0 2>/dev/null || echo HEAD~1)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup system run test check lint typecheck format docs proto proto-check \
	proto-compiled constraints clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: $(VENV)/.installed-dev ## Install everything into .venv

# A compiler and Python's headers come first: Annoy is compiled on this machine.
$(VENV)/bin/pip:
	PYTHON='$(PYTHON)' sh tools/system.sh build
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(BIN)/pip install -c constraints.txt -e '.[all]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet -c constraints.txt -e '.[all,dev]'
	touch $@

system: ## Install what tests need from the system: RabbitMQ, Chromium
	sh tools/system.sh test

run: $(VENV)/.installed ## Start Simile; IMAGES=folder searches your own images, PORT=8080
	$(BIN)/simile up --port $(PORT) $(if $(IMAGES),--images '$(IMAGES)')

test: setup system check ## Run every check and every test
	$(BIN)/pytest

check: lint typecheck proto-check ## Run the static checks alone

lint: setup ## Check style, formatting, imports between services, messages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/buf lint proto

typecheck: setup ## Check the types
	$(BIN)/mypy

format: setup ## Format the code, repair what can be
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: setup ## Write the generated tables in docs/ anew
	$(BIN)/python -m tools.reference

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

constraints: ## Pin the newest versions that fit pyproject.toml (slow: installs them)
	rm -rf build/constraints
	$(PYTHON) -m venv build/constraints
	build/constraints/bin/pip install '.[all,dev]'
	build/constraints/bin/pip freeze --all \
		| grep -v -e '^pip==' -e '^simile-search' > constraints.txt

clean: ## Remove .venv and everything else that was made here
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache
	find services tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
