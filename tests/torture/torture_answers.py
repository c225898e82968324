"""Kills of a step that answers 10,000 prompts: none is missing, none is twice, the order stays."""

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from measure import row, size
from tiny import make_model

from runner import products
from runner.answering.settings import Options
from runner.checkpoint import Checkpoints
from runner.products import Model
from runner.stage import Context
from runner.stages import generate

pytestmark = pytest.mark.timeout(7200)


def answer(model: Model, folder: Path, options: Options) -> list[dict[str, Any]]:
    folder.mkdir(parents=True, exist_ok=True)
    context = Context(folder, Checkpoints(folder / "checkpoints", print))
    return generate.run(options, {"model": model}, context)


def begin(model: Model, folder: Path, options: Options) -> int:
    """Answer in a process of its own, of which this is the number."""
    pid = os.fork()
    if pid == 0:
        try:
            answer(model, folder, options)
        finally:
            os._exit(0)
    return pid


def lines(folder: Path) -> int:
    path = folder / "rows.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def killed(pid: int, folder: Path, at: int, draw: random.Random) -> bool:
    """Kill a process soon after so many rows are there; whether it had not ended by then."""
    while lines(folder) < at:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return False
        time.sleep(0.002)
    time.sleep(draw.uniform(0, 0.05))
    os.kill(pid, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def test_ten_thousand_prompts_outlive_fifty_kills(tmp_path):
    begun, draw = time.monotonic(), random.Random(11)
    count, wanted = size("PROMPTS", 10_000), size("ANSWER_KILLS", 50)
    model = products.open_model(make_model(tmp_path / "model"), dtype="bfloat16")
    prompts = tuple(f"say {'so ' * draw.randrange(9)}{number}" for number in range(count))
    options = Options(prompts=prompts, max_new_tokens=3, temperature=1.0)
    whole = answer(model, tmp_path / "whole", options)
    assert [each["prompt"] for each in whole] == list(prompts)
    folder, kills, seen = tmp_path / "killed", 0, []
    folder.mkdir()
    while kills < wanted:
        at = draw.randrange(lines(folder), count * (kills + 1) // (wanted + 2) + 1)
        kills += killed(begin(model, folder, options), folder, at, draw)
        seen.append(lines(folder))
    kept = [json.loads(each)["n"] for each in whole_lines(folder)]
    rows = answer(model, folder, options)
    wrong = sum(a != b for a, b in zip(rows, whole, strict=True))
    row(
        f"SIGKILL of a step that answers {count:,} prompts",
        f"{kills} kills, at {len(set(seen))} different numbers of rows",
        f"{wrong} other rows, {len(kept) - len(set(kept))} twice, "
        f"{count - len({each['id'] for each in rows})} missing",
        begun,
    )
    assert rows == whole
    assert len(kept) == len(set(kept)) == seen[-1]
    assert len({each["id"] for each in rows}) == count
    assert seen == sorted(seen)


def whole_lines(folder: Path) -> list[str]:
    text = (folder / "rows.jsonl").read_text(encoding="utf-8")
    return [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
