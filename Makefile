# Needs Python 3.11 or newer, make and a package index that pip knows. Nothing else.

PYTHON ?= python3
PORT ?= 8000
PIP_TOOLS = pip-tools==7.6.2
LONG_FILE = 300

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SERVE_LOCKS := requirements-build.lock requirements.lock
DEV_LOCKS := requirements-build.lock requirements-dev.lock

.DEFAULT_GOAL := help
.PHONY: help serve demo check test test-browser bench bench-growth test-clients docs prove-dockerfile lock clean

help:  ## what can be made
	@sed -n 's/^\([a-z-]*\):[^#]*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 26

serve: .venv/.serve  ## run the service on http://127.0.0.1:$(PORT), on SQLite unless TOLLGATE_DATABASE_URL says otherwise
	$(BIN)/tollgate serve --port $(PORT)

demo: .venv/.serve  ## see the whole river at work, on recorded usage
	$(BIN)/tollgate demo

check: .venv/.dev  ## style, types, layers and the rules of the architecture
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict
	MYPYPATH=sdk $(BIN)/mypy --strict -p tollgate_client
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/architecture
	@find app -name '*.py' -exec wc -l {} + | awk '$$2 != "total" && $$1 > $(LONG_FILE) \
		{ printf "note: %s has %d lines; does it still decide one thing?\n", $$2, $$1 }'

test: .venv/.dev  ## every test, on SQLite and on a real PostgreSQL (TEST_POSTGRES_URL, else one of our own)
	$(BIN)/python -m pytest

test-browser: .venv/.dev  ## every page of the dashboard in a real browser; CHROMIUM=path where it is not found
	CHROMIUM='$(CHROMIUM)' $(BIN)/python -m pytest -o addopts='-q --strict-markers --strict-config' tests/browser $(BROWSER)

bench: .venv/.dev  ## measure against an empty endpoint on this machine, about five minutes
	$(BIN)/python -m benchmarks $(BENCH)

bench-growth: .venv/.dev  ## measure the same work while the log grows, on both engines, about half an hour
	$(BIN)/python -m benchmarks.growth $(BENCH)

test-clients: .venv/.dev  ## run other people's clients against the service; CLIENTS="codex litellm" for some, needs npm
	$(BIN)/python -m clients $(CLIENTS)

docs: .venv/.dev  ## write docs/configuration.md and docs/schema.md anew from the code
	$(BIN)/python -m tools.generate_docs

prove-dockerfile: .venv/.dev  ## run every step of the Dockerfile in a temporary folder, without a container engine
	$(BIN)/python -m tools.prove_dockerfile

lock:  ## resolve pyproject.toml anew and pin what was found, with hashes
	test -x build/lock/bin/pip-compile || $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip --disable-pip-version-check --quiet install '$(PIP_TOOLS)'
	$(COMPILE) --only-build-deps --build-deps-for wheel --build-deps-for editable \
		--output-file requirements-build.lock pyproject.toml
	$(COMPILE) --output-file requirements.lock pyproject.toml
	$(COMPILE) --extra dev --constraint requirements.lock \
		--output-file requirements-dev.lock pyproject.toml
lock: export CUSTOM_COMPILE_COMMAND = make lock
COMPILE = build/lock/bin/pip-compile --quiet --upgrade --generate-hashes --strip-extras --allow-unsafe \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links

clean:  ## remove what was built, the environment too; databases stay
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

# ---- the environment: made when it is missing, brought up to date when a lock is newer -----------

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; say which one: make PYTHON=…")'
	$(PYTHON) -m venv .venv

.venv/.serve: pyproject.toml $(SERVE_LOCKS) | .venv/bin/python
	$(PIP) install --require-hashes $(SERVE_LOCKS:%=-r %)
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

.venv/.dev: pyproject.toml $(DEV_LOCKS) | .venv/bin/python
	$(PIP) install --require-hashes $(DEV_LOCKS:%=-r %)
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@ .venv/.serve
