# Linkspan's verbs. `make help` lists them; each makes what it needs first.

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV   := .venv
BIN    := $(VENV)/bin
SUITES := unit contract compat integration typing examples
PYTHON ?= python3
ARGS   ?=
PYTEST := $(BIN)/python -m pytest -q
say     = @printf '\033[1m==> %s\033[0m\n'

# A suite whose folder is not there says so; an empty one fails (pytest exit 5).
suite = @if [ -d tests/$(1) ]; then echo "$(PYTEST) tests/$(1) $(ARGS)"; $(PYTEST) tests/$(1) $(ARGS); else echo "not run: tests/$(1) is not there"; fi

.PHONY: help
help: ## List the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo 'Options go in ARGS: make demo ARGS="--report report.json", make unit ARGS="-k relay"'

# --- set-up --------------------------------------------------------------------------------------

.PHONY: setup
setup: $(VENV)/.dev-installed ## Make .venv and install everything that tests and checks need

$(VENV)/.made: scripts/make_venv.sh
	$(say) "Make $(VENV)"
	@scripts/make_venv.sh $(VENV) $(PYTHON)
	@touch $@

$(VENV)/.run-installed: $(VENV)/.made pyproject.toml constraints.txt
	$(say) "Install linkspan and what it runs on (about half a minute the first time)"
	@scripts/pip_install.sh $(BIN)/python -e .
	@touch $@

$(VENV)/.dev-installed: $(VENV)/.made pyproject.toml constraints.txt
	$(say) "Install linkspan, its tests and its checks (about a minute the first time)"
	@scripts/pip_install.sh $(BIN)/python -e '.[dev]'
	@touch $@ $(VENV)/.run-installed

$(VENV)/.docs-installed: $(VENV)/.dev-installed
	$(say) "Install what builds the documentation"
	@scripts/pip_install.sh $(BIN)/python -e '.[dev,docs]'
	@touch $@

$(VENV)/.fuzz-installed: $(VENV)/.dev-installed
	$(say) "Install the fuzzer"
	@scripts/pip_install.sh $(BIN)/python -e '.[dev,fuzz]'
	@touch $@

$(VENV)/.bench-installed: $(VENV)/.dev-installed
	$(say) "Install the peers that benchmarks compare with"
	@scripts/pip_install.sh $(BIN)/python -e '.[dev,bench]'
	@touch $@

# --- see it --------------------------------------------------------------------------------------

.PHONY: demo
demo: $(VENV)/.run-installed ## Run the shop: real engines, faults injected, reconciled at the end
	$(BIN)/python -m examples.shop $(ARGS)

.PHONY: bench
bench: $(VENV)/.bench-installed ## Measure against the peers, write benchmarks/results
	$(BIN)/python -m benchmarks $(ARGS)

.PHONY: proof
proof: $(VENV)/.dev-installed ## Try to break each promise, write docs/reference/proof.md (ARGS="--short")
	@if [ -d proof ]; then $(BIN)/python -m proof $(ARGS); else echo "not run: proof is not there"; fi

# --- tests ---------------------------------------------------------------------------------------

.PHONY: test
test: $(SUITES) ## Run all suites but the crash suite

.PHONY: unit
unit: $(VENV)/.dev-installed ## Test modules on the memory broker and a fake clock
	$(call suite,unit)

.PHONY: contract
contract: $(VENV)/.dev-installed ## Run the public contract suites on every adapter
	$(call suite,contract)

.PHONY: compat
compat: $(VENV)/.dev-installed ## Hold our rules of compatibility to buf
	$(call suite,compat)

.PHONY: integration
integration: $(VENV)/.dev-installed ## Run whole stories on real servers
	@scripts/get_asyncapi.sh
	@scripts/get_chromium.sh
	@scripts/get_grpcurl.sh
	$(call suite,integration)

.PHONY: soak
soak: $(VENV)/.dev-installed ## Make 100,000 gRPC calls on one channel: none fails, memory is bounded
	$(call suite,soak)

.PHONY: typing
typing: $(VENV)/.dev-installed ## Check that the type checkers flag wrong uses
	$(call suite,typing)

.PHONY: examples
examples: $(VENV)/.dev-installed ## Run every example and compare what it prints
	$(call suite,examples)

.PHONY: neighbours
neighbours: $(VENV)/.dev-installed ## Exchange events with a Go and a Node program, be called by a generated client
	$(say) "Build the neighbours' programs"
	@scripts/get_neighbours.sh $(VENV)
	$(call suite,neighbours)

.PHONY: kafka
kafka: $(VENV)/.dev-installed ## Run the broker suite and whole stories on Apache Kafka
	@scripts/get_kafka.sh
	$(call suite,kafka)

.PHONY: crash
crash: $(VENV)/.dev-installed ## Die at every commit, publish and ack, restart, check the history
	@scripts/get_kafka.sh
	$(call suite,crash)

.PHONY: mutants
mutants: $(VENV)/.dev-installed ## Break linkspan in one place after the other: a test has to fail for each
	@scripts/get_kafka.sh
	$(call suite,mutants)

.PHONY: simulation
simulation: $(VENV)/.dev-installed ## Live through 200 histories of crashes and faults in simulated time
	$(call suite,simulation)

.PHONY: power
power: $(VENV)/.dev-installed ## Cut the power under SQLite and NATS, trace what they sync; needs FUSE and strace
	@scripts/get_power_tools.sh
	$(call suite,power)

.PHONY: fuzz
fuzz: $(VENV)/.fuzz-installed ## Feed hostile bytes to every decoder: ARGS="--minutes 120" for hours
	$(BIN)/python -m fuzz $(ARGS)

.PHONY: docs
docs: $(VENV)/.docs-installed ## Build the documentation into build/site; a broken link fails
	NO_COLOR=1 $(BIN)/zensical build --strict $(ARGS)

.PHONY: wheel
wheel: $(VENV)/.dev-installed ## Install the built wheel as users do, on each Python there is
	$(call suite,wheel)

# --- checks --------------------------------------------------------------------------------------

.PHONY: check
check: lint type test ## Lint, check types and test

.PHONY: lint
lint: $(VENV)/.dev-installed ## Check style, house rules and layers, to the end
	@code=0; \
	$(BIN)/ruff check || code=1; \
	$(BIN)/ruff format --check || code=1; \
	$(BIN)/python scripts/check_house.py || code=1; \
	$(MAKE) --no-print-directory layers || code=1; \
	exit $$code

.PHONY: layers
layers: $(VENV)/.dev-installed ## Check who imports whom
	@PYTHONPATH=src $(BIN)/lint-imports --no-logo

.PHONY: type
type: $(VENV)/.dev-installed ## Check types with mypy strict and pyright strict
	@code=0; \
	$(BIN)/mypy || code=1; \
	$(BIN)/pyright || code=1; \
	exit $$code

.PHONY: fmt
fmt: $(VENV)/.dev-installed ## Format and fix what can be fixed by itself
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.PHONY: hooks
hooks: $(VENV)/.dev-installed ## Run the checks before each git commit
	$(BIN)/pre-commit install

.PHONY: constraints
constraints: $(VENV)/.bench-installed ## Write the installed versions to constraints.txt
	@{ head -n 1 constraints.txt; $(BIN)/python -m pip freeze --exclude-editable | sort -f; } > $(VENV)/constraints.txt
	@mv $(VENV)/constraints.txt constraints.txt
	@git diff --stat constraints.txt

.PHONY: clean
clean: ## Remove .venv, caches and the data of examples
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .linkspan dist build
