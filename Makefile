# What CI runs, and the longer checks. Needs pip and make alone.
PYTHON ?= python
TORCH ?= torch==2.13.0

.PHONY: check test fast lint latest test-s3 test-olah test-report test-trackers test-quantize long gpu bench torture torture-train readme golden

check: test lint

test:
	$(PYTHON) -m pytest

fast:
	$(PYTHON) -m pytest -m "not real"

lint:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy
	lint-imports

# The newest releases of everything but torch, whose newest build may bring gigabytes of CUDA:
# make latest TORCH=torch takes that one too.
latest:
	$(PYTHON) -m venv --clear .venv-latest
	.venv-latest/bin/python -m pip install -q '$(TORCH)'
	.venv-latest/bin/python -m pip install -q --upgrade --upgrade-strategy eager '$(TORCH)' -e '.[test]'
	.venv-latest/bin/python -m pytest -m "not real"

# s3:// against moto's server, in an environment of its own.
test-s3:
	$(PYTHON) -m venv .venv-s3
	.venv-s3/bin/python -m pip install -q s3fs==2026.9.0 'moto[server]==5.2.5' blake3 PyYAML pytest pytest-timeout
	PYTHONPATH=. .venv-s3/bin/python -m pytest -W default tests/servers/s3_moto.py

# Through a mirror that is not ours, in a virtual environment with its own huggingface_hub.
OLAH = 0.5.4

.venv-olah/$(OLAH):
	$(PYTHON) -m venv --clear .venv-olah
	.venv-olah/bin/python -m pip install -q olah==$(OLAH)
	touch $@

test-olah: .venv-olah/$(OLAH)
	$(PYTHON) -m pytest tests/servers/olah_mirror.py

# Reports in headless Chromium; the pictures are left in build/report to be looked at.
test-report:
	mkdir -p build
	$(PYTHON) -m pytest -m browser -rs --basetemp build/report

# Experiment trackers, installed on top of this environment's libraries without touching them.
# make test-trackers TRACKERS="tensorboard trackio wandb mlflow" takes all, some 500 MB.
TRACKERS = tensorboard

test-trackers:
	$(PYTHON) -m venv --clear .venv-trackers
	$(PYTHON) -c "import site; print(*site.getsitepackages(), sep='\n')" > $$(echo .venv-trackers/lib/python3*/site-packages)/outer.pth
	.venv-trackers/bin/python -m pip install -q $(TRACKERS)
	.venv-trackers/bin/python -m pytest -rs tests/test_trackers.py

# What quantizes with libraries of its own, on top of this environment's without touching them.
QUANTIZERS = gptqmodel optimum llmcompressor compressed-tensors torchao

test-quantize:
	$(PYTHON) -m venv --clear .venv-quantize
	$(PYTHON) -c "import site; print(*site.getsitepackages(), sep='\n')" > $$(echo .venv-quantize/lib/python3*/site-packages)/outer.pth
	.venv-quantize/bin/python -m pip install -q -c constraints.txt $(QUANTIZERS)
	.venv-quantize/bin/python -m pytest -rs tests/test_quantizing*.py

# The real model taught by more methods and objectives than the tests of every day have time for.
long:
	$(PYTHON) -m pytest -m long

gpu:
	$(PYTHON) -m pytest -m gpu -rA

bench:
	$(PYTHON) tools/figures.py

torture:
	$(PYTHON) tools/torture.py

torture-train:
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -s tests/torture/torture_train.py

readme:
	$(PYTHON) tools/readme.py

golden:
	$(PYTHON) tools/golden.py
