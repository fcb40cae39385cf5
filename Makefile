# Everything a fresh machine needs: `make quickstart` and `make test` build the environment themselves.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= runs/quickstart
JOBS ?= 2
COUNT ?= 100000
INSTALLED := $(VENV)/.installed

.PHONY: help install quickstart test slow bench fuzz check format clean

help:
	@echo "make quickstart  install, train on the bundled models and data, print the per-language table"
	@echo "make test        install, run the default tests (offline, a few minutes; JOBS=2 at once)"
	@echo "make slow        tests on the bundled models"
	@echo "make bench       against the textbook procedure and the bare LM: speed and memory"
	@echo "make fuzz        every reader of files, recipes, checkpoints and requests, against COUNT=100000 odd inputs"
	@echo "make check       lint, formatting, types, import rules"
	@echo "make clean       remove the environment"

# constraints.txt pins every version. For torch it takes the CPU build where pip is set up to find one.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

install: $(INSTALLED)

quickstart: $(INSTALLED)
	$(BIN)/glotfuse quickstart --out $(OUT)

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS)

slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow --timeout 1800

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks

fuzz: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.fuzz --count $(COUNT)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV)
