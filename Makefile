# The door to the project. Every target makes .venv and installs what it needs when that is missing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-slow lint fix docs site bench train clean

# From handwriting to a verified release, every command shown as it runs.
demo: $(INSTALLED)
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/demo.sh

test: $(INSTALLED)
	$(BIN)/python -m train fetch mnist
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not alone"
	$(BIN)/python -m pytest -m alone

test-slow: $(INSTALLED)
	$(BIN)/python -m train fetch mnist
	$(BIN)/python -m pytest -m slow

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" lint-imports

fix: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Regenerates what in docs/ and README.md comes from the code.
docs: $(INSTALLED)
	$(BIN)/python scripts/make_docs.py
	$(BIN)/python scripts/make_reference_pages.py

# docs/ as pages to read in a browser: site/index.html. No network is asked for anything.
site: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Latency of the committed reference release on this machine.
bench: $(INSTALLED)
	$(BIN)/python -m train fetch mnist
	$(BIN)/hwr-export bench exported/digits

# Makes the committed reference release anew (about ten minutes on two cores).
train: $(INSTALLED)
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/make_reference.sh

clean:
	rm -rf $(VENV) runs exported/demo site build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@echo "Installing into $(VENV) (once; a few minutes, about 7 GB, most of it torch)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,cpu,openvino,rtx,report,scan,docs,dev]'
	@touch $@
