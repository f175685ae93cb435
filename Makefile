# `make` or `make help` lists the targets.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
SNAKEMAKE := $(BIN)/snakemake
STUDY ?= vggt-eth3d

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slurm lint format schemas vram-table gpu-records pretrain pretrain-vae clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(VENV)/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or later is needed; name it with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements.txt
	@touch $@

install: $(VENV)/installed  ## the virtual environment .venv, from requirements.txt

demo: install  ## the demo study: real photographs to report, about 4 minutes on 2 CPU cores
	@$(SNAKEMAKE) --profile local --config studies=$(STUDY) scale=demo
	@echo "report: results/demo/$(STUDY)/report.html"

test: install  ## unit and workflow tests
	$(BIN)/python -m pytest

test-slurm: install  ## the demo on a real SLURM that the tests boot on this machine (Debian, root)
	$(BIN)/python -m pytest -m slurm

lint: install  ## ruff, snakefmt, snakemake --lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(SNAKEMAKE) --lint

format: install  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile rules

schemas: install  ## config/schemas and docs/settings.md, from the models
	$(BIN)/python scripts/write_schemas.py

vram-table: install  ## docs/vram-records.md, from benchmarks/records
	$(BIN)/python scripts/write_vram_table.py

gpu-records: install  ## on a machine with a GPU: predicted against measured memory, 9 minutes, into benchmarks/records
	$(BIN)/python scripts/gpu_records.py

pretrain: install  ## pretrain the demo's base model again (50 minutes)
	$(BIN)/python scripts/pretrain_vggt.py --output resources/vggt-demo.safetensors

pretrain-vae: install  ## pretrain Hunyuan3D's demo autoencoder again, on resources/meshes (20 minutes)
	$(BIN)/python scripts/pretrain_hunyuan3d_vae.py --output resources/hunyuan3d-demo-vae.safetensors

clean:  ## remove what the demo made
	rm -rf results/demo
