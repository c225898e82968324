"""One model quantized as the stage asks for it, in a process that a test may kill."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner import files
from runner.checkpoint import Checkpoints
from runner.errors import Stopped
from runner.options import build, plain
from runner.quantizing import methods, processes
from runner.quantizing.settings import Options
from runner.stage import Context


def rows(count: int = 12, longest: int = 48, tokens: int = 250) -> list[list[int]]:
    """Rows of random tokens, some of them short."""
    draw = random.Random(0)
    return [
        [draw.randrange(tokens) for _ in range(draw.randrange(2, longest))] for _ in range(count)
    ]


def options(**given: Any) -> Options:
    """Resolved options of quantize."""
    found, faults = build(Options, given)
    assert found is not None, faults
    return methods.resolved(found)


@dataclass
class Attempt:
    """What one process did."""

    layers: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ended: bool = False
    told_at: float = 0.0


def quantize(
    whole: Path,
    place: Path,
    calibration: list[list[int]],
    kill: Callable[[Attempt], bool] = lambda _: False,
    **given: Any,
) -> Attempt:
    """Fill `place/target`; the process gets SIGKILL once `kill` of what it told so far is true."""
    attempt = Attempt()
    target, scratch = place / "target", place / "scratch"
    files.remove(target)
    for folder in (target, scratch):
        folder.mkdir(parents=True, exist_ok=True)

    def progress(done: float, total: float, unit: str) -> None:
        attempt.layers.append(done)
        attempt.told_at = time.monotonic()

    context = Context(
        draft=place,
        checkpoint=Checkpoints(place / "checkpoints", print),
        progress=progress,
        note=attempt.notes.append,
        stop_signal=lambda: "TERM" if kill(attempt) else None,
    )
    said = options(**given)
    asked = {
        "whole": str(whole),
        "target": str(target),
        "scratch": str(scratch),
        "options": plain(said),
        "rows": calibration,
    }
    try:
        processes.ask("quantize", asked, context, methods.of(said).environment)
        attempt.ended = True
    except Stopped:
        pass
    return attempt


def bytes_of(folder: Path) -> dict[str, str]:
    """The digest of every file of a folder."""
    return {name: row["blake3"] for name, row in files.manifest(folder).items()}


OPENED = """
import json, sys
import torch
from transformers import AutoModelForCausalLM
found = []
for folder in sys.argv[2:]:
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, output_loading_info=True
    )
    model.eval()
    ids = torch.tensor([json.loads(sys.argv[1])])
    with torch.inference_mode():
        loss = float(model(input_ids=ids, labels=ids).loss)
    text = model.generate(ids, max_new_tokens=12, do_sample=False)[0].tolist()
    plain = [n for n, m in model.named_modules() if type(m) is torch.nn.Linear]
    wrong = [n for n in ("missing_keys", "unexpected_keys", "mismatched_keys") if info[n]]
    found.append({"loss": loss, "text": text, "plain": plain, "wrong": wrong})
print("FOUND" + json.dumps(found))
"""


def opened(prompt: list[int], *folders: Path) -> list[dict[str, Any]]:
    """What plain transformers makes of folders, in a new process."""
    return told(OPENED, json.dumps(prompt), *map(str, folders))


def told(program: str, *words: str) -> Any:
    """What a program in a new process, with none of our code, tells after FOUND."""
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-4000:]
    line = next(line for line in done.stdout.splitlines() if "FOUND" in line)
    return json.loads(line.partition("FOUND")[2])
