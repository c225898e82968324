"""Kills of an AWQ run at random moments: the bytes are the same, no layer is done twice."""

import os
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from compressing import made, options, quantize
from measure import first, row, size

pytest.importorskip("llmcompressor", reason="an extra: compress")
pytestmark = [pytest.mark.timeout(7200), pytest.mark.filterwarnings("default")]

LAYERS = 6


@pytest.fixture
def whole(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model with more layers."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = shutil.copytree(tiny_model, tmp_path / "whole")
    config = AutoConfig.from_pretrained(tiny_model, num_hidden_layers=LAYERS)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def begin(whole: Path, folder: Path) -> int:
    """Quantize in a process of its own, of which this is the number."""
    pid = os.fork()
    if pid == 0:
        os.setpgrp()
        code = 1
        try:
            quantize(whole, folder, options("awq"), told=lambda *_: None)
            code = 0
        finally:
            os._exit(code)
    return pid


def ended(pid: int, within: float) -> bool:
    """Whether a process ends by itself; otherwise it is killed."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        found, code = os.waitpid(pid, os.WNOHANG)
        if found:
            assert code == 0
            return True
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False


def pieces(folder: Path) -> dict[str, int]:
    """What is kept, and when it was written."""
    found = (folder / "scratch").glob("*.safetensors")
    return {path.name: path.stat().st_mtime_ns for path in found}


def test_a_killed_run_gives_the_same_bytes_and_does_no_layer_twice(whole, tmp_path):
    quantize(whole, tmp_path / "here", options("awq"), told=lambda *_: None)  # imports, for forks
    begun, draw, wanted = time.monotonic(), random.Random(7), size("COMPRESS_KILLS", 20)
    assert ended(begin(whole, tmp_path / "whole-run"), within=600)
    expected, lasted = made(tmp_path / "whole-run"), time.monotonic() - begun
    assert expected == made(tmp_path / "here")
    kills, runs, wrong = 0, 0, []
    places: Counter[int] = Counter()
    while kills < wanted:
        folder, before = tmp_path / str(runs), {}
        while not ended(begin(whole, folder), within=draw.uniform(0, lasted)):
            kills += 1
            places[len(pieces(folder))] += 1
            if not before.items() <= pieces(folder).items():
                wrong.append(f"{folder}: a layer was done again")
            before = pieces(folder)
        runs += 1
        if made(folder) != expected or not before.items() <= pieces(folder).items():
            wrong.append(f"{folder}: other bytes, or a layer done again")
    row(
        f"SIGKILL of an AWQ run of {LAYERS} layers at random times",
        f"{kills} kills of {runs} runs, with {len(places)} different counts of layers done",
        f"{len(wrong)} results with other bytes, or a layer done twice",
        begun,
    )
    assert not wrong, first(wrong)
