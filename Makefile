# Two commands from a fresh clone: `make demo` and `make test`. Needs Python 3.11 to 3.13, git and make; no sudo, no conda.
PYTHON ?= $(firstword $(foreach v,3.11 3.12 3.13,$(shell command -v python$(v) 2>/dev/null)) python3)
CORES ?= $(shell nproc 2>/dev/null || echo 2)
CONFIG ?= config/demo.yaml
REPORT ?= report.html
PROFILE ?= profiles/slurm
SNAKEMAKE = .venv/bin/snakemake --cores $(CORES) --profile profiles/local

# Every step is its own process: without the compiled modules each would compile the libraries anew (8 seconds a start).
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup setup-dev setup-spatialdata demo demo-run report check-cluster resume test lint format targets cost archive restore forget tables-from-scores scores-from-models lock clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-19s %s\n", $$1, $$2}'

# What was added by setup-spatialdata stays, and follows its lock.
setup: .venv/run.stamp $(wildcard .venv/spatialdata.stamp) ## make .venv with exactly the locked packages

setup-dev: .venv/dev.stamp $(wildcard .venv/spatialdata.stamp) ## the same, with what tests and linters need

setup-spatialdata: setup .venv/spatialdata.stamp ## add the library that reads SpatialData stores (reader `spatialdata`)

# One `make demo` at a time; so a lock that is still there was left by a killed run and can be lifted.
demo: setup ## simulated tissue through every stage; tables, figures and report in results/demo
	@flock --nonblock --close .venv/demo.lock $(MAKE) --no-print-directory demo-run || { status=$$?; \
	  [ $$status -ne 1 ] || echo "make demo: stopped; if another make demo is at work here, let it end"; exit $$status; }

demo-run:
	@start=$$(date +%s); \
	if [ -n "$$(ls -A .snakemake/locks 2>/dev/null)" ]; then .venv/bin/snakemake --configfile config/demo.yaml --unlock --quiet all; fi && \
	$(SNAKEMAKE) --configfile config/demo.yaml --quiet host reason rules && \
	$(MAKE) --no-print-directory report CONFIG=config/demo.yaml REPORT=results/demo/report.html && \
	.venv/bin/python workflow/scripts/show_demo.py results/demo && echo "make demo: $$(( $$(date +%s) - start )) s after set-up"

