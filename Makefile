# SPDX-License-Identifier: Apache-2.0
# make demo      the whole way once: encrypt, push, sign, attest, pull, run, three refusals
# make test      the test suite
# Both do all their set-up on a fresh machine; `make dev` is the set-up to change the code, without
# the tools of other projects that some tests run. CONTRIBUTING.md has the rest.

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
IMAGE ?=

.PHONY: demo test dev check lint types fmt bench asan tsan fuzz mutants faults soak peers lock build clean

demo: ## run the demo; IMAGE=oci:PATH:TAG takes another image
	@.ci/setup demo
	@$(BIN)/python examples/demo.py $(if $(IMAGE),--image $(IMAGE))

test: ## COVERAGE=1 measures too, and fails below the floor of pyproject.toml
	@trap 'echo "make test: $$((SECONDS / 60)) min $$((SECONDS % 60)) s"' EXIT; \
	.ci/setup test && $(BIN)/pytest -n auto --dist worksteal $(if $(COVERAGE),--cov)

dev: ## what is needed to change the code, and to run the tests that need no other program
	@.ci/setup dev

check: COVERAGE = 1
check: test lint types ## what CI runs, the sanitizers and the demo aside

lint:
	@.ci/setup dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror imagers/core/src/*.[ch]

types:
	@.ci/setup dev
	$(BIN)/mypy
	$(BIN)/mypy plugins/*/imagers_* examples

fmt:
	@.ci/setup dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix --exit-zero .
	$(BIN)/clang-format -i imagers/core/src/*.[ch]

bench: ## ratios to floors and peers of the same run; BENCH="--mib 1024 --json FILE"
	@.ci/setup bench
	$(BIN)/python benchmarks/run.py $(BENCH)

asan: ## the C core for memory errors and undefined behaviour: C tests, then Python's of the core
	@.ci/setup dev
	$(BIN)/pytest -q tests/unit/core/test_c_half.py -k plain_half
	.ci/sanitize address

tsan: ## the same for data races
	@.ci/setup dev
	$(BIN)/pytest -q tests/unit/core/test_c_half.py -k data_race
	.ci/sanitize thread

fuzz: ## any bytes as tar, gzip, zstd, layer: each for FUZZ_SECONDS (60), on from build/fuzz
	@.ci/setup test
	FUZZ_SECONDS=$(or $(FUZZ_SECONDS),60) $(BIN)/pytest -q -s tests/fuzz

mutants: ## whether tests notice a wrong line where trust is decided; MODULE=imagers/sign/judge.py
	@.ci/setup test
	nice $(BIN)/python tests/mutation/run.py $(MODULE)

soak: ## guests and pulls without end, through faults, for SOAK_SECONDS (600): nothing grows
	@.ci/setup dev
	$(BIN)/python tests/soak/run.py $(or $(SOAK_SECONDS),600)

faults: ## SEEDS (1000) pulls through faults; as many of brokers that are killed, half over SQLite, half over PostgreSQL
	@.ci/setup test
	nice $(BIN)/python tests/faults/pulls.py $(or $(SEEDS),1000)
	nice $(BIN)/python tests/faults/brokers.py --store sqlite $$(( $(or $(SEEDS),1000) / 2 ))
	nice $(BIN)/python tests/faults/brokers.py --store postgresql $$(( $(or $(SEEDS),1000) / 2 ))

peers: ## cosign 2 and 3 and notation out of newer Debian suites, other verifiers, a fuzzer, for the tests
	@.ci/peers

lock: ## write .ci/requirements.txt anew, with the newest releases that are allowed
	@.ci/lock

build:
	@.ci/setup dev
	$(BIN)/python -m build --wheel --no-isolation

clean:
	rm -rf build dist .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis imagers/core/*.so
