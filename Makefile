# Everything that people do with the source tree. Needs Python >= 3.11, Rust (cargo) and make; each command
# makes the virtual environment it needs under .venv/, with the versions of requirements.lock.

PYTHON ?= python3
VENV := .venv
WHEELS := $(VENV)/wheels
BUILT := $(WHEELS)/built
# Python compiles what is imported; compiling all of the packages would take longer than fetching them.
PIP = bin/python -m pip --disable-pip-version-check install --quiet --no-compile --constraint requirements.lock
# Two rows of tests run at once. NumPy's threads would wait for each other on busy processors: one is several times as fast.
PYTEST = OPENBLAS_NUM_THREADS=1 $(VENV)/test/bin/python -m pytest --benchmark-disable $(ARGS)
# What Python tests run behind those of Rust.
SECOND := bench $(patsubst %,tests/test_%.py,cli constraints data determinism examples package)
PROGRAMS = $${CARGO_TARGET_DIR:-target}/release
CHECK_PYTHON = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Lamella needs Python 3.11 or newer")'
export PIP_NO_INPUT = 1

# What the wheel is made of. Directories are listed too, so that a file taken away is noticed.
SOURCES := pyproject.toml Cargo.toml Cargo.lock README.md LICENSE \
	$(shell find rust python -name __pycache__ -prune -o -not -name '*.so' -print)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo info test test-first test-second test-rust test-counts test-python bench counts lint lint-rust lint-python lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/demo/ready ## train on handwritten digits, compare with plain NumPy, draw the curve
	$(VENV)/demo/bin/python -m lamella demo $(ARGS)

info: $(VENV)/demo/ready ## show version, CPU features, kernels and threads
	$(VENV)/demo/bin/python -m lamella info

# Two rows of tests at once, about as long: most keep one processor busy.
test: ## run all tests
	$(MAKE) --jobs=2 --output-sync=line test-first test-second

test-first: $(VENV)/test/ready
	$(PYTEST) $(foreach path,$(SECOND),--ignore=$(path)) tests

test-second: $(VENV)/test/ready
	$(MAKE) test-rust
	$(MAKE) test-counts
	$(PYTEST) $(SECOND)

test-rust: ## run the tests of the Rust core, without Python
	cargo test --locked --lib

# With --workspace, dependencies have the features that the wheel's build gave them, so that the core is not compiled anew.
test-counts: ## count allocations of steps, and hold instruction counts to bench/counts.json (needs valgrind)
	cargo build --release --locked --workspace --bins
	$(PYTHON) bench/counts.py $(PROGRAMS)/counts
	env -u LAMELLA_ISA $(PROGRAMS)/allocations

test-python: $(VENV)/test/ready ## run the tests of the package and of the benchmark's engines
	$(PYTEST) tests bench

bench: $(VENV)/bench/ready ## time Lamella against NumPy, JAX and scikit-learn (ARGS="--quick")
	$(VENV)/bench/bin/python bench/run.py $(ARGS)

counts: ## renew bench/counts.json
	cargo build --release --locked --workspace --bins
	$(PYTHON) bench/counts.py --write $(PROGRAMS)/counts

# Two at once: compiling one crate keeps one processor busy, so the tests are compiled beside the wheel.
lint: ## check format, lints and types of Rust and Python
	$(MAKE) --jobs=2 --output-sync=line lint-python lint-rust

lint-rust: $(VENV)/build/ready
	cargo fmt --check
	PYO3_PYTHON=$(abspath $(VENV)/build/bin/python) cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo test --locked --lib --no-run

lint-python: $(VENV)/lint/ready
	$(VENV)/lint/bin/ruff check
	$(VENV)/lint/bin/ruff format --check
	$(VENV)/lint/bin/mypy
	cd $(VENV)/lint && bin/python -m mypy.stubtest lamella._core

lock: ## renew requirements.lock with the newest versions
	rm -rf $(VENV)/lock
	$(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/python -m pip --disable-pip-version-check install --quiet --upgrade \
		$$($(PYTHON) -c 'import tomllib; t = tomllib.load(open("pyproject.toml", "rb")); p = t["project"]; \
		print(*t["build-system"]["requires"], *p["dependencies"], *sum(p["optional-dependencies"].values(), []))')
	sed -i '/^#/!d' requirements.lock
	$(VENV)/lock/bin/python -m pip freeze >> requirements.lock
	rm -rf $(VENV)/lock

clean: ## remove the environments and everything built
	rm -rf $(VENV) target .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache lamella-demo.png

# The tool that builds the wheel, in an environment of its own.
$(VENV)/build/ready: requirements.lock
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv $(VENV)/build
	$(VENV)/build/$(PIP) maturin
	@touch $@

$(BUILT): $(VENV)/build/ready $(SOURCES)
	@rm -rf $(WHEELS)
	$(VENV)/build/bin/maturin build --release --locked --auditwheel skip \
		--interpreter $(VENV)/build/bin/python --out $(WHEELS)
	@touch $@

# What the wheel and its extra of that name need. It can be fetched while the wheel is built.
$(VENV)/%/packages: pyproject.toml requirements.lock
	@$(CHECK_PYTHON)
	@test -x $(VENV)/$*/bin/python || $(PYTHON) -m venv $(VENV)/$*
	$(VENV)/$*/$(PIP) $$($(PYTHON) -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
		print(*p["dependencies"], *p["optional-dependencies"]["$*"])')
	@touch $@

# An environment with these and the wheel.
$(VENV)/%/ready: $(VENV)/%/packages $(BUILT)
	$(VENV)/$*/$(PIP) --force-reinstall --no-deps $(WHEELS)/*.whl
	@touch $@
.PRECIOUS: $(VENV)/%/packages $(VENV)/%/ready
