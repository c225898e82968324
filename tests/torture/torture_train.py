"""Kills of a training at random moments: the adapter has the same bytes, the figures no gap."""

import json
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from lessons import OPTIONS, Lesson, dataset, rows
from measure import first, row, size

from runner.checkpoint import Checkpoints

pytestmark = [pytest.mark.timeout(7200), pytest.mark.filterwarnings("default")]

TRAINING = replace(
    OPTIONS,
    dropout=0.2,
    max_steps=60,
    checkpoint_every=4,
    evaluate_every=7,
    keep="best",
    micro_batch_size=1,
    optimizer="adamw_8bit",
)
CLOCKED = {"tokens_per_second", "memory"}


def train(folder: Path) -> None:
    """Train in this process, and leave the adapter's digest and all figures."""
    lesson = Lesson(folder, TRAINING, dataset(rows(90)))
    digest = lesson.bytes()
    figures = [{k: v for k, v in each.items() if k not in CLOCKED} for each in lesson.metrics]
    (folder / "done.json").write_text(json.dumps({"adapter": digest, "figures": figures}))


def begin(folder: Path) -> int:
    """Train in a process of its own, of which this is the number."""
    pid = os.fork()
    if pid == 0:
        os.setpgrp()
        try:
            train(folder)
        finally:
            os._exit(0)
    return pid


def ended(pid: int, within: float) -> bool:
    """Whether a process ends by itself; otherwise it is killed."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return True
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False


def done(folder: Path) -> dict:
    return json.loads((folder / "done.json").read_text())


def checkpoint(folder: Path) -> int:
    """The step from which a training would go on."""
    found = Checkpoints(folder / "checkpoints", print).newest()
    return found[0] if found else 0


def test_a_killed_training_gives_the_same_bytes(tmp_path):
    train(tmp_path)  # once here, so that no killed process is one that still imports libraries
    begun, draw, wanted = time.monotonic(), random.Random(7), size("TRAIN_KILLS", 30)
    whole = tmp_path / "whole"
    whole.mkdir()
    assert ended(begin(whole), within=600)
    expected, lasted = done(whole), time.monotonic() - begun
    assert expected == done(tmp_path)
    kills, runs, wrong = 0, 0, []
    steps: list[int] = []
    while kills < wanted:
        folder = tmp_path / str(runs)
        folder.mkdir()
        while not ended(begin(folder), within=draw.uniform(0, lasted)):
            kills += 1
            steps.append(checkpoint(folder))
        runs += 1
        if done(folder) != expected:
            wrong.append(folder)
    row(
        "SIGKILL of a training of 60 steps at random times",
        f"{kills} kills of {runs} trainings, at {len(set(steps))} different checkpoints",
        f"{len(wrong)} adapters with other bytes, or figures with a gap or a double",
        begun,
    )
    assert not wrong, first(wrong)