report: setup ## one self-contained HTML page of a study's tables and figures (CONFIG=config/demo.yaml REPORT=report.html)
	@newest=$$(ls -t $(dir $(REPORT))tables/* $(dir $(REPORT))figures/* 2>/dev/null | head -1); \
	if [ ! -e $(REPORT) ] || [ "$$newest" -nt $(REPORT) ]; then \
	  .venv/bin/snakemake --configfile $(CONFIG) --nolock --report $(REPORT) >$(REPORT:.html=.log) 2>&1 || { tail -n 5 $(REPORT:.html=.log); \
	    ! grep -q "marked for report but does not exist" $(REPORT:.html=.log) || echo "make report: make the whole study first (snakemake --cores 2 --configfile $(CONFIG))"; exit 1; }; fi

targets: setup ## the names of a study's tables and figures, a line each (CONFIG=config/demo.yaml)
	@.venv/bin/snakemake --configfile $(CONFIG) --cores 1 --quiet all -- targets

check-cluster: setup ## what a run on this cluster would stumble over (SITE=folder of your profile CONFIG=config/demo.yaml)
	@PYTHONPATH=src .venv/bin/python -m stmorph.cluster --profile profiles/slurm $(if $(SITE),--profile $(SITE)) --configfile $(CONFIG)

resume: setup ## after the main process was killed: wait for its jobs, unlock, go on (TARGET=... CONFIG=... SITE=folder; without SLURM PROFILE=profiles/local)
	@PYTHONPATH=src .venv/bin/python -m stmorph.cluster.resume -- $(TARGET) --profile $(PROFILE) $(if $(SITE),--profile $(SITE)) --configfile $(CONFIG)

cost: setup ## what a study or one of its targets would cost (CONFIG=config/demo.yaml TARGET=stem_table1)
	@.venv/bin/snakemake cost$(if $(TARGET),_$(TARGET)) --configfile $(CONFIG) --cores 1 --quiet all

archive: setup ## scores and models of a study, one file each, in its results/.../bundles (CONFIG=config/demo.yaml)
	.venv/bin/snakemake archive --cores $(CORES) --profile profiles/local --configfile $(CONFIG) --quiet host reason rules

PUT = .venv/bin/python workflow/scripts/restore.py put $(BUNDLE) --config $(CONFIG) $(if $(OVERWRITE),--overwrite) $(if $(ANY_CODE),--any-code)

restore: setup ## put published scores or models in place, every checksum first (BUNDLE=file CONFIG=config/demo.yaml)
	@$(PUT)

forget: setup ## take restored files away again (KIND=scores or models, CONFIG=config/demo.yaml)
	@.venv/bin/python workflow/scripts/restore.py forget $(KIND) --config $(CONFIG)

tables-from-scores: setup ## the tables from published scores, nothing else is made (BUNDLE=file CONFIG=config/demo.yaml)
	@$(PUT)
	.venv/bin/snakemake tables --cores $(CORES) --profile profiles/local --configfile $(CONFIG) --quiet host reason rules

# Restored scores go first: they would be taken as given.
scores-from-models: setup ## draws, scores and tables from published models, nothing is trained (BUNDLE=file CONFIG=config/demo.yaml)
	@$(PUT)
	@.venv/bin/python workflow/scripts/restore.py forget scores --config $(CONFIG)
	.venv/bin/snakemake scores tables --cores $(CORES) --profile profiles/local --configfile $(CONFIG) --quiet host reason rules

# In the order they are found: the long ones come first and run beside each other.
test: setup-dev ## unit, pipeline and real-data tests
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder

lint: setup-dev ## ruff, snakefmt and snakemake's own linter
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/snakefmt --check Snakefile workflow
	.venv/bin/snakemake --configfile config/demo.yaml --lint

format: setup-dev ## let ruff and snakefmt lay out the code
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .
	.venv/bin/snakefmt Snakefile workflow

lock: ## solve the dependencies anew (pyproject.toml -> requirements/*.lock, workflow/envs/*.yaml)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml -o requirements/run.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -c requirements/run.lock \
	  pyproject.toml --group pyproject.toml:dev --group pyproject.toml:staintools -o requirements/dev.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -c requirements/dev.lock \
	  --group pyproject.toml:spatialdata -o requirements/spatialdata.lock
	$(PYTHON) requirements/environments.py

clean: ## remove everything that was made (results, not downloads)
	rm -rf results .snakemake

.venv/uv.stamp: requirements/uv.txt
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info[:2] <= (3, 13); sys.exit(None if ok else f"stmorph needs Python 3.11 to 3.13; {sys.executable} is {sys.version.split()[0]}: install one of these or run make PYTHON=/path/to/python3.12")'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments: install the package python3-venv (Debian, Ubuntu) or give another Python with make PYTHON=..."; exit 1; }
	@.venv/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

# The dev environment is a superset: once it is there, a demo uses it.
.venv/run.stamp: requirements/run.lock .venv/uv.stamp
	@[ -e .venv/dev.stamp ] && [ .venv/dev.stamp -nt $< ] || { echo "setting up .venv ..."; .venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes -r $<; }
	@touch $@

.venv/dev.stamp: requirements/dev.lock .venv/uv.stamp
	@echo "setting up .venv with the test tools ..."
	@.venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes -r $<
	@touch $@

# The versions of the other locks, so that these change nothing of it. One after the other: both write into .venv.
.venv/spatialdata.stamp: requirements/spatialdata.lock .venv/uv.stamp | .venv/run.stamp
	@echo "adding spatialdata to .venv ..."
	@.venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes -r $<
	@touch $@
