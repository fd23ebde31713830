# Every target sets up what it needs in .venv; a fresh clone needs Python 3.11+, a C++ compiler and make.
#   make demo   the whole method on a synthetic scene, in about five minutes on two cores
#   make test   the tests, against the installed package
# TEST_ARGS reaches pytest; TEST_JOBS is the number of its processes.
# PIP_ARGS reaches every pip call (an index, a cache); TORCH names the torch to install.

PYTHON ?= python3
TORCH  ?= torch==2.13.0
PIP_ARGS ?=
TEST_ARGS ?=
TEST_JOBS ?= 2
OUT ?= runs/demo

VENV := .venv
BIN  := $(VENV)/bin
PIP  := PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --disable-pip-version-check -q $(PIP_ARGS)
SOURCES := $(shell find csrc bdgf_fast triton_kernels -type f -not -name '*.so' -not -path '*/__pycache__/*' 2>/dev/null)

# Source packages that `make gpu` measures against.
PEER_PACKAGES ?= mamba_ssm==2.3.2.post1 causal_conv1d==1.7.0

.PHONY: demo test test-pool test-aarch64 test-windows test-sdist wheels bench bench-count lint build docs pictures two-torch sanitize clean dev peers gpu gpu-predict gpu-build gpu-test gpu-test-all gpu-compile gpu-bench gpu-sanitize

demo: $(VENV)/.app
	$(BIN)/bdgf-fast demo --out $(OUT) --overwrite

test: $(VENV)/.test
	$(BIN)/python -m pytest --version
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/pytest -n $(TEST_JOBS) --dist loadgroup $(TEST_ARGS)

POOL_RUN = PYTHONPATH=$(CURDIR)/build/pool/site $(BIN)/python
# The tests on a second build, in build/pool, whose threads come from std::thread, as where there is no OpenMP.
test-pool: $(VENV)/.test
	$(PIP) pybind11 scikit-build-core ninja
	SKBUILD_CMAKE_DEFINE="BDGF_CUDA=OFF;BDGF_OPENMP=OFF" $(PIP) --no-build-isolation --no-deps --upgrade -C build-dir=build/pool/cmake \
	  --target build/pool/site .
	$(POOL_RUN) -P -c 'from bdgf_fast import _native; found = _native.build_info()["threads"]; assert found == "std::thread", found'
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(POOL_RUN) -P -m pytest -n $(TEST_JOBS) --dist loadgroup $(TEST_ARGS)

# NEON and scalar kernels of aarch64, executed under qemu-user. As root on Debian it fetches the cross compiler and the emulator.
test-aarch64:
	$(PYTHON) tests/native/check/run.py aarch64 --install

# The kernels of the Windows wheel, built by its compiler and executed under Wine, which is fetched likewise.
test-windows: $(VENV)/.wheels
	$(BIN)/python tests/native/check/run.py windows --install

# Wheels for Linux, macOS and Windows, each with its checks: dist/wheels. WHEELS=linux-x86_64 for one platform;
# PYTHONS="python3.11 python3.12 include/python3.14" for other Pythons than PYTHON, as interpreters or folders of headers.
wheels: $(VENV)/.wheels
	$(BIN)/python tools/wheels/build.py $(WHEELS) $(addprefix --python ,$(PYTHONS)) $(WHEELS_ARGS)

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/mypy

# The site, strictly: a warning is an error. Figures come from bench/results/cpu.json as it stands.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo build/site/index.html

# The speed pictures of the site, from the benchmark's file.
pictures: $(VENV)/.test
	$(BIN)/python docs/_build/pictures.py

build:
	$(PYTHON) -m pip wheel --disable-pip-version-check -q $(PIP_ARGS) --no-deps -w dist .

clean:
	rm -rf $(VENV) build dist

# torch first and by name: a plain `pip install torch` may bring gigabytes of GPU libraries.
$(VENV)/.torch: constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "bdgf_fast needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q $(PIP_ARGS) $(TORCH)
	touch $@

$(VENV)/.app: $(VENV)/.torch pyproject.toml CMakeLists.txt $(SOURCES)
	$(PIP) '.[app]'
	touch $@

$(VENV)/.test: $(VENV)/.torch pyproject.toml CMakeLists.txt $(SOURCES)
	$(PIP) '.[app,test,docs]'
	touch $@

$(VENV)/.lint: $(VENV)/.torch
	$(PIP) ruff mypy numpy einops
	touch $@

$(VENV)/.wheels: constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) pybind11 scikit-build-core cmake ninja ziglang wheel auditwheel
	touch $@

$(VENV)/.docs: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) 'mkdocs<2' mkdocs-material 'mkdocstrings[python]' mkdocs-jupyter latex2mathml ruff
	touch $@

# One run holds ours, the baselines and the limits. Keep the machine quiet: a disturbed run says so and fails.
bench: $(VENV)/.test
	$(PIP) mambapy
	OMP_WAIT_POLICY=passive $(BIN)/pytest bench -o addopts= -p no:cacheprovider --benchmark-only --benchmark-json=bench/results/cpu.json -q
	$(BIN)/python bench/summary.py bench/results/cpu.json --plot bench/results/cpu.png

# Instructions an element of every CPU kernel at the AVX2 level, counted by callgrind and held against bench/count_budget.json.
# COUNT_ARGS=--write renews the budget.
bench-count: $(VENV)/.test
	$(BIN)/python bench/count.py $(COUNT_ARGS)

