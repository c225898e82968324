"""What needs a GPU: the same tiny recipe, on it. `make gpu`."""

import json
import os
import subprocess
import sys

import pytest
from tiny import make_model, make_recipe

from runner import hardware

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def gpu():
    """Every test here is skipped where there is no GPU."""
    if not hardware.gpus():
        pytest.skip("no NVIDIA GPU on this machine")


def test_the_driver_and_torch_see_the_same_gpus():
    import torch

    found = hardware.gpus()
    assert len(found) == torch.cuda.device_count()
    for index, each in enumerate(found):
        assert each.name == torch.cuda.get_device_name(index)
        assert each.capability == torch.cuda.get_device_capability(index)
        assert each.memory == torch.cuda.get_device_properties(index).total_memory


def test_the_driver_and_torch_tell_the_same_of_free_memory():
    import torch

    free, _ = torch.cuda.mem_get_info()
    assert abs(hardware.free_memory("cuda") - free) < 1e9
    held = torch.empty(4 << 30, dtype=torch.uint8, device="cuda")
    assert hardware.free_memory("cuda") < free - 0.9 * held.nbytes


def test_a_run_over_all_stages_uses_the_gpu_and_a_second_one_does_nothing(tmp_path):
    make_recipe(tmp_path, make_model(tmp_path / "model"))
    command = [sys.executable, "-m", "runner", "run", "tiny.yaml"]
    env = {**os.environ, "RUNNER_STORE": str(tmp_path / "store")}
    for _ in range(2):
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    first, second = sorted((tmp_path / "runs" / "tiny").iterdir())
    facts = json.loads((first / "record.json").read_text())["steps"]["load"]["facts"]
    assert facts["device"].startswith("cuda")
    steps = json.loads((second / "record.json").read_text())["steps"]
    assert {step["verdict"] for step in steps.values()} == {"reuse"}
