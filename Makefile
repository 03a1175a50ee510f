# Everything a newcomer needs: `make demo`, `make test`. The environment is made on first use, in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CARGO := $(shell command -v cargo 2>/dev/null)
SAMPLE := examples/sample-guest.vmrs
export VMSAVEDSTATE_SAMPLES ?= $(wildcard $(CURDIR)/.samples)

.DEFAULT_GOAL := help
# The oldest numpy that pyproject.toml allows, or that has a wheel for this Python.
OLDEST_NUMPY := $(shell $(PYTHON) -c 'import sys; print({10: "1.24.0", 11: "1.24.0", 12: "1.26.0", 13: "2.1.0"}.get(sys.version_info[1], "2.3.2"))')

.PHONY: help demo library test test-all test-oldest test-rust test-guests lint samples bench clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */|/' | awk -F'|' '{printf "  make %-11s %s\n", $$1, $$2}'

# The stamps depend on what is compiled or declared: a changed extension is built again, changed Python needs nothing.
$(VENV)/.installed: pyproject.toml setup.py $(wildcard rust/src/*.rs rust/*/src/*.rs) rust/Cargo.toml
	@echo "setting up $(VENV): half a minute to a minute, most of it for the compiled extension"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.library: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[library]'
	@touch $@

$(VENV)/.test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@

$(VENV)/.peers: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --editable '.[test,peers]'
	@touch $@

demo: $(VENV)/.installed  ## set up, and show what is in the bundled saved state
	@$(BIN)/vmrs --version
	$(BIN)/vmrs info $(SAMPLE)
	$(BIN)/vmrs regs --vp 0 $(SAMPLE) | head -7
	$(BIN)/vmrs read --gpa 0x100700 --size 64 --hex $(SAMPLE)
	-$(BIN)/vmrs translate $(SAMPLE) 0xffffffff80100700 --walk
	$(BIN)/vmrs find $(SAMPLE) "SAMPLE GUEST" --virtual
	$(BIN)/vmrs screen $(SAMPLE)
	$(BIN)/vmrs screen --out screen.png --force $(SAMPLE)
	$(BIN)/vmrs verify $(SAMPLE)

library: $(VENV)/.library  ## build the C library into ./provider (needs gcc and Python's development files)
	$(BIN)/vmrs library --out provider

test: $(VENV)/.test  ## the fast suite, under two minutes
	$(BIN)/python -m pytest -q -n auto -m "not slow"

test-all: $(VENV)/.peers lint test-rust  ## everything: real states and guests (with QEMU), independent peers, both codecs
	VMSAVEDSTATE_CODEC=python $(BIN)/python -m pytest -q -n auto -m "not guest"
	$(BIN)/python -m pytest -q -n auto -m "not rare_guest"

$(VENV)-oldest/.installed: $(VENV)/.installed
	test -x $(VENV)-oldest/bin/python || $(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/python -m pip install --quiet --upgrade pip
	$(VENV)-oldest/bin/python -m pip install --quiet --editable '.[test]' 'numpy==$(OLDEST_NUMPY)'
	@touch $@

test-oldest: $(VENV)-oldest/.installed  ## the fast suite with the oldest numpy
	$(VENV)-oldest/bin/python -m pytest -q -n auto -m "not slow and not guest"

test-guests: $(VENV)/.peers  ## boot 17 real guests under QEMU, and compare every answer (Debian; five minutes)
	$(BIN)/python -m pytest -q -n auto tests/guests

lint: $(VENV)/.test  ## ruff, mypy --strict, the import contracts; rustfmt and clippy where cargo is
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
ifneq ($(CARGO),)
	cd rust && cargo fmt --all --check
	cd rust && cargo clippy --quiet --workspace --all-targets -- -D warnings
else
	@echo "no cargo here: rustfmt and clippy were not run"
endif

test-rust:  ## the extension's own unit tests (skipped without cargo)
ifneq ($(CARGO),)
	cd rust && cargo test --quiet --workspace --exclude vmsavedstate-extension
else
	@echo "no cargo here: the Rust unit tests were not run"
endif

samples:  ## fetch the real saved states (needs cargo) and check them
	$(PYTHON) tools/fetch_samples.py .samples

bench: $(VENV)/.peers  ## speed and memory, as ratios against peers and limits
	$(BIN)/python -m benchmarks

clean:  ## remove what the other targets made
	rm -rf $(VENV) build provider rust/target src/*.egg-info screen.png .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src -name '_extension*.so' -delete
