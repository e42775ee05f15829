# `make demo` and the tests first set up a virtual environment with pinned versions in .venv.
# They need only Python 3.11 or later and pip's package index.

PYTHON ?= python3
JOBS ?= 3
PARSER ?= npz
SECONDS ?= 60
BIN := .venv/bin
READY := .venv/.ready
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

NATIVE := loaders/native/librefit.so
# The oldest glibc that a wheel's library runs with, on whatever machine the wheel is built.
GLIBC := 2.17
ARCH := $(shell uname -m)

PYTEST := $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile
# Tests that start no process or object store and build no shards.
QUICK := tests/test_imports.py tests/shards_spec/test_[fmr]*.py tests/converter/test_plan.py \
	$(addprefix tests/loaders/test_,mix.py needs.py order.py policy.py random.py smpl.py)

# Code that must also run on Python 3.10, which vermin checks; mypy and the tests do not.
PORTABLE := shards_spec body_models converter loaders refit_shard benchmarks examples docs/generate data_config.py
OLDEST := .venv-oldest/bin

.PHONY: help demo check test test-all test-oldest lint docs wheel fuzz aarch64 soak clean

help:
	@echo "make demo    build, verify and stream small generated datasets, in demo/"
	@echo "make check   lint, types and the quick tests: under a minute"
	@echo "make test    lint, types and all tests, long searches shortened; JOBS=3 tests at a time"
	@echo "make test-all  lint, types and all tests, long searches in full: hours"
	@echo "make test-oldest  the loader's tests with the oldest supported versions, in .venv-oldest"
	@echo "make lint    only ruff, mypy and the check for Python 3.10"
	@echo "make docs    build the documentation in site/: open site/index.html; its search needs python -m http.server -d site"
	@echo "make wheel   build the sdist and the wheel in dist/"
	@echo "make fuzz    search for inputs that crash a parser, SECONDS=60 for PARSER=npz (annotations, frame, index, jpeg, native, occluders, tar, zip)"
	@echo "make aarch64  check that the compiled library draws the same bits on aarch64; needs qemu-user"
	@echo "make soak    stream for an hour, and kill and continue a large build twenty times"
	@echo "make clean   delete .venv, demo/, site/ and caches (data/ is kept)"

demo: $(NATIVE)
	$(BIN)/python -m examples.demo

check: lint $(NATIVE)
	$(PYTEST) --hypothesis-profile check $(QUICK)

test: lint $(NATIVE)
	$(PYTEST)

test-all: lint $(NATIVE)
	$(PYTEST) -m "" --hypothesis-profile all

test-oldest: .venv-oldest/.ready
	PYTHONPATH=. $(OLDEST)/python -m pytest --numprocesses $(JOBS) --dist loadfile tests/shards_spec tests/loaders

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

wheel: $(READY)
	rm -rf build dist *.egg-info  # files of an older build would get into the wheel
	CXX="$(abspath $(BIN))/python -m ziglang c++ -mcpu=baseline -target $(ARCH)-linux-gnu.$(GLIBC)" \
		$(BIN)/python -m build --no-isolation --outdir dist
	PATH="$(abspath $(BIN)):$$PATH" auditwheel repair --wheel-dir dist dist/*-linux_$(ARCH).whl \
		--plat manylinux_$(subst .,_,$(GLIBC))_$(ARCH)  # refuses a wheel that needs anything newer
	rm dist/*-linux_$(ARCH).whl

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy examples
	$(BIN)/vermin --quiet --violations --target=3.10- --eval-annotations --no-parse-comments $(PORTABLE)

fuzz: $(NATIVE)
ifeq ($(PARSER),native)
	$(BIN)/python -m tests.hostile.native.fuzz -max_total_time=$(SECONDS)
else
	@$(PIP) atheris
	$(BIN)/python -m tests.hostile.fuzz $(PARSER) -max_total_time=$(SECONDS)
endif

aarch64: $(NATIVE)
	$(BIN)/python -m tests.loaders.native.digest

soak: $(NATIVE)
	$(BIN)/python -m benchmarks.soak

clean:
	rm -rf .venv .venv-oldest demo site build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch is installed first and alone, by its exact version, so that an index's CPU-only build is accepted.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"refit-shard needs Python 3.11 or later, $(PYTHON) is " + sys.version.split()[0] + \
		"; try make PYTHON=python3.12")'
	@echo "setting up .venv (once; a few minutes)"
	@$(PYTHON) -m venv .venv
	@$(PIP) $(shell grep '^torch==' constraints.txt)
	@$(PIP) --editable '.[dev]'
	@touch $@

# Compiled by the system's compiler, or by the one in the package ziglang.
$(NATIVE): $(READY) loaders/native/compiling.py $(wildcard loaders/native/source/*)
	$(BIN)/python loaders/native/compiling.py

.venv-oldest/.ready: oldest.txt
	@echo "setting up .venv-oldest (once; a few minutes)"
	@$(PYTHON) -m venv .venv-oldest
	@$(OLDEST)/python -m pip install --quiet --disable-pip-version-check $(shell grep '^torch==' constraints.txt)
	@$(OLDEST)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: -r oldest.txt
	@touch $@
