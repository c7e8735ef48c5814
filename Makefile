.DEFAULT_GOAL := help
SHELL := /bin/bash -euo pipefail
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PROTOS := $(shell cd proto && find instar -name '*.proto' | sort)
SERVICES := $(filter %_service.proto,$(PROTOS))
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check
SEEDS ?= 50
NODES ?= 20
STORY_MINUTES ?= 30
FIRST_SEED ?= 1
JOBS ?= 3
EXAMPLES ?= 5000
RUNS ?= 20
MINUTES ?= 10
SOURCE ?= both
BENCHES ?= agent_footprint swap_pause module_swap plan rollout_core emergency ingest judge reconnect_storm 'heartbeat --tls'
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup lock generate generate-check format lint types layers core check test golden judge-figures properties simulate \
  simulate-nightly planted fuzz faults drivers bench judge-e2e soak deb wheels sbom audit-deps demo clean

help:  ## print this list
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: $(READY)  ## make .venv with everything
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cannot build: Python 3.11 or newer is needed")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the locked dependencies into $(VENV) ..." >&2
	@$(PIP) --require-hashes --no-deps -r requirements.lock  # the lock is whole: nothing is left to resolve
	@$(PIP) --no-index --no-deps --no-build-isolation -e .
	@$(BIN)/python -m compileall -q controller agent generated  # once, not in each of the thousands of processes of the tests
	@touch $@

PIN := uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links
lock: $(READY)  ## resolve the pins again
	@$(PIN) --all-extras pyproject.toml -o requirements.lock
	@$(PIN) controller/packaging/distribution/audit.in -o controller/packaging/distribution/audit.lock

GENERATE = rm -rf $(1)/instar && mkdir -p $(1) \
	&& python -m grpc_tools.protoc -Iproto --python_out=$(1) --mypy_out=quiet:$(1) $(PROTOS) \
	&& python -m grpc_tools.protoc -Iproto --grpc_python_out=$(1) --mypy_grpc_out=quiet,only_async:$(1) $(SERVICES) \
	&& find $(1)/instar -type d -exec touch {}/__init__.py \; && touch $(1)/instar/py.typed

generate: $(READY)  ## make generated/ from proto/
	@$(call GENERATE,generated)
generate-check: $(READY)  ## fail if generated/ is stale
	@fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; $(call GENERATE,$$fresh); diff -r -x __pycache__ "$$fresh" generated

format: $(READY)  ## format the code and proto/
	@ruff format . && ruff check --fix -q . ; buf format -w proto
lint: $(READY)  ## ruff and buf
	@ruff check -q . && ruff format --check -q . && buf lint proto && buf format -d --exit-code proto
types: $(READY)  ## mypy, strict
	@mypy
layers: $(READY)  ## who may import whom
	@lint-imports --no-cache
core: $(READY)  ## the pure cores' tests, with branch coverage
	@pytest -q -n $(JOBS) -m 'not slow' tests/controller/core tests/agent/core --cov --cov-report=
	@coverage report --include='controller/core/*'
	@coverage report --include='agent/core/*'
check: generate-check lint types layers core  ## what CI runs first: static checks and the pure cores

test: $(READY)  ## every test, several files at a time: most of a live test is waiting; BESIDES='MARKS' leaves some out
	@pytest -q -n $(JOBS) --dist loadfile -m 'not alone$(if $(BESIDES), and not ($(BESIDES)))'
	@pytest -q -m alone
properties: $(READY)  ## EXAMPLES=5000: the properties of a rollout and of a trigger, over so many lives
	@INSTAR_EXAMPLES=$(EXAMPLES) pytest -q -n $(JOBS) --timeout 7200 --hypothesis-profile explore \
	  tests/controller/core/test_properties.py tests/controller/core/triggers/test_machine_properties.py
judge-figures: $(READY)  ## compute anew what is documented of the judge; then read the diff
	@INSTAR_FIGURES=all pytest -q --timeout 7200 tests/controller/core/analysis --rewrite
golden: $(READY)  ## rewrite the golden scenarios; then read the diff
	@pytest -q tests/controller/core tests/agent/core --rewrite
simulate: $(READY)  ## SEEDS=50 NODES=20 STORY_MINUTES=30: the seeded simulator
	@python -m tests.simulation --seeds $(SEEDS) --nodes $(NODES) --story-minutes $(STORY_MINUTES) -o json
simulate-nightly: $(READY)  ## twenty thousand seeds; FIRST_SEED=1
	@python -m tests.simulation --seeds 20000 --first-seed $(FIRST_SEED) --nodes $(NODES) -o json
planted: $(READY)  ## known bugs, put into the product one at a time: does the simulator find each?
	@python -m tests.simulation --planted -o json
fuzz: $(READY)  ## MINUTES=10: any message to every method, to the agent, and any manifest; does anything break?
	@INSTAR_FUZZ_MINUTES=$(MINUTES) pytest -q --timeout 7200 tests/security/test_fuzz.py tests/security/test_fuzz_commands.py
faults: $(READY)  ## every crash point of node and controller, full and failing disks, power cuts, clock steps, bad versions; FAULTS=--short
	@python -m tests.faults $(FAULTS) -o json
drivers: $(READY)  ## the conformance suite for every driver, and nginx and gunicorn under load
	@python -m tests.drivers -o json
bench: $(READY)  ## the benchmarks, one JSON document each; BENCHES="plan 'heartbeat --tls'" for some of them
	@for bench in $(BENCHES); do python -m tests.bench $$bench -o json; done
judge-e2e: $(READY)  ## RUNS=20 SOURCE=both: harmful and harmless releases behind the judge, by heartbeats and by Prometheus
	@python -m tests.integration.judge_runs --runs $(RUNS) --source $(SOURCE) -o json
soak: $(READY)  ## a thousand operations on one agent: does it grow?
	@python -m tests.bench agent_soak -o json
deb: $(READY)  ## the agent's Debian package in dist/
	@python agent/packaging/build_deb.py dist
wheels: $(READY)  ## KEY=FILE: wheels, source, bill of materials and sums of the last commit in dist/, signed by the key
	@python -m controller.packaging.distribution wheels dist $(if $(KEY),--key '$(KEY)')
sbom: $(READY)  ## the bill of materials of the lock in dist/
	@python -m controller.packaging.distribution sbom dist
audit-deps: $(READY)  ## what is known to be wrong with what the lock pins; Error 7 where nobody can say
	@python -m controller.packaging.distribution audit
demo: $(READY)  ## the main job: a live service upgraded on five nodes
	@instar demo
clean:  ## remove what was made
	@rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage
