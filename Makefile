# weightaug: `make help` lists the targets. Everything sets itself up in .venv first.
SCALE  ?= full
SEEDS  ?=
ONLY   ?=
A      ?= git:HEAD
B      ?= reports
DEVICE ?= auto
PAPER  ?= damp
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt

VENV    := .venv
BIN     := $(VENV)/bin
READY   := $(VENV)/.ready
OPTIONS := --scale $(SCALE) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(ONLY),--only $(ONLY)) device=$(DEVICE)
TABLES  := table1 table2 table3 figure3 figure4 figure5 figure6 figure7 accuracy flops

.PHONY: help setup $(TABLES:%=reproduce-%) reproduce-all report compare wandb-sync test lint regress bench prove-ray prove-slurm store-report clean
.DEFAULT_GOAL := help

help:  ## this list
	@printf "  make %-24s %s\n" reproduce-TABLE "train and report a table at SCALE: $(TABLES)"
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | awk -F '\t' '{printf "  make %-24s %s\n", $$1, $$2}'
	@echo "Variables: SCALE=full|reduced|smoke (now $(SCALE)) SEEDS=N|0,2|3..7 ONLY=KEY=VALUE DEVICE=auto|cpu|cuda (now $(DEVICE)) PAPER=damp|was (now $(PAPER))"

setup: $(READY)  ## make .venv with the pinned packages
$(READY): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "weightaug: error: Python 3.11 or later is needed, $(PYTHON) is older; set PYTHON=python3.12" >&2; exit 2; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "weightaug: installing packages into $(VENV) (several GB with PyTorch, a few minutes)" >&2
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c $(CONSTRAINTS) -e '.[dev]'
	@touch $@

reproduce-accuracy reproduce-flops: PAPER := was
$(TABLES:%=reproduce-%): reproduce-%: $(READY)
	@$(BIN)/weightaug reproduce $(PAPER)/$* $(OPTIONS)

reproduce-all: $(READY)  ## every registered table of PAPER at SCALE
	@tables=$$($(BIN)/weightaug list tables | awk '$$1 ~ "^$(PAPER)/" {print $$1}'); \
	  test -n "$$tables" || { echo "weightaug: error: no table of PAPER=$(PAPER) is registered" >&2; exit 2; }; \
	  for table in $$tables; do $(BIN)/weightaug reproduce $$table $(OPTIONS) || exit $$?; done

report: $(READY)  ## make the reports of PAPER at SCALE again from their cards, without training
	@tables=$$($(BIN)/weightaug list tables | awk '$$1 ~ "^$(PAPER)/" {print $$1}'); \
	  test -n "$$tables" || { echo "weightaug: error: no table of PAPER=$(PAPER) is registered" >&2; exit 2; }; \
	  status=0; for table in $$tables; do $(BIN)/weightaug report $$table $(OPTIONS) || status=$$?; done; exit $$status

compare: $(READY)  ## what changed beyond noise between A and B: stores, folders of cards or git:REVISION
	@$(BIN)/weightaug compare $(A) $(B)

wandb-sync: $(READY)  ## fill W&B again from all cards in runs/
	@$(BIN)/weightaug wandb-sync

test: $(READY)  ## style, types and tests
	@$(BIN)/ruff check . && $(BIN)/ruff format --check -q . && $(BIN)/mypy
	@$(BIN)/python -m pytest tests --ignore=tests/regression -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

regress: $(READY)  ## reduced-schedule training of each method against stored losses and, by `compare`, stored cards
	@$(BIN)/python -m pytest tests/regression

bench: $(READY)  ## step time of each method relative to a hand-written loop, and reports/speed.md
	@$(BIN)/python -m pytest benchmarks/speed --benchmark-only --benchmark-columns=median,iqr,rounds
	@if $(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; \
	  then PYTHON=$(BIN)/python benchmarks/speed/gpu.sh; else $(BIN)/python -m benchmarks.speed.report --measure cpu; fi

prove-ray: $(READY)  ## a table on a real Ray cluster that loses a node: its cards are those of an undisturbed run
	@RECORDS=docs/engines $(BIN)/python -m pytest tests/engines/prove_ray.py

prove-slurm: $(READY)  ## the same on a real Slurm (Debian: apt install slurm-wlm) whose jobs are preempted
	@RECORDS=docs/engines $(BIN)/python -m pytest tests/engines/prove_slurm.py

store-report: $(READY)  ## simulate 200 workers on one card store, and make reports/store.md (a few minutes)
	@$(BIN)/python -m benchmarks.simulation.report --cells 1000 5000 10000 20000

clean:  ## remove .venv and caches; keeps runs and reports
	@rm -rf $(VENV) build ./*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
