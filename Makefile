# The ways into the project. Each sets up what it needs (tools/setup) and says first what that is and how large;
# ARGS goes to the command behind a target: make test ARGS="-k hours".

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo dev test test-ends test-full check audit bench screenshots clean constraints setup-demo setup-dev

# Spark's launcher reads JAVA_HOME; the Java found may be neither the caller's JAVA_HOME nor on PATH.
RUN = JAVA_HOME="$$(tools/java-home)"
# A test run starts hundreds of Pythons; where bytecode may not be written, each would compile all of ours anew.
TEST = $(RUN) PYTHONDONTWRITEBYTECODE= .venv/bin/pytest -q
# Whole things: Dagster's services and its page, the demo, every engine, the JVM's Iceberg as a second opinion, and
# every stage under every fault.
ENDS = tests/e2e tests/demo tests/conformance tests/oracle tests/crashes/test_fault_matrix.py

demo: setup-demo ## backfill the example flights into Iceberg on an S3 server of its own
	@$(RUN) .venv/bin/lakehouse demo $(ARGS)

dev: setup-demo ## the same lakehouse in Dagster's UI
	@$(RUN) .venv/bin/lakehouse dev $(ARGS)

# In four processes, each with its own Spark and servers, of which some mostly wait; ARGS="-n 0" is one.
test: setup-dev ## every claim once, but those of test-ends
	@$(TEST) -n 4 $(ENDS:%=--ignore=%) $(ARGS)

test-ends: setup-dev ## Dagster's services, its page, the demo, every engine, the JVM's Iceberg, and every fault
	@$(TEST) -n 4 $(ENDS) $(ARGS)

# What takes minutes each; test-ends; every crash point with five seeds; and 20,000 histories of a table: an hour on two cores.
test-full: setup-dev ## 456 hours with faults, a thousand in a storm, kills of every engine, guards taken out, histories
	@failed=0; \
	$(TEST) -m full $(ARGS) || failed=1; \
	$(TEST) -n 4 $(ENDS) || failed=1; \
	LAKEHOUSE_CRASH_SEEDS=5 $(TEST) -n 2 -m "" tests/crashes || failed=1; \
	seq 0 3 | LAKEHOUSE_EXAMPLES=5000 xargs -P 2 -I SEED \
		sh -c '$(TEST) -s tests/maintenance/test_life.py --hypothesis-seed=SEED' || failed=1; \
	exit $$failed

check: setup-dev ## lint, format, types, layers, and what no file here may name
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo
	.venv/bin/pytest -q tests/test_repository.py

audit: ## known vulnerabilities of the versions in constraints.txt; asks a service on the network, so no part of check
	@tools/audit $(ARGS)

bench: setup-dev ## every benchmark, and docs/benchmarks.md of them; ARGS="append sweep" are these
	@$(RUN) .venv/bin/python -m benchmarks $(ARGS)

screenshots: setup-dev ## a backfill in Dagster's page, as pictures for docs/img
	@$(TEST) tests/e2e/test_browser.py --basetemp .lakehouse/screenshots $(ARGS)
	@mkdir -p docs/img && cp .lakehouse/screenshots/*/screenshots/*.png docs/img/ && echo "copied to docs/img"

clean: ## remove .venv, .lakehouse (all data and history) and every cache
	rm -rf .venv .lakehouse .tmp_dagster_home_* build dist *.egg-info spark-warehouse metastore_db derby.log
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -prune -exec rm -rf {} +
	@echo "Removed. Outside of this folder stay pip's downloads (python3 -m pip cache purge) and Debian packages."

constraints: ## renew constraints.txt: the newest versions that pyproject.toml admits
	@tools/constraints

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup-demo:
	@tools/setup demo

setup-dev:
	@tools/setup dev
