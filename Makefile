# Development commands; `make` alone lists them. Needs Python >= 3.11, pip and make; uv is installed if it is missing.

PYTHON ?= python3
ARGS ?=

# Runs uv instead of searching the PATH for it: a version manager's stub may be found and still not run.
UV := $(shell uv --version >/dev/null 2>&1 && echo uv || echo .uv/bin/uv)
NEEDS_UV := $(filter .uv/%,$(UV))
# --frozen: use the lock file unchanged.
RUN := $(UV) run --frozen
# Runs in an empty directory with a database of its own, so that no .env can point it to a real one.
ALEMBIC = $(if $(NEEDS_UV),$(CURDIR)/)$(UV) run --frozen --project "$(CURDIR)" alembic -c "$(CURDIR)/pyproject.toml"

.DEFAULT_GOAL := help
.PHONY: help run test test-browser test-clients test-vendors test-live screenshots lint type format bench fuzz wheel migration docs hooks clean

help: ## Show this list
	@awk -F ':[^#]*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

run: | $(NEEDS_UV) ## Start the gateway with its own database; ARGS="--port 9000" and the like
	@trap : INT; $(RUN) video-gateway serve $(ARGS) || [ $$? = 130 ] # Ctrl-C is no error

test: | $(NEEDS_UV) ## Run all tests; ARGS="tests/jobs -k lease" for some of them
	@$(RUN) --group browser pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

test-browser: | $(NEEDS_UV) ## Run the tests of the console in Chromium alone; they are part of `test`
	@$(RUN) --group browser pytest -n auto --dist loadfile tests/browser $(ARGS)

screenshots: | $(NEEDS_UV) ## Take pictures of every page of the console, into screenshots/ and docs/images/
	@$(RUN) --group browser python -m tools.screenshots $(ARGS)

lint: | $(NEEDS_UV) ## Check style, formatting and the import rules
	@$(RUN) ruff check
	@$(RUN) ruff format --check
	@$(RUN) lint-imports --no-logo

type: | $(NEEDS_UV) ## Check types
	@$(RUN) --group browser mypy

format: | $(NEEDS_UV) ## Format the code and fix what can be fixed
	@$(RUN) ruff check --fix
	@$(RUN) ruff format

bench: | $(NEEDS_UV) ## Measure speed against bare routes on the same machine
	@$(RUN) python -m benchmarks $(ARGS)

fuzz: | $(NEEDS_UV) ## Run schemathesis against a gateway of its own; ARGS="--max-examples 200" for longer
	@PYTHONPATH=tests $(RUN) --group fuzz python -m fuzz $(ARGS)

test-clients: | $(NEEDS_UV) ## Drive the real clients in environments of their own; URL=... KEY=... for a gateway that runs
	@PYTHONPATH=tests $(RUN) python -m clients $(ARGS)

test-vendors: | $(NEEDS_UV) ## Drive the vendors' own SDKs against the fakes; ARGS="fal google" for some of them
	@PYTHONPATH=tests $(RUN) --with trustme python -m vendors $(ARGS)

test-live: | $(NEEDS_UV) ## Make the cheapest video of each vendor whose key is set; costs money; ARGS="-k fal" for one
	@$(RUN) pytest -rs -p no:xdist tests/live/vendors.py $(ARGS)

wheel: | $(NEEDS_UV) ## Build the package and check it as users install it, without the lock file
	@$(RUN) python -m tools.check_wheel

migration: | $(NEEDS_UV) ## Write the migration for changed models in app/db/models: m="add colour to videos"
	@test -n "$(m)" || { echo 'say what changes: make migration m="add colour to videos"' >&2; exit 2; }
	@scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && chmod 711 "$$scratch" && cd "$$scratch" \
		&& unset GATEWAY_DATABASE_URL && export GATEWAY_DATA_DIR="$$scratch/data" \
		&& $(ALEMBIC) upgrade head && $(ALEMBIC) revision --autogenerate -m "$(m)"
	@$(RUN) ruff check --quiet --fix migrations/versions
	@$(RUN) ruff format --quiet migrations/versions

docs: | $(NEEDS_UV) ## Write the README's tables and CONTRIBUTING's layout from the code
	@$(RUN) python -m tools.docs

hooks: | $(NEEDS_UV) ## Run lint and type before every commit
	@$(RUN) prek install

clean: ## Delete caches and build products; data/ and .venv/ stay
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage htmlcov build dist
	@find app migrations tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# A separate virtual environment, so that no installed package changes and a system Python that refuses `pip install`
# (PEP 668) works, too. Where the venv module lacks pip, as on a bare Debian, pip's --target is used.
.uv/bin/uv:
	@echo "uv is not installed: installing it into .uv/" >&2
	@{ $(PYTHON) -m venv .uv && .uv/bin/python -m pip install --quiet --disable-pip-version-check uv; } >/dev/null 2>&1 \
		|| { rm -rf .uv && $(PYTHON) -m pip install --quiet --disable-pip-version-check --root-user-action ignore --target .uv uv; } \
		|| { rm -rf .uv; echo "uv could not be installed; see the message above" >&2; exit 1; }