# One wheel, built without torch, under two torch versions (the older one brings gigabytes of GPU libraries from the registry).
two-torch: build
	$(PYTHON) tests/two_torch.py dist/bdgf_fast-*.whl 2.13.0 2.6.0

# The source distribution alone: built without this folder and in isolation, into a fresh environment, and run there.
test-sdist: $(VENV)/.wheels
	rm -rf build/sdist
	$(BIN)/python -c 'import scikit_build_core.build as build; build.build_sdist("build/sdist")'
	$(PYTHON) tests/two_torch.py build/sdist/bdgf_fast-*.tar.gz 2.13.0

# The extension under AddressSanitizer and UndefinedBehaviorSanitizer, in build/sanitize, and the native tests on it.
sanitize: $(VENV)/.test
	$(PIP) pybind11 scikit-build-core ninja
	OMP_WAIT_POLICY=passive $(BIN)/python tests/sanitize.py $(TEST_ARGS)

# The package in place: edits to Python files count at once, C++ is rebuilt by calling it again.
dev: $(VENV)/.torch
	$(PIP) pybind11 scikit-build-core ninja
	$(PIP) --no-build-isolation -e '.[app,test,docs]'
	touch $(VENV)/.test

# Fetches the peers' source packages; no registry is needed where they are built (bench/gpu/peers.py).
peers: $(VENV)/.test
	$(PIP) wheel packaging setuptools
	MAMBA_SKIP_CUDA_BUILD=TRUE CAUSAL_CONV1D_SKIP_CUDA_BUILD=TRUE $(BIN)/python -m pip download --disable-pip-version-check -q \
	  $(PIP_ARGS) --no-deps --no-build-isolation --no-binary :all: -d .peers $(PEER_PACKAGES)

# The CUDA kernels on small shapes under compute-sanitizer (it comes with the CUDA toolkit); needs a GPU.
gpu-sanitize: $(VENV)/.test
	compute-sanitizer --tool memcheck --error-exitcode 1 $(BIN)/python bench/gpu/small_shapes.py
	compute-sanitizer --tool racecheck --error-exitcode 1 $(BIN)/python bench/gpu/small_shapes.py

# What the CUDA kernels execute on sm_90 and the time that follows, without a GPU: bench/results/sm_90_predicted.json. The launches
# come from a C++ compiler, the kernels from the installed extension, which nvcc must have built. PEER=selective_scan_cuda.so is
# mamba_ssm's extension for sm_90, as bench/gpu/peers.py leaves it under .peers/built. PREDICT_ARGS=--budget renews the budget.
gpu-predict: $(VENV)/.test
	$(PIP) pybind11
	$(BIN)/python bench/gpu/launches.py
	$(BIN)/python bench/gpu/predict.py $(if $(PEER),--peer $(PEER)) $(PREDICT_ARGS)

# On a machine with a GPU, torch and a CUDA compiler: nothing is downloaded, what is missing there is left out.
#   make gpu        build, a sample of the tests, benchmark; ends in bench/results/<gpu name>.json
#   make gpu-test-all   every case of the tests
# GPU_PYTHON holds torch; the build goes to out/gpu beside it, for the GPU at hand alone. Logs and results are written as they
# come, and also to the folder RESULTS where it is set. GPU_SAMPLE is the most cases of each test that `make gpu` runs.
# Without a GPU, GPU_ARCHITECTURES=90-real builds for a named one.
GPU_PYTHON ?= python3
GPU_ARCHITECTURES ?= native
GPU_JOBS   ?= 14
GPU_SAMPLE ?= 4
GPU_RUN    := PYTHONSAFEPATH=1 PYTHONPATH=$(CURDIR)/out/gpu $(GPU_PYTHON)
GPU_LOGS   := $(or $(RESULTS),out)
GPU_CASES  := scan scan_2d conv attention gate channel_attention noise loss

gpu: gpu-build
	tests=0; $(MAKE) gpu-test || tests=$$?; $(MAKE) gpu-bench && exit $$tests

gpu-build:
	rm -rf out/gpu
	CUDAARCHS='$(GPU_ARCHITECTURES)' $(GPU_PYTHON) -m pip install --disable-pip-version-check -q --no-build-isolation --no-deps --no-index --target out/gpu .

gpu-test:
	$(MAKE) gpu-test-all TEST_ARGS="--sample $(GPU_SAMPLE) $(TEST_ARGS)"

gpu-test-all:
	mkdir -p $(GPU_LOGS)
	bash -o pipefail -c 'OMP_NUM_THREADS=1 $(GPU_RUN) -m pytest -m gpu -n $(GPU_JOBS) -p no:cacheprovider --durations 15 tests/ops tests/gpu $(TEST_ARGS) 2>&1 | tee $(GPU_LOGS)/gpu-test.log | tail -n 60'

# The kernels of every case are compiled side by side first: one process alone would wait for its compilers most of the time.
gpu-compile:
	mkdir -p $(GPU_LOGS)
	for case in $(GPU_CASES); do $(GPU_RUN) bench/gpu/run.py --once --only $$case > $(GPU_LOGS)/gpu-compile-$$case.log 2>&1 & done; wait

gpu-bench: gpu-compile
	bash -o pipefail -c '$(GPU_RUN) bench/gpu/run.py 2>&1 | tee $(GPU_LOGS)/gpu-bench.log'
	bash -o pipefail -c '$(GPU_RUN) bench/gpu/method.py 2>&1 | tee $(GPU_LOGS)/gpu-method.log'
