# Everything goes through here; `make` alone prints the help.

SUITE ?= default
DEVICE ?= auto
WORKERS ?=
RESULTS ?= results
PORT ?= 5000
TASK ?=
PYTHON ?= python3
# Once another torch was asked for, the environment keeps it.
TORCH ?= $(patsubst .venv/.stamp-torch-%,%,$(wildcard .venv/.stamp-torch-*))

BIN := .venv/bin
STAMP := .venv/.stamp$(TORCH:%=-torch-%)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help bench report dashboard lab test test-slow test-long perf check verify clean

help: ## print this help
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  SUITE=$(SUITE) DEVICE=auto|cpu|cuda WORKERS=<one per core> RESULTS=$(RESULTS) PORT=$(PORT)"
	@echo "  PYTHON=$(PYTHON) (3.11 to 3.13) makes the environment; TORCH=2.11.0 puts that version in it"

bench: $(STAMP) ## run a suite's missing trials, print the table, build the report
	@$(BIN)/rnnbench run $(SUITE) --device $(DEVICE) --results $(RESULTS) $(if $(WORKERS),--workers $(WORKERS))

report: $(STAMP) ## build a suite's report again from its results
	@$(BIN)/rnnbench report $(SUITE) --device $(DEVICE) --results $(RESULTS)

verify: $(STAMP) ## hold our results against published ones, after running what is missing; TASK=parity: on one task
	@$(BIN)/rnnbench verify $(TASK) --device $(DEVICE) --results $(RESULTS) $(if $(WORKERS),--workers $(WORKERS))

dashboard: $(STAMP) ## open MLflow on this machine: http://127.0.0.1:5000, there "Model training"
	@mkdir -p $(RESULTS)
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true \
	$(BIN)/mlflow server --host 127.0.0.1 --port $(PORT) --workers 1 \
		--backend-store-uri sqlite:///$(abspath $(RESULTS))/mlflow.db \
		--artifacts-destination $(abspath $(RESULTS))/mlartifacts

lab: $(STAMP) ## open the notebooks in JupyterLab on this machine
	$(BIN)/jupyter lab --ip 127.0.0.1 --notebook-dir notebooks

test: $(STAMP) ## run the tests, minutes on two cores
	$(BIN)/python -m pytest -n auto

test-slow: $(STAMP) ## run the slow tests: kills, timeouts, whole suites
	$(BIN)/python -m pytest -m slow

test-long: $(STAMP) ## run the longest tests: sixty kills of every kind of process
	$(BIN)/python -m pytest -m long

perf: $(STAMP) ## compare speed with bare torch.nn and hmmlearn, and what 5,000 trials cost, on an idle machine
	@for script in tests/perf_*.py; do echo; $(BIN)/python $$script || exit 1; done

check: $(STAMP) ## lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean: ## remove caches and the environment; results/ is never touched
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path "./results/*" -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
		echo "rnnbench needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is not one; name it: make $(MAKECMDGOALS) PYTHON=python3.12"; \
		exit 2; }
	@rm -f .venv/.stamp*
	$(BIN)/python -c "import pip" 2>/dev/null || $(PYTHON) -m venv --clear .venv
	sed '$(if $(TORCH),s/^torch==.*/torch==$(TORCH)/)' constraints.txt > .venv/constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c .venv/constraints.txt -e ".[dev]"
	@touch $@
