# make demo     the whole story on a lab fleet of real SSH devices, through the REST API; stops all it started
# make test     all tests, on SQLite, and those marked "database" again on a private PostgreSQL
# make test-late-browser   the browser tests with each reply 400 ms late: finds one that waits for a page by luck
# make serve    the service, kept running: web, workers, recovery and a private queue (SERVE_ARGS="--port 8080")
# make chaos    what dies at any moment, many rounds on many devices (CHAOS_ROUNDS=20 CHAOS_DEVICES=40, CHAOS_CANCELS=50)
# make bench    this service, Ansible and bare SSH clients on the same devices, into docs/benchmarks.md (as root; an hour)
# make bench-quick   the same in a few minutes, printed only (BENCH_ARGS="--only service --sizes 500")
# make bench-growth  whether the pipeline stays as fast from 1,000 to 10,000 simulated devices (BENCH_ARGS="--devices 100000")
# make screenshots  the pictures of docs/admin.md, taken anew
# make lint     every check that is not a test
# make format   what the formatter and the linter can mend by themselves
# make lock     newest versions into requirements*.txt, with hashes
# Needs git, make and Python >= 3.12 (PYTHON=... to choose one). Each target first sets up what it needs.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test test-late-browser screenshots chaos bench bench-quick bench-growth serve lint format lock run-venv dev-venv bench-venv

export PYTHON
BIN := .venv/bin
PYTHON_CODE := $(wildcard orchestrator lab demo benchmarks tests inventory_plugins ansible_plugins manage.py)
# A process for each core, up to four; a module stays in one, so that its lab or browser is made once.
PYTEST_SPREAD ?= -n auto --maxprocesses 4 --dist loadfile
PYTEST_ARGS ?=
SERVE_ARGS ?=
BENCH_ARGS ?=

help:
	@sed -n 's/^# //p' Makefile

demo: run-venv
	@scripts/install-packages demo
	@$(BIN)/python -m demo

test: dev-venv
	@scripts/install-packages test
	$(BIN)/pytest $(PYTEST_SPREAD) $(PYTEST_ARGS)
	$(BIN)/python -m tests.postgres $(BIN)/pytest -m database $(PYTEST_SPREAD) $(PYTEST_ARGS)

test-late-browser: export BROWSER_LATENCY ?= 400
test-late-browser: dev-venv
	@scripts/install-packages test
	$(BIN)/pytest tests/browser --ignore tests/browser/test_barriers.py $(PYTEST_ARGS)

chaos: export CHAOS_ROUNDS ?= 20
chaos: export CHAOS_CANCELS ?= 50
chaos: export CHAOS_DEVICES ?= 40
chaos: export CHAOS_REPORT ?= $(CURDIR)/.cache/chaos.ndjson
chaos: dev-venv
	@scripts/install-packages demo
	@mkdir -p $(dir $(CHAOS_REPORT)) && rm -f $(CHAOS_REPORT)
	$(BIN)/pytest tests/chaos $(PYTEST_ARGS) || { $(BIN)/python -m tests.chaos $(CHAOS_REPORT); exit 1; }
	@$(BIN)/python -m tests.chaos $(CHAOS_REPORT)

bench: dev-venv bench-venv
	@scripts/install-packages bench
	@$(BIN)/python -m benchmarks $(BENCH_ARGS)

bench-quick: dev-venv bench-venv
	@scripts/install-packages bench
	@$(BIN)/python -m benchmarks --quick $(BENCH_ARGS)

bench-growth: dev-venv
	@scripts/install-packages demo
	@$(BIN)/python -m benchmarks.growth $(BENCH_ARGS)

screenshots: dev-venv
	@scripts/install-packages test
	$(BIN)/pytest -n 0 tests/browser/screenshots.py

serve: run-venv
	@$(BIN)/python manage.py serve $(SERVE_ARGS)

# "check" and "spectacular" read no database; the data directory they may make is theirs alone.
lint: export ORCHESTRATOR_DATA_DIR := $(CURDIR)/.cache/lint
lint: dev-venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy $(PYTHON_CODE)
	$(BIN)/python manage.py check
	$(BIN)/python manage.py makemigrations --check --dry-run
	$(BIN)/python manage.py spectacular --validate --fail-on-warn --file /dev/null

format: dev-venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock:
	@scripts/lock

run-venv:
	@scripts/setup-venv run

dev-venv:
	@scripts/setup-venv dev

# The clients that are compared with us have libraries of their own, which the service must not come to need.
bench-venv: run-venv
	@test -d .venv-bench || $(BIN)/python -m venv .venv-bench
	@cmp -s requirements-bench.txt .venv-bench/.installed || { \
	    .venv-bench/bin/pip install -q --require-hashes -r requirements-bench.txt && \
	    cp requirements-bench.txt .venv-bench/.installed; }
