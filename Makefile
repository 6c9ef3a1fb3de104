PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
STAGE := _build/source

.DEFAULT_GOAL := help
.PHONY: help setup book test machines nightly bench gpu lab chapters lint clean

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
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[book,export,scale,test]'
	@touch $@

# Chapters are run on a copy: the checkout, with its committed outputs, stays as it is.
book: $(STAMP)  ## run every chapter and build the pages
	rm -rf $(STAGE) _build/html
	mkdir -p $(STAGE)
	cp -R book _config.yml _toc.yml $(STAGE)
	$(BIN)/python book/_tools/browser_files.py _build/browser \
	  --copy-to $(STAGE)/book/_static/browser
	$(BIN)/python $(STAGE)/book/_tools/chapters.py run --in-place
	$(BIN)/jupyter-book build $(STAGE) --path-output . -W -n --keep-going --quiet
	@echo "The book is ready. Open $(CURDIR)/_build/html/index.html"

test: lint  ## lint, run the tests, compare every chapter with its stored outputs
	$(BIN)/python -m pytest tests --ignore=tests/benchmarks
	$(BIN)/python -m pytest --nbval book

machines: $(STAMP)  ## the same comparison as if on other machines (long)
	$(BIN)/python book/_tools/machines.py

nightly: $(STAMP)  ## the tests that take long: claims with other seeds
	$(BIN)/python -m pytest -m nightly tests

bench: $(STAMP)  ## measure the package against the straightforward computation
	$(BIN)/python -m pytest tests/benchmarks --benchmark-only

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
	$(BIN)/lint-imports

clean:  ## delete what was built (not .venv)
	rm -rf _build .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
