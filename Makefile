# Every target sets up what it needs; that is quick the second time.
VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= python3
# The CPU build of torch. For a GPU: make setup TORCH_INDEX=https://download.pytorch.org/whl/cu130
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH := $(shell grep '^torch==' constraints.txt)
STAMP := $(VENV)/.installed

.PHONY: help setup demo test check exports soak bench-train bench-completions bench-faults bench-store bench-scale bench-servers bench-trace clean

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 13

setup: $(STAMP) .dvc/tmp ## Python environment and the small model

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --retries 1 --extra-index-url $(TORCH_INDEX) $(TORCH)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[train,hub,math,dev]'
	$(BIN)/python -m lema.train.embedded
	touch $@

# A fresh clone knows the committed .dvc/config; its cache and temporary folders appear at first use.
.dvc/tmp:
	mkdir -p $@

demo: setup ## Make the dataset, fine-tune on it and write the report
	$(BIN)/lema repro
	@echo "Report: data/demo/report.html"

test: setup ## All tests
	$(BIN)/pytest -q -n 2 --dist loadfile --no-loadscope-reorder

check: setup ## Style, types, floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/lema check
	$(BIN)/lema schema --check

# TRL in an environment of its own, which sees the packages of the other one.
TRL := .venv-trl
SITE := -c "import site; print(site.getsitepackages()[0])"
$(TRL)/.installed: $(STAMP)
	$(BIN)/python -m venv $(TRL)
	$(BIN)/python $(SITE) > $$($(TRL)/bin/python $(SITE))/lema.pth
	$(TRL)/bin/pip install --quiet --no-deps trl==1.16.0
	touch $@

exports: $(TRL)/.installed ## Train a step on exported files in TRL
	$(TRL)/bin/python -m pytest -q tests/train/test_exports.py

soak: setup ## Every shipped recipe at small scale, in benchmarks/results/recipes.md; a fuzz of recipes
	$(BIN)/python benchmarks/fuzz_recipes.py
	$(BIN)/python benchmarks/recipes.py

bench-train: setup ## Training speed against TRL, in benchmarks/results/train.md
	$(BIN)/python benchmarks/train.py

bench-completions: setup ## Speed of requests against bare clients, Curator and distilabel
	$(BIN)/python benchmarks/completions.py

bench-faults: setup ## Requests through faults and limits, in benchmarks/results/faults.md
	$(BIN)/python -m benchmarks.faults

bench-store: setup ## A million completions, and a rerun against Curator's, in benchmarks/results/store.md
	$(BIN)/python benchmarks/store.py

bench-scale: setup ## Memory of every stage at 20,000 and 100,000 questions, in benchmarks/results/scale.md
	$(BIN)/python benchmarks/scale.py

bench-trace: setup ## Modules and functions that a completion and a hit go through, in benchmarks/results/trace.md
	$(BIN)/python -m benchmarks.trace

bench-servers: setup ## One recipe on servers of others and on vLLM, in benchmarks/results/servers.md
	$(BIN)/python benchmarks/servers.py

clean: ## Remove what can be made again; paid completions stay
	rm -rf $(VENV) .venv-* .mypy_cache .ruff_cache .pytest_cache
