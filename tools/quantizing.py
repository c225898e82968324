"""What each form of weights costs and is worth, and what its library alone would have cost.

`python tools/quantizing.py FOLDER [METHOD ...]` prints a table for the model in that folder; `make
bench` has it in docs/figures.md. Rows to calibrate and to measure with are the odd and the even
texts of Python's own documentation. Methods whose libraries are missing are left out, and said.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner import files
from runner.checkpoint import Checkpoints
from runner.files import human_bytes
from runner.products import weight_bytes
from runner.quantizing import gate, making, methods
from runner.quantizing.settings import Gate, Options
from runner.stage import Context

TOOLS = Path(__file__).parent
ROWS, LENGTH, GROUP = 16, 256, 64
"""Few, so that no method takes minutes; 128 does not divide this model's layers."""
ROUNDS, SHORT = 5, 15
"""How often what takes fewer seconds than that is measured, by hand and by the step in turn."""
NAMES = [name for name in methods.METHODS if name != "none"]


@dataclass(frozen=True)
class Cost:
    """Seconds of a process, and its peak memory in bytes."""

    seconds: float
    memory: float


@dataclass(frozen=True)
class Measured:
    """One method: ours and the library's cost, the gate's, and what the result is worth."""

    name: str
    size: int
    ours: Cost
    theirs: Cost
    gate_seconds: float
    found: dict[str, Any]
    rate: float


def page(folder: Path, names: Sequence[str] = NAMES) -> str:
    """The section "Quantizing"."""
    missing = [name for name in names if methods.missing(name)]
    measured = [measure(folder, name) for name in names if name not in missing]
    lines = [
        "",
        f"## Quantizing SmolLM2-135M ({human_bytes(weight_bytes(folder))})",
        "",
        f"Calibrated with {ROWS} rows of {LENGTH} tokens, 4-bit forms in groups of {GROUP} where"
        " they have groups. Perplexity and the share of next tokens that are the source model's are"
        " measured by the step's gate on other texts; tokens a second are greedy ones of plain"
        " transformers, one text at a time. The model itself was made of 4-bit weights.",
        "",
        *_worth(measured),
        "",
        "Time and peak memory of the process that quantizes, against a script that calls the"
        " library by hand (`tools/by_hand.py`), one after the other; of what takes less than"
        f" {SHORT} s the medians of {ROUNDS}, in turn. The gate comes on top.",
        "",
        *_costs(measured),
    ]
    lines += ["", f"Not installed here: {', '.join(missing)}."] if missing else []
    return "\n".join(lines) + "\n"


def _worth(measured: Sequence[Measured]) -> Iterator[str]:
    yield "| method | size | perplexity (before) | same next token | tokens a second | opens in |"
    yield "|---|---|---|---|---|---|"
    for each in measured:
        after, before = each.found["perplexity"], each.found["perplexity_before"]
        opens = ", ".join(methods.METHODS[each.name].opens_in)
        yield (
            f"| {each.name} | {human_bytes(each.size)} | {after:.2f} ({before:.2f})"
            f" | {each.found['agreement']:.1%} | {each.rate:.1f} | {opens} |"
        )


def _costs(measured: Sequence[Measured]) -> Iterator[str]:
    yield "| method | seconds | by hand | memory | by hand | gate |"
    yield "|---|---|---|---|---|---|"
    for each in measured:
        ours, theirs = each.ours, each.theirs
        yield (
            f"| {each.name} | {ours.seconds:.1f} ({ours.seconds / theirs.seconds:.2f} times)"
            f" | {theirs.seconds:.1f} | {human_bytes(ours.memory)}"
            f" ({ours.memory / theirs.memory:.2f} times) | {human_bytes(theirs.memory)}"
            f" | {each.gate_seconds:.1f} s |"
        )


def measure(folder: Path, name: str) -> Measured:
    """Quantize by hand and by the step, and let the gate look at ours."""
    group = GROUP if GROUP in methods.METHODS[name].groups else None
    options = methods.resolved(
        Options(method=name, group_size=group, gate=Gate(max_perplexity_increase=10.0))
    )
    with tempfile.TemporaryDirectory() as place:
        calibrating = _rows(folder, ROWS, LENGTH, first=1)
        shown = _rows(folder, Gate().rows, Gate().max_length, first=0)
        rows, target = Path(place) / "rows.json", Path(place) / "by-hand"
        rows.write_text(json.dumps(calibrating), encoding="utf-8")
        command = [sys.executable, str(TOOLS / "by_hand.py"), name, str(folder), str(rows)]
        made, theirs, ours = Path(place) / "made", list[Cost](), list[Cost]()
        while not theirs or (len(theirs) < ROUNDS and theirs[0].seconds < SHORT):
            for each in (target, made):
                files.remove(each)
            theirs.append(_watched([*command, str(target)], Path(place)))
            made.mkdir()
            context = _context(Path(place) / f"draft-{len(ours)}")
            begun = time.perf_counter()
            making.make(folder, made, calibrating, options, context)
            ours.append(Cost(time.perf_counter() - begun, context.facts["peak_bytes"]))
        begun = time.perf_counter()
        found = gate.compared(
            folder, made, [{"ids": r, "labels": r} for r in shown], options, context
        )
        taken = time.perf_counter() - begun
        costs = _median(ours), _median(theirs)
        return Measured(name, weight_bytes(made), *costs, taken, found, _rate(made, name))


def _median(costs: Sequence[Cost]) -> Cost:
    seconds, memory = zip(*((each.seconds, each.memory) for each in costs), strict=True)
    return Cost(statistics.median(seconds), statistics.median(memory))


def _context(folder: Path) -> Context:
    folder.mkdir()
    return Context(draft=folder, checkpoint=Checkpoints(folder / "checkpoints", print), note=print)


def _rows(folder: Path, count: int, length: int, first: int) -> list[list[int]]:
    """Tokens of every other text that comes with Python."""
    from pydoc_data.topics import topics

    from runner import products

    tokenizer = products.open_tokenizer(folder)
    texts = [topics[name] for name in sorted(topics)][first::2]
    cut = (ids[:length] for ids in tokenizer(texts)["input_ids"])
    return [ids for ids in cut if len(ids) == length][:count]


def _watched(command: list[str], place: Path) -> Cost:
    begun = time.perf_counter()
    with open(place / "said.txt", "w+") as said:
        child = subprocess.Popen(command, cwd=place, stdout=said, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(child.pid, 0)
        if status:
            said.seek(0)
            raise RuntimeError(f"{command} failed: {said.read()[-2000:]}")
    return Cost(time.perf_counter() - begun, used.ru_maxrss * 1024)


RATE = """
import sys, time, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], device_map=sys.argv[2]).eval()
ids = torch.arange(100, 132, device=model.device)[None]
mask = torch.ones_like(ids)
for count in (8, 64):
    begun = time.perf_counter()
    settings = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False}
    model.generate(input_ids=ids, attention_mask=mask, **settings)
print(64 / (time.perf_counter() - begun))
"""


def _rate(folder: Path, name: str) -> float:
    """Tokens a second of plain transformers."""
    from runner import hardware

    env = {**os.environ, **dict(methods.METHODS[name].environment)}
    command = [sys.executable, "-c", RATE, str(folder), hardware.device()]
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    print(page(Path(sys.argv[1]), sys.argv[2:] or NAMES))
