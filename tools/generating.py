"""What answers cost: a generate step and transformers' own ways, in turn, on one machine.

`python tools/generating.py MODEL` prints its part of the page alone, for a model's folder;
GENERATE_PROMPTS and GENERATE_ROUNDS make it smaller for a try.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from demos import demo_sets

from runner import hardware, products
from runner.answering.settings import Options
from runner.checkpoint import Checkpoints
from runner.products import Model
from runner.stage import Context
from runner.stages import generate

PROMPTS = int(os.environ.get("GENERATE_PROMPTS", "256"))
ROUNDS = int(os.environ.get("GENERATE_ROUNDS", "1"))
LENGTH, LONGEST = 64, 400
"""Tokens of an answer at most, and of a prompt."""


def _step(model: Model, prompts: Sequence[str]) -> int:
    """A generate step as a recipe without any setting has it."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        options = Options(prompts=tuple(prompts), max_new_tokens=LENGTH)
        context = Context(place, Checkpoints(place / "checkpoints", print))
        rows = generate.run(options, {"model": model}, context)
    return sum(row["answer_tokens"] for row in rows)


def _pipeline(model: Model, prompts: Sequence[str]) -> int:
    """`pipeline("text-generation")`, which takes one prompt at a time."""
    from transformers import pipeline

    ask = pipeline("text-generation", model=model.model, tokenizer=model.tokenizer)
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    said = ask(
        chats, max_new_tokens=LENGTH, max_length=None, do_sample=False, return_full_text=False
    )
    texts = [each[0]["generated_text"] for each in said]
    return sum(len(model.tokenizer(text)["input_ids"]) for text in texts) + len(texts)


def _continuous(model: Model, prompts: Sequence[str]) -> int:
    """`generate_batch`, transformers' continuous batching."""
    from transformers import GenerationConfig

    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    encoded = model.tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, return_dict=True
    )
    config = GenerationConfig(
        max_new_tokens=LENGTH,
        do_sample=False,
        eos_token_id=model.tokenizer.eos_token_id,
        pad_token_id=model.tokenizer.pad_token_id,
    )
    said = model.model.generate_batch(inputs=encoded["input_ids"], generation_config=config)
    return sum(len(each.generated_tokens) for each in said.values())


WAYS: dict[str, Callable[[Model, Sequence[str]], int]] = {
    "a generate step": _step,
    'pipeline("text-generation"), default batch': _pipeline,
    "generate_batch (continuous batching)": _continuous,
}


def page(model: Path) -> str:
    """The section "Answers"."""
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        asked = Path(folder) / "prompts.json"
        asked.write_text(json.dumps(_prompts(model, Path(folder))), encoding="utf-8")
        for _ in range(ROUNDS):
            for way, measured in found.items():
                measured.append(_measured(way, model, asked))
    rates = {way: statistics.median(m["rate"] for m in each) for way, each in found.items()}
    ours = next(iter(rates.values()))
    lines = [
        "",
        f"## {PROMPTS} prompts of mixed length, answered by SmolLM2-135M",
        "",
        f"Greedy, at most {LENGTH} tokens each; medians of {ROUNDS}, taken in turn. Tokens of the"
        " answers in a second, after the model is loaded and has answered once.",
        "",
        "| way | tokens a second | a generate step is faster by | memory at most |",
        "|---|---|---|---|",
    ]
    for way, rate in rates.items():
        memory = max(each["memory"] for each in found[way]) / 1e9
        faster = (
            "" if way == "a generate step" else f"{ours / rate:.2f}" if rate else "does not run"
        )
        lines.append(f"| {way} | {rate:.1f} | {faster} | {memory:.2f} GB |")
    return "\n".join(lines) + "\n"


def _prompts(model: Path, folder: Path) -> list[str]:
    """Instructions of a public set, the first so many that are not too long."""
    tokenizer = products.open_tokenizer(model)
    demo = json.loads((demo_sets(folder) / "alpaca_en_demo.json").read_text(encoding="utf-8"))
    texts = ["\n".join(filter(None, (row["instruction"], row.get("input")))) for row in demo]
    return [text for text in texts if len(tokenizer(text)["input_ids"]) <= LONGEST][:PROMPTS]


def _measured(way: str, model: Path, asked: Path) -> dict[str, Any]:
    """One way in a process of its own; a rate of 0 where it does not run on this machine."""
    command = [sys.executable, __file__, str(model), way, str(asked)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"{way} does not run:\n{done.stderr[-1000:]}", file=sys.stderr)
        return {"rate": 0.0, "memory": 0}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _measure(folder: Path, way: str, asked: Path) -> None:
    dtype = "bfloat16" if hardware.computes_bfloat16() else "float32"
    model, prompts = products.open_model(folder, dtype=dtype), json.loads(asked.read_text())
    WAYS[way](model, prompts[:2])
    begun = time.perf_counter()
    tokens = WAYS[way](model, prompts)
    seconds = time.perf_counter() - begun
    print(
        json.dumps({"rate": tokens / seconds, "tokens": tokens, "memory": hardware.peak_memory()})
    )


if __name__ == "__main__":
    hardware.prepare()
    if len(sys.argv) > 2:
        _measure(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
    else:
        print(page(Path(sys.argv[1])))
