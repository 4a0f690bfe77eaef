# make demo      the whole way once: encrypt, push, sign, attest, pull, run, three refusals
# make test      the test suite
# Both do all their set-up on a fresh machine; see CONTRIBUTING.md for the rest.

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
IMAGE ?=

.PHONY: demo test bench asan tsan fuzz mutants soak peers lock dev check coverage lint types layers docs fmt build clean

demo: ## run the demo; IMAGE=oci:PATH:TAG takes another image
	@.ci/setup demo
	@$(BIN)/python examples/demo.py $(if $(IMAGE),--image $(IMAGE))

test:
	@.ci/setup test
	$(BIN)/pytest -n auto --dist worksteal

bench: ## ratios to floors and peers of the same run; BENCH="--mib 1024 --json FILE"
	@.ci/setup bench
	$(BIN)/python benchmarks/run.py $(BENCH)

asan: ## the C core for memory errors and undefined behaviour: C tests, then Python's of the core
	@.ci/setup test
	$(BIN)/pytest -q tests/unit/core/test_c_half.py -k plain_half
	.ci/sanitize address

tsan: ## the same for data races
	@.ci/setup test
	$(BIN)/pytest -q tests/unit/core/test_c_half.py -k data_race
	.ci/sanitize thread

fuzz: ## any bytes as tar, gzip, zstd, layer: each for FUZZ_SECONDS (60), on from build/fuzz
	@.ci/setup test
	FUZZ_SECONDS=$(or $(FUZZ_SECONDS),60) $(BIN)/pytest -q -s tests/fuzz

mutants: ## whether tests notice a wrong line where trust is decided; MODULE=imagers/sign/judge.py
	@.ci/setup test
	nice $(BIN)/python tests/mutation/run.py $(MODULE)

soak: ## guests and pulls without end, through faults, for SOAK_SECONDS (600): nothing grows
	@.ci/setup test
	$(BIN)/python tests/soak/run.py $(or $(SOAK_SECONDS),600)

peers: ## cosign 2 and 3 and notation out of newer Debian suites, for the tests that run them
	@.ci/peers

lock: ## write .ci/requirements.txt anew, with the newest releases that are allowed
	@.ci/lock

dev:
	@.ci/setup test

check: test coverage lint types layers docs

# The floor and the packages that it is about: pyproject.toml.
coverage:
	@.ci/setup test
	$(BIN)/pytest -q -n auto --dist worksteal --cov --cov-report=term \
		tests/unit/model tests/unit/pki tests/unit/encrypt tests/unit/sign tests/unit/kbs tests/unit/evidence tests/unit/pull

lint:
	@.ci/setup test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror imagers/core/src/*.[ch]

types:
	@.ci/setup test
	$(BIN)/mypy
	$(BIN)/mypy plugins/*/imagers_*

layers:
	@.ci/setup test
	$(BIN)/pytest -q tests/test_layers.py tests/test_c_lint.py

docs:
	@.ci/setup test
	$(BIN)/pytest -q tests/test_docs.py

fmt:
	@.ci/setup test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix --exit-zero .
	$(BIN)/clang-format -i imagers/core/src/*.[ch]

build:
	@.ci/setup test
	$(BIN)/python -m build --wheel --no-isolation

clean:
	rm -rf build dist .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
