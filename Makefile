# `make demo` and the tests set up a virtual environment of pinned versions in .venv, once.
# They need Python 3.11 or later and the package index that pip is set up for, nothing else.

PYTHON ?= python3
JOBS ?= 3
PARSER ?= npz
SECONDS ?= 60
BIN := .venv/bin
READY := .venv/.ready
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

NATIVE := loaders/native/librefit.so
# What the library in a wheel runs with, whatever is on the machine that makes it.
GLIBC := 2.17
ARCH := $(shell uname -m)

PYTEST := $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile
# Tests without other processes, a store or shards to build.
QUICK := tests/test_imports.py tests/shards_spec/test_[fmr]*.py tests/converter/test_plan.py \
	$(addprefix tests/loaders/test_,mix.py needs.py order.py policy.py random.py smpl.py)

# Everything that runs on Python 3.10 as well, which mypy and the tests do not tell.
PORTABLE := shards_spec body_models converter loaders refit_shard benchmarks examples docs/generate data_config.py
OLDEST := .venv-oldest/bin

.PHONY: help demo check test test-all test-oldest lint docs wheel fuzz aarch64 soak clean

help:
	@echo "make demo    the main job end to end, on data that it makes, in demo/"
	@echo "make check   lint, types and the quick tests: under a minute"
	@echo "make test    lint, types and all tests, long searches sampled; JOBS=3 at a time"
	@echo "make test-all  the same, with every long search in full: hours"
	@echo "make test-oldest  the loader's tests with the oldest versions it works with, in .venv-oldest"
	@echo "make lint    ruff, mypy and the check for Python 3.10 alone"
	@echo "make docs    the site, in site/: open site/index.html; python -m http.server -d site for its search"
	@echo "make wheel   sdist and wheel, in dist/"
	@echo "make fuzz    look for inputs that crash a parser, SECONDS=60 for PARSER=npz (annotations, frame, index, jpeg, native, occluders, tar, zip)"
	@echo "make aarch64  whether the compiled library draws the same bits on aarch64; needs qemu-user"
	@echo "make soak    an hour of the stream, and a large build through twenty kills"
	@echo "make clean   remove .venv, demo/, site/ and caches (data/ stays)"

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
	rm -rf build dist *.egg-info  # what an older build left would get into the wheel
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

# torch goes first and alone: asked for by its exact version, a CPU-only build of it is accepted too.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"refit-shard needs Python 3.11 or later, $(PYTHON) is " + sys.version.split()[0] + \
		"; try make PYTHON=python3.12")'
	@echo "setting up .venv (once; a few minutes)"
	@$(PYTHON) -m venv .venv
	@$(PIP) $(shell grep '^torch==' constraints.txt)
	@$(PIP) --editable '.[dev]'
	@touch $@

# By the system's compiler, or by the one in ziglang.
$(NATIVE): $(READY) loaders/native/compiling.py $(wildcard loaders/native/source/*)
	$(BIN)/python loaders/native/compiling.py

.venv-oldest/.ready: oldest.txt
	@echo "setting up .venv-oldest (once; a few minutes)"
	@$(PYTHON) -m venv .venv-oldest
	@$(OLDEST)/python -m pip install --quiet --disable-pip-version-check $(shell grep '^torch==' constraints.txt)
	@$(OLDEST)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: -r oldest.txt
	@touch $@
