# Sightline: `make demo` shows it, `make test` proves it. Everything runs from .venv, which the first target makes.
.DEFAULT_GOAL := help
.PHONY: help demo test node-packages conformance vendored pages lint verify features schema schema-check bench chaos crashpoints lock clean

# A pyenv shim named python3.11 may exist without a Python behind it, so it is tried, not looked up.
PYTHON ?= $(shell python3.11 -c pass 2>/dev/null && echo python3.11 || echo python3)
RUN := .venv/bin/python
READY := .venv/.ready
ROOMS := server graph jobs db rules

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

$(READY): .ci/requirements.txt
	@echo "making .venv with $(PYTHON)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .ci/requirements.txt
	@touch $@

# exec: the recipe's shell becomes the demo, so a signal that make passes on reaches it.
demo: $(READY) ## everything on one machine; PORT and DATA_DIR are settable
	@exec $(RUN) -m server demo

test: $(READY) ## all tests, but bench and chaos
	@exec $(RUN) -m pytest

# Node and npm are needed by these targets and the bench `peers` alone; `npm ci` takes nothing whose hash is not in
# package-lock.json.
NODE_READY := tests/conformance/node_modules/.ready tests/conformance/lint/node_modules/.ready \
	docs/examples/typescript/node_modules/.ready
PAGES_READY := server/pages/source/node_modules/.ready
PEER_READY := tests/bench/peer/node_modules/.ready
$(NODE_READY) $(PAGES_READY) $(PEER_READY): %/node_modules/.ready: %/package-lock.json
	@node -e 'process.exit(Number(parseInt(process.versions.node) < 20))' || { echo "Node 20 or newer is needed"; exit 1; }
	cd $* && npm ci
	@touch $@

node-packages: $(NODE_READY) $(PAGES_READY) # what `make conformance` needs of a registry

conformance: $(READY) $(NODE_READY) $(PAGES_READY) ## what needs Node 20 or newer: the public GraphQL suites and clients, the built page, the TypeScript example
	@exec $(RUN) -m pytest tests/conformance tests/browser/test_built.py tests/examples/test_typescript.py

pages: $(PAGES_READY) ## build server/pages/built, the live page, from server/pages/source
	@cd server/pages/source && node build.mjs && node_modules/.bin/tsc -p .

# Node's npm is needed here; a file that is there with the pinned bytes stays as it is.
vendored: $(READY) ## take the files of others that the pages are made of from npm again
	@exec $(RUN) -m tests.support.vendored

lint: $(READY) ## ruff, mypy, the floors
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

verify: lint schema-check test ## all that must be green before a change lands

features: $(READY) ## every row of docs/features.md with its tests
	@exec $(RUN) -m tests.support.features

schema: $(READY) ## write schema.graphql
	@$(RUN) -m server schema > schema.graphql.new && mv schema.graphql.new schema.graphql

schema-check: $(READY) # schema.graphql is what the code says
	@$(RUN) -m server schema | diff -u schema.graphql - || { echo "schema.graphql is stale: make schema"; exit 1; }

# BENCH names benches, or "--size small"; without a name all of them run, and `peers` needs Node and wrk.
bench: $(READY) $(if $(filter-out --%,$(filter-out small full,$(BENCH))),$(if $(filter peers,$(BENCH)),$(PEER_READY)),$(PEER_READY)) ## measure; prints figures
	@exec $(RUN) -m tests.bench $(BENCH)

chaos: $(READY) ## break things for minutes; SEEDS, FAULTS, one SEED to replay, or BREAK=a wrong design (or all)
	@exec $(RUN) -m tests.chaos $(SEED:%=--seed %) $(SEEDS:%=--seeds %) $(FAULTS:%=--faults %) $(BREAK:%=--break %)

crashpoints: $(READY) ## cut a worker and an api at every message to Postgres; BREAK=a wrong design
	@exec $(RUN) -m tests.chaos crashpoints $(BREAK:%=--break %)

# No host name and no path of this machine goes into the lock; `uv` is any recent one on the PATH.
LOCK := uv pip compile pyproject.toml --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	--no-header --no-annotate
lock: ## pin all packages of pyproject.toml with hashes
	$(LOCK) --extra dev -o .ci/requirements.txt
	$(LOCK) -c .ci/requirements.txt -o .ci/requirements-run.txt

clean: ## remove the environment and caches; data in DATA_DIR stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache schema.graphql.new tests/conformance/node_modules tests/conformance/lint/node_modules server/pages/source/node_modules docs/examples/typescript/node_modules docs/examples/typescript/dist tests/bench/peer/node_modules
	find $(ROOMS) tests -name __pycache__ -type d -prune -exec rm -rf {} +
