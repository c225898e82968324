"""Measures saving against save_pretrained, and opening a model against bare transformers.

`python tools/saving.py FOLDER` prints both tables for the model in that folder; `make bench` has
them in docs/figures.md. What is compared is measured in turn, on a machine at rest.
"""

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runner import files, products
from runner.checkpoint import Checkpoints
from runner.products import Files, Model
from runner.stage import Context
from runner.stages import load, save

ROUNDS, OPENINGS = 7, 5
WAYS = ("save_pretrained", "save_pretrained, synced", "save", "save of what lies on disk")
PROMPT = "The capital of France is"
BARE = """
import sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
given = tokenizer(sys.argv[2], return_tensors="pt")
with torch.inference_mode():
    made = model.generate(**given, max_new_tokens=1, do_sample=False)
print(made[0, -1].item())
"""


def page(folder: Path) -> str:
    """What saving costs, for docs/figures.md."""
    _, found = _process([sys.executable, __file__, str(folder), "save"])
    medians = {name: statistics.median(found[name]) for name in WAYS}
    bare, synced = (medians[name] for name in ("save_pretrained", "save_pretrained, synced"))
    lines = [
        "## Saving SmolLM2-135M",
        "",
        f"Medians of {ROUNDS}, in turn, onto the same disk. What runner writes is digested, synced"
        " to the disk, described by a card and moved into place whole: its like is save_pretrained"
        " with a sync of its files. Opening it again in a new process, to compare logits"
        f" (`verify`), is not counted; it took {found['verify']:.1f} s.",
        "",
        "| what | seconds | speed of save_pretrained, synced | speed of save_pretrained |",
        "|---|---|---|---|",
        *(
            f"| {name} | {seconds:.2f} | {synced / seconds:.2f} | {bare / seconds:.2f} |"
            for name, seconds in medians.items()
        ),
    ]
    return "\n".join(lines) + "\n"


def opening_page(folder: Path) -> str:
    """What it takes from a folder to the first token, for docs/figures.md."""
    commands = {
        "transformers alone": [sys.executable, "-c", BARE, str(folder), PROMPT],
        "load, then the same": [sys.executable, __file__, str(folder), "open"],
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for each in range(OPENINGS + 1):
        for name, command in commands.items():
            taken = _process(command)[0]
            found[name] += [taken] if each else []  # the first round fills the page cache
    medians = {
        name: [statistics.median(x) for x in zip(*found[name], strict=True)] for name in found
    }
    bare = medians["transformers alone"]
    lines = [
        "## From a saved folder to the first token",
        "",
        "Whole processes, the start of Python and all imports counted; medians of"
        f" {OPENINGS}, in turn.",
        "",
        "| what | seconds | processor seconds |",
        "|---|---|---|",
        *(
            f"| {name} | {wall:.2f} ({wall / bare[0]:.2f} times) | {cpu:.2f} ({cpu / bare[1]:.2f}"
            " times) |"
            for name, (wall, cpu) in medians.items()
        ),
    ]
    return "\n".join(lines) + "\n"


def _process(command: list[str]) -> tuple[tuple[float, float], Any]:
    """How long a process took, how long it computed, and what its last line says."""
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    env = os.environ | {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    computed = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    said = json.loads(done.stdout.splitlines()[-1])
    return (time.perf_counter() - begun, computed), said


def _save(folder: Path) -> dict[str, Any]:
    """Seconds of each way to save, round by round; and of opening it again, once."""
    lying = products.open_model(folder, dtype="auto", attn_implementation="sdpa")
    held = Model(lying.model, lying.tokenizer)  # as after training: nowhere on disk
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as place:
        does: list[Callable[[Path], object]] = [
            lambda to: _bare(held, to),
            lambda to: _bare(held, to, synced=True),
            lambda to: _ours(held, to),
            lambda to: _ours(lying, to),
        ]
        ways = dict(zip(WAYS, does, strict=True))
        seconds: dict[str, Any] = {name: [] for name in ways}
        for each in range(ROUNDS + 1):
            for name, way in ways.items():
                taken = _timed(way, Path(place) / "to")
                seconds[name] += [taken] if each else []  # the first round warms up
        context = _ours(held, Path(place) / "to", verify=True)
    return seconds | {"verify": context.facts["verified"]["seconds"]}


def _timed(way: Callable[[Path], object], to: Path) -> float:
    os.sync()
    begun = time.perf_counter()
    way(to)
    taken = time.perf_counter() - begun
    shutil.rmtree(to)
    return taken


def _bare(model: Model, to: Path, *, synced: bool = False) -> None:
    model.model.save_pretrained(to)
    model.tokenizer.save_pretrained(to)
    if synced:
        files.sync_tree(to)


def _ours(model: Model, to: Path, *, verify: bool = False) -> Context:
    draft = to.with_name("draft")
    draft.mkdir(exist_ok=True)
    context = Context(draft, Checkpoints(draft / "c", print))
    save.run(save.Options(to=to, verify=verify), {"model": model}, context)
    return context


def _first_token(folder: Path) -> int:
    """By `load`; what BARE does by transformers alone."""
    import torch

    with tempfile.TemporaryDirectory() as place:
        context = Context(Path(place), Checkpoints(Path(place) / "c", print))
        options = load.resolve(load.Options(), {})
        loaded = load.run(options, {"files": Files(folder)}, context)
    given = loaded.tokenizer(PROMPT, return_tensors="pt")
    with torch.inference_mode():
        made = loaded.model.generate(**given, max_new_tokens=1, do_sample=False)
    return int(made[0, -1].item())


if __name__ == "__main__":
    if len(sys.argv) == 2:
        print(page(Path(sys.argv[1])), opening_page(Path(sys.argv[1])), sep="\n")
    elif sys.argv[2] == "save":
        print(json.dumps(_save(Path(sys.argv[1]))))
    else:
        print(json.dumps(_first_token(Path(sys.argv[1]))))
