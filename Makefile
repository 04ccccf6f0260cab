# Every habit of the house. `make` alone lists them.
#
# An environment lives in $(VENV). Stamp files in it say what is done: .built is newer than every Rust source once the
# package is installed (in place, release profile); .extra-NAME once the extra NAME is there.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

BIN := $(CURDIR)/$(VENV)/bin
PY := $(BIN)/python
PIP := $(PY) -m pip --disable-pip-version-check --no-input
export PATH := $(BIN):$(PATH):$(HOME)/.cargo/bin
# One interpreter for every build of pyo3, or maturin, clippy and the tests would each undo the others' work.
export PYO3_PYTHON := $(PY)

RUST := Cargo.toml $(wildcard Cargo.lock) $(shell find rust -name '*.rs' -o -name Cargo.toml)

.PHONY: help
help: ## Say what there is to make
	@echo "usage: make TARGET [PYTHON=python3.12] [ARGS='...']"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

$(VENV)/.created:
	@command -v cargo >/dev/null || { echo "unitmass is built with Rust: see https://rustup.rs" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "unitmass needs Python 3.11 or later: make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.built: $(VENV)/.created pyproject.toml $(RUST)
	$(PIP) install --quiet --editable .
	@touch $@

# The package is there already, so this installs only what the extra asks for.
$(VENV)/.extra-%: pyproject.toml | $(VENV)/.built
	$(PIP) install --quiet "unitmass[$*]"
	@touch $@

# The one on PATH; else from source, which takes minutes.
$(VENV)/.nextest: | $(VENV)/.created
	@cargo nextest --version || cargo install --locked cargo-nextest
	@touch $@

.PHONY: demo
demo: $(VENV)/.built $(VENV)/.extra-cli $(VENV)/.extra-plot ## Score real logits, simulate genes, count ducks, and draw them (ARGS: its options)
	$(BIN)/unitmass demo $(ARGS)

.PHONY: test
test: $(VENV)/.built $(VENV)/.extra-dev $(VENV)/.nextest ## Run every test: Rust, its doc tests, pytest with doctests (ARGS: pytest's)
	cargo nextest run --workspace
	cargo test --doc --workspace
	$(PY) -m pytest $(ARGS)

.PHONY: dsmts
dsmts: $(VENV)/.built $(VENV)/.extra-sbml ## Run the cases of the SBML stochastic test suite in a folder: DIR=folder (ARGS: --n and others)
	$(PY) tests/dsmts.py $(or $(DIR),$(error dsmts needs DIR=folder)) $(ARGS)

.PHONY: check
check: $(VENV)/.built $(VENV)/.extra-dev ## Check formatting, lints, types, stubs and docstrings
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
	ruff check .
	ruff format --check .
	mypy
	stubtest unitmass._core
	numpydoc lint python/unitmass/*.py python/unitmass/losses/*.py python/unitmass/maps/*.py

# Apart from .venv: torch is large, and fastprox asks for Python 3.12.
BENCH_PYTHON ?= $(shell for p in $(PYTHON) python3.14 python3.13 python3.12 $(HOME)/.pyenv/versions/3.1[2-9]*/bin/python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && echo $$p && exit; done; echo $(PYTHON))

# Which benches/bench_*.py to run; ARGS goes to each of them.
FAMILY ?= maps losses gillespie sectors

.PHONY: bench
bench: ## Time the package beside its peers, then the kernels alone (ARGS: --quick; FAMILY=gillespie for one and its options)
	@$(MAKE) --no-print-directory VENV=.venv-bench PYTHON=$(BENCH_PYTHON) .venv-bench/.built .venv-bench/.extra-bench
	@for family in $(FAMILY); do (set -x; .venv-bench/bin/python benches/bench_$$family.py $(ARGS)); done
	cargo bench

.PHONY: docs
docs: $(VENV)/.built $(VENV)/.extra-docs ## Build the documentation; warnings are errors
	sphinx-build -W --keep-going -b html docs docs/_build/html
	@echo "open $(CURDIR)/docs/_build/html/index.html"

.PHONY: clean
clean: ## Remove everything that was built, drawn or installed here
	rm -rf .venv .venv-bench target dist demo docs/_build docs/gallery docs/reference/generated docs/sg_execution_times.rst
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	rm -f python/unitmass/_core*.so python/unitmass/_core*.pyd
	find python tests benches examples docs rust -name __pycache__ -type d -prune -exec rm -rf {} +
