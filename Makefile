PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
STAGE := _build/source
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 8 --benchmark-disable --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup book pages test machines nightly bench gpu lab chapters lint clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' \
	  $(MAKEFILE_LIST)

setup: $(STAMP)  ## install everything into .venv (done by the others when needed)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed; '$(PYTHON)' is not." >&2; \
	  echo "Name another one: make $(or $(MAKECMDGOALS),setup) PYTHON=python3.12" >&2; \
	  exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the versions of constraints.txt into $(VENV). This takes minutes."
	$(BIN)/python -m pip install --quiet --no-compile --no-deps -r constraints.txt
	@# Now only what this platform needs besides is looked for: mostly nothing. Python
	@# compiles at the first import what is used, a small part of all.
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[book,export,features,scale,test,tune]'
	@touch $@

# Pages are made from a copy: the checkout, with its committed outputs, stays as it is.
define copy
@rm -rf $(STAGE) _build/html
@mkdir -p $(STAGE)
@cp -R book _config.yml _toc.yml $(STAGE)
endef

define render
@echo "Rendering the pages"
@$(BIN)/jupyter-book build $(STAGE) --path-output . -W -n --keep-going --quiet >/dev/null
@echo "The book is ready. Open $(CURDIR)/_build/html/index.html"
endef

book: $(STAMP)  ## run every chapter and build the pages, the model in the browser included
	$(copy)
	@$(BIN)/python book/_tools/browser_files.py _build/browser \
	  --copy-to $(STAGE)/book/_static/browser
	@$(BIN)/python $(STAGE)/book/_tools/chapters.py run --in-place
	$(render)

pages: $(STAMP)  ## build the pages from the stored outputs, for a first look: runs nothing
	$(copy)
	$(render)

# As many processes as cores, each on one thread: more threads would wait for each other.
test nightly gpu: export OMP_NUM_THREADS = 1
test nightly gpu: export MKL_NUM_THREADS = 1
test nightly gpu: export OPENBLAS_NUM_THREADS = 1
test nightly gpu: export NUMBA_NUM_THREADS = 1

test: lint  ## lint, run the tests, compare every chapter with its stored outputs
	$(PYTEST) tests --ignore=tests/benchmarks
	$(PYTEST) --dist loadfile --nbval book

machines: $(STAMP)  ## the same comparison as if on other machines (long)
	$(BIN)/python book/_tools/machines.py

nightly: $(STAMP)  ## the tests that take long: claims and chapters with other seeds
	$(PYTEST) -m nightly tests

bench: $(STAMP)  ## measure the package against the straightforward computation
	$(BIN)/python -m pytest tests/benchmarks --benchmark-only \
	  --benchmark-timer=time.process_time

# Without .venv it runs in any Python that has torch, transformers and pytest.
gpu:  ## the tests that need an NVIDIA GPU, and its speed
	$(or $(wildcard $(BIN)/python),$(PYTHON)) -m pytest -m gpu tests/gpu

lab: $(STAMP)  ## open the chapters in JupyterLab
	$(BIN)/jupyter lab book

chapters: $(STAMP)  ## for maintainers: run the chapters and store their outputs
	$(BIN)/python book/_tools/chapters.py run --in-place

lint: $(STAMP)  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tests/gpu
	$(BIN)/lint-imports

clean:  ## delete what was built (not .venv)
	rm -rf _build .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
