"""A run's folder written by hand, with whatever texts a test wants in every place that has one."""

import json
import math
from pathlib import Path
from typing import Any

FAILURE = """\
# pages: adapt failed

It failed {word}.

## Likely causes
1. the memory is full: Take fewer rows at once {word}.
2. the disk is full: See what can go: runner store gc

## To go on
    runner run pages {word}
What was done is kept: 2 of 5 steps.
"""
VOCABULARY = ("<|user|>", "<|end|>", "say ", "it ", "twice")


def make_run(runs: Path, word: str = "plain", *, steps: int = 60, ending: str = "finished") -> Path:
    """Write a run of five steps, the texts of which hold `word`; not finished, adapt ended it."""
    folder = runs / "pages" / "2026-01-02T03-04-05"
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(f"name: pages\n# {word}\n")
    (folder / "log.txt").write_text("".join(f"line {n} {word}\n" for n in range(100)))
    rows = (json.dumps({"of": "adapt", word: 1, **row}) + "\n" for row in measured(steps))
    (folder / "metrics.jsonl").write_text("".join(rows))
    for name, fill in (("fetch.model", _tokenizer), ("process", _dataset), ("after", _answers)):
        (folder / "products" / name).mkdir(parents=True)
        fill(folder / "products" / name, word)
    names = ["fetch.model", "process", "adapt", "after", "evaluate"]
    done = names if ending == "finished" else names[:2]
    record = {
        "recipe": f"pages {word}",
        "ending": ending,
        "command": ["run", "pages", f"x={word}"],
        "begun": "2026-01-02T03:04:05Z",
        "seconds": 321.0,
        "runner": "0.1.0",
        "python": "3.11.7",
        "platform": f"Linux {word}",
        "cores": 2,
        "gpus": [f"GPU {word}"],
        "libraries": {"torch": "2.13.0+cpu", "peft": word},
        "peak_memory": 2_000_000_000,
        "plan": [_planned(name, word) for name in names],
        "running": [] if ending == "finished" else ["adapt"],
        "sources": {"fetch.model": {"repo": "a/b", "commit": "c0ffee", "note": word}},
        "steps": {name: _done(name, word) for name in done},
    }
    (folder / "record.json").write_text(json.dumps(record))
    if ending.startswith("ended by") and "Stopped" not in ending:
        (folder / "failure.md").write_text(FAILURE.format(word=word))
    return folder


def measured(count: int) -> list[dict[str, Any]]:
    """Rows as training gives them."""
    return [
        {
            "step": step,
            "loss": 3 / math.sqrt(step) + 0.05 * math.sin(step * 1.7),
            "learning_rate": 2e-4 * (1 - step / count),
            "gradient_norm": 1 + 0.2 * math.cos(step),
            "tokens": step * 4096,
            "seconds": round(step * 0.35 + 0.01 * math.sin(step), 3),
            "memory": 2_400_000_000 + step * 1000,
        }
        for step in range(1, count + 1)
    ]


def _planned(name: str, word: str) -> dict[str, Any]:
    stage, gives, inputs = {
        "fetch.model": ("fetch", "files", {}),
        "process": ("process", "dataset", {"tokenizer": ["fetch.model"]}),
        "adapt": ("adapt", "model", {}),
        "after": ("generate", "text", {}),
        "evaluate": ("evaluate", "scores", {"texts": ["after"]}),
    }[name]
    row = {"step": name, "stage": stage, "gives": gives, "inputs": inputs}
    return {**row, "verdict": "run", "reason": f"planned {word}"}


def _done(name: str, word: str) -> dict[str, Any]:
    facts: dict[str, Any] = {"note": word}
    if name == "process":
        facts |= {
            "counts": {"rows": 18, "tokens": 90, "trained": 54, "truncated": 1},
            "tokens_by_role": {"user": 36, f"role {word}": 54},
            "rows_up_to_tokens": {"8": 12, "16": 6},
            "places": {"truncated": [f"rows.jsonl:3 {word}"]},
            "reading": {
                "read": 20,
                "kept": 19,
                "bad": {f"bad {word}": 1},
                "filters": [{"kind": f"filter {word}", "dropped": 1, "changed": 2}],
            },
            "leaks": [],
        }
    if name == "evaluate":
        facts |= {"exact_match": {"after": 0.5}, f"score {word}": 2, "perplexity": {}}
    return {
        "key": "ab" * 16,
        "verdict": "reuse" if name == "fetch.model" else "run",
        "reason": f"because {word}",
        "seconds": 12.5,
        "peak_memory": 1_500_000_000,
        "made_in_seconds": 33.0,
        "digest": "cd" * 32,
        "made": "2026-01-02T03:05:00Z",
        "facts": facts,
        "versions": {},
    }


def _tokenizer(folder: Path, word: str) -> None:
    from tokenizers import Tokenizer, models

    (folder / "files").mkdir()
    words = {text: number for number, text in enumerate((*VOCABULARY, word))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=word))
    tokenizer.save(str(folder / "files" / "tokenizer.json"))


def _dataset(folder: Path, _: str) -> None:
    ids, labels = [0, 2, 3, 5, 1], [-100, -100, -100, 5, 1]
    write_rows(folder, {"input_ids": [ids] * 6, "labels": [labels] * 6})


def write_rows(folder: Path, columns: dict[str, list[Any]]) -> None:
    """Rows to train on, as the product of a process step has them."""
    import pyarrow as pa

    table = pa.table(columns)
    path = str(folder / "train.arrow")
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def _answers(folder: Path, word: str) -> None:
    rows = [
        {"prompt": f"question {n} {word}", "expected": f"right {word}", "answer": answer}
        for n, answer in enumerate((f"right {word}", f"wrong {word}"))
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
