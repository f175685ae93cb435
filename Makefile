# `make` or `make help` lists the targets.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
SNAKEMAKE := $(BIN)/snakemake
STUDY ?= vggt-eth3d

.DEFAULT_GOAL := help
.PHONY: help install demo demo-all test test-slurm lint format schemas vram-table gpu-records pretrain pretrain-vae \
	pretrain-hunyuan3d pretrain-rdt clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

$(VENV)/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or later is needed; name it with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements.txt
	@touch $@

install: $(VENV)/installed  ## the virtual environment .venv, from requirements.txt

demo: install  ## the demo study: real photographs to report, about 4 minutes on 2 CPU cores
	@$(SNAKEMAKE) --profile local --config studies=$(STUDY) scale=demo
	@echo "report: results/demo/$(STUDY)/report.html"

comma := ,
empty :=
space := $(empty) $(empty)
STUDIES := $(subst $(space),$(comma),$(basename $(notdir $(wildcard config/studies/*.yaml))))

demo-all: install  ## the demo of every study
	@$(SNAKEMAKE) --profile local --config 'studies=[$(STUDIES)]' scale=demo
	@for study in $(basename $(notdir $(wildcard config/studies/*.yaml))); do echo "report: results/demo/$$study/report.html"; done

test: install  ## unit and workflow tests, a process a core
	$(BIN)/python -m pytest -n logical --dist loadfile

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

pretrain-hunyuan3d: install  ## pretrain Hunyuan3D's demo transformer again, with that autoencoder (8 minutes)
	$(BIN)/python scripts/pretrain_hunyuan3d.py --output resources/hunyuan3d-demo.safetensors

pretrain-rdt: install  ## make the demo's encoders and base policy of RDT again (25 minutes)
	$(BIN)/python scripts/pretrain_rdt.py --output resources

clean:  ## remove what the demo made
	rm -rf results/demo
