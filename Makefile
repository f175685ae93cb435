# `make` or `make help` lists the targets.
PYTHON ?= $(or $(shell for each in python3.11 python3.12 python3.13; do $$each -c pass 2> /dev/null && echo $$each && break; done),python3)
VENV ?= .venv
BIN := $(VENV)/bin
SNAKEMAKE := $(BIN)/snakemake
STUDY ?= vggt-eth3d
SCALE ?= demo
SITE ?= site

.DEFAULT_GOAL := help
.PHONY: help install wheelhouse pins demo demo-all new-study new-system claims watch archive restore \
	test test-slurm test-page test-install test-crate fault-matrix lint format schemas docs vram-table speed-table picture-table benchmarks gpu-records \
	pretrain pretrain-vae pretrain-hunyuan3d pretrain-rdt pretrain-kolors pretrain-dit-vae clean

help:  ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

# Where packages come from: what pip is set up for, or a folder that `make wheelhouse` filled, without a network.
PIP = $(BIN)/pip --quiet --disable-pip-version-check
PIP_INSTALL = $(PIP) install --no-deps --require-hashes --use-pep517 $(if $(WHEELHOUSE),--no-index --find-links $(WHEELHOUSE))
# PyTorch's build, cpu or cuda: as TORCH says, else the one that is installed, else the one for the CPU where pip finds it.
# Which one it is and why is said before anything is fetched.
INSTALLED = $(BIN)/python -c 'import importlib.metadata as m; print(m.version("torch").endswith("+cpu") and "cpu" or "cuda")' 2> /dev/null
define CHOOSE_TORCH
torch=$(TORCH); why="as TORCH says"; there=$$($(INSTALLED)); \
if [ -z "$$torch" ] && [ -n "$$there" ]; then torch=$$there; why="as it is installed"; \
elif [ -z "$$torch" ] && $(PIP_INSTALL) --dry-run --requirement requirements-cpu.txt > /dev/null 2>&1; then torch=cpu; why="pip finds it"; \
elif [ -z "$$torch" ]; then torch=cuda; why="pip finds none of requirements-cpu.txt for this Python"; fi; \
case $$torch in cpu) other=cuda; what="for the CPU alone" ;; cuda) other=cpu; what="for NVIDIA GPUs, several gigabytes" ;; \
*) echo "error: TORCH=$$torch: give cpu or cuda" >&2; exit 2 ;; esac; \
echo "PyTorch: the build $$what, TORCH=$$torch ($$why); for the other one: make install TORCH=$$other"; \
if [ -n "$$there" ] && [ "$$there" != "$$torch" ]; then echo "it takes the place of the installed one, TORCH=$$there"; \
sed -n 's/==.*//p' requirements-$$there.txt | xargs $(PIP) uninstall --yes; fi; \
if [ $$torch = cpu ] && nvidia-smi --list-gpus > /dev/null 2>&1; then \
echo "warning: this machine has an NVIDIA GPU, which this build does not use; to use it: make install TORCH=cuda" >&2; fi
endef

ifneq ($(TORCH),)
ifneq ($(TORCH),$(shell $(INSTALLED)))
.PHONY: another-build
$(VENV)/installed: another-build
endif
endif

$(VENV)/installed: requirements.txt requirements-cpu.txt requirements-cuda.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "error: Python 3.11, 3.12 or 3.13 is needed, not %d.%d; name it with make PYTHON=..." % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	@$(CHOOSE_TORCH); $(PIP_INSTALL) --requirement requirements.txt --requirement requirements-$$torch.txt
	@$(PIP) check
	@touch $@

install: $(VENV)/installed  ## the virtual environment .venv; TORCH=cuda or cpu says which PyTorch, WHEELHOUSE=folder needs no network

wheelhouse: install  ## all packages into the folder wheelhouse, for make install WHEELHOUSE=... on a machine like this one without a network
	@$(CHOOSE_TORCH); $(PIP) download --no-deps --require-hashes --dest wheelhouse --requirement requirements.txt --requirement requirements-$$torch.txt

pins: install  ## requirements*.txt and envs/ablation.yaml again, from requirements.in
	$(BIN)/python scripts/write_requirements.py

demo: install  ## the demo study: real photographs to report, about 4 minutes on 2 CPU cores
	@$(SNAKEMAKE) --profile local --config studies=$(STUDY) scale=demo
	@echo "report: results/demo/$(STUDY)/report.html"

comma := ,
empty :=
space := $(empty) $(empty)
STUDIES_LIST := $(basename $(notdir $(wildcard config/studies/*.yaml)))
STUDIES := $(subst $(space),$(comma),$(STUDIES_LIST))

demo-all: install  ## the demo of every study
	@$(SNAKEMAKE) --profile local --config 'studies=[$(STUDIES)]' scale=demo
	@for study in $(basename $(notdir $(wildcard config/studies/*.yaml))); do echo "report: results/demo/$$study/report.html"; done

new-study: install  ## a study of your own with a test: make new-study NAME=mine SYSTEM=vggt
	@$(BIN)/python scripts/new_study.py --name '$(NAME)' --system '$(SYSTEM)'

new-system: install  ## a model of your own to begin with, with a study and a test: make new-system NAME=toy
	@$(BIN)/python scripts/new_system.py --name '$(NAME)'

claims: install  ## what was published for all five systems, against what the plans predict at full scale (the first time 20 minutes)
	@$(SNAKEMAKE) claims --profile local --config 'studies=[$(STUDIES)]' scale=full > /dev/null
	@$(BIN)/python scripts/print_claims.py $(STUDIES_LIST:%=results/full/%/plan_claims.csv)

watch: install  ## how far all runs are, as they train, or those of STUDY=; Ctrl-C leaves
	@$(BIN)/python scripts/status.py --watch $(if $(filter file,$(origin STUDY)),,'$(STUDY)')

archive: install  ## a finished study (STUDY=, SCALE=) as one file, with checksums; starts no run
	@$(BIN)/python scripts/archive_study.py --folder "results/$(SCALE)/$(STUDY)"

restore: install  ## ARCHIVE=file: check it, make its report again, put it into results/
	$(if $(ARCHIVE),,$(error name it: make restore ARCHIVE=results/archives/NAME.tar.gz))
	@$(BIN)/python scripts/restore_study.py "$(ARCHIVE)"

test: install  ## unit and workflow tests, a process a core
	$(BIN)/python -m pytest -n logical --dist loadfile --no-loadscope-reorder

test-slurm: install  ## the demo on a real SLURM that the tests boot on this machine (Debian, root)
	$(BIN)/python -m pytest -m slurm

test-page: install  ## the report in a real browser, and its LaTeX compiled (Debian, root)
	$(BIN)/python -m pytest -m page

test-install: install  ## the lists against the package registry, and a folder of wheels installed where there is no network (root)
	$(BIN)/python -m pytest -m install

test-crate: install  ## the RO-Crate against its profiles, by roc-validator in an environment of its own
	$(BIN)/python -m pytest -m crate

fault-matrix: install  ## cause every fault of docs/faults.md again, here and on a SLURM (Debian, root), and write that page (half an hour)
	@mkdir -p results
	@rm -f results/faults.jsonl
	FAULT_MATRIX=$(CURDIR)/results/faults.jsonl $(BIN)/python -m pytest -m fault
	$(BIN)/python scripts/write_fault_matrix.py results/faults.jsonl

lint: install  ## ruff, snakefmt, snakemake --lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow/Snakefile rules
	$(SNAKEMAKE) --lint

format: install  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow/Snakefile rules

schemas: install  ## config/schemas and docs/settings.md, from the models
	$(BIN)/python scripts/write_schemas.py

docs: install  ## the documentation as a site, in site/, with its links checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir $(SITE)
	@cp docs/example/tables/*.md $(SITE)/example/tables/
	@echo "site: $(SITE)/index.html"

vram-table: install  ## docs/vram-records.md, from benchmarks/records
	$(BIN)/python scripts/write_vram_table.py

picture-table: install  ## the table of docs/data.md of what every system does with every kind of picture file
	PICTURE_TABLE=1 $(BIN)/python -m pytest tests/test_pictures.py

speed-table: install  ## docs/speed.md, from benchmarks/speed
	$(BIN)/python benchmarks/write_speed_table.py

benchmarks: install  ## measure every row of docs/speed.md again on this machine, and write that page (an hour, with nothing else running)
	for each in $$(grep -l recording benchmarks/*.py | grep -v -e recording.py -e write_speed_table.py); do $(BIN)/python $$each --record || exit 1; done
	$(BIN)/python benchmarks/write_speed_table.py

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

pretrain-kolors: install  ## make the demo's networks of Kolors again, on resources/photographs (40 minutes)
	$(BIN)/python scripts/pretrain_kolors.py --output resources/kolors-demo

pretrain-dit-vae: install  ## pretrain DiT's demo autoencoder of images again, on digits (4 minutes)
	$(BIN)/python scripts/pretrain_dit_vae.py --output resources/dit-demo-vae

clean:  ## remove what the demo made
	rm -rf results/demo
