"""What training costs: the adapt step of a recipe and a plain TRL script, in turn, on one machine.

Alone, `python tools/training.py` prints its part of the page; TRAIN_ROWS and TRAIN_ROUNDS make it
smaller for a try.
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
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from demos import demo_sets

from runner import hardware
from runner.files import human_bytes

TOOLS = Path(__file__).parent
ROWS = int(os.environ.get("TRAIN_ROWS", "96"))
ROUNDS = int(os.environ.get("TRAIN_ROUNDS", "2"))
BATCH, RANK, LENGTH, LEARNING_RATE, WARMUP = 8, 8, 1024, 2e-4, 2
STEPS = ROWS // BATCH
SETTLED = 2
"""Steps that do not count: memory is asked for and kernels are chosen in them."""
TEMPLATE = TOOLS.parent / "tests" / "templates" / "chatml_marked.jinja"


@dataclass(frozen=True)
class Cost:
    """Seconds until training begins, trained tokens a second after that, peak memory in bytes."""

    start: float
    rate: float
    memory: float

    @classmethod
    def of(cls, begun: float, ends: Sequence[float], tokens: float, memory: float) -> "Cost":
        """From the moments at which steps ended; `tokens` are those of all steps."""
        step = statistics.median(b - a for a, b in pairwise(ends))
        settled = tokens * (len(ends) - SETTLED) / len(ends)
        return cls(ends[0] - begun - step, settled / (ends[-1] - ends[SETTLED - 1]), memory)

    @classmethod
    def median(cls, costs: Sequence["Cost"]) -> "Cost":
        """The middle of each."""
        columns = zip(*((c.start, c.rate, c.memory) for c in costs), strict=True)
        return cls(*map(statistics.median, columns))


def page() -> str:
    """The section "Training"."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        same = bench.compared("same")
        own = bench.compared("own")
    lines = [
        "",
        f"## Training SmolLM2-135M with LoRA of rank {RANK}, {STEPS} steps of {BATCH} chat rows",
        "",
        f"{bench.tokens} of the rows' tokens are trained. Medians of {ROUNDS}, taken in turn.",
        "",
        *_table("The same settings: number format, no recomputing, LoRA, batch, rate", same),
        "",
        *_table("The default settings of each, but for LoRA, batch and steps", own),
    ]
    return "\n".join(lines) + "\n"


def _table(title: str, costs: dict[str, Cost]) -> Iterator[str]:
    least = costs["TRL"]
    yield f"| {title} | trained tokens a second | memory | start-up |"
    yield "|---|---|---|---|"
    for name, cost in costs.items():
        rate = f"{cost.rate:.0f} ({cost.rate / least.rate:.2f} times)"
        memory = f"{human_bytes(cost.memory)} ({cost.memory / least.memory:.2f} times)"
        yield f"| {name} | {rate} | {memory} | {cost.start:.1f} s |"


class Bench:
    """A folder with the model, the rows and a store in which all before training is done."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {**os.environ, "RUNNER_STORE": str(folder / "store")}
        self._write_rows()
        self._write_recipe()
        self._call("run", "bench.yaml", "~adapt")
        record = self._record()
        self.tokens = record["steps"]["process"]["facts"]["counts"]["trained"]
        products = next(folder.glob("runs/*/*/products"))
        self.model = (products / "fetch.model" / "files").resolve()
        self.dtype = record["steps"]["load"]["facts"]["dtype"]

    def compared(self, settings: str) -> dict[str, Cost]:
        """Both in turn."""
        costs: dict[str, list[Cost]] = {"`runner run`": [], "TRL": []}
        for number in range(ROUNDS):
            costs["`runner run`"].append(self._ours(settings))
            costs["TRL"].append(self._theirs(settings, number))
        return {name: Cost.median(found) for name, found in costs.items()}

    def _ours(self, settings: str) -> Cost:
        same = ["adapt.gradient_checkpointing=false"] if settings == "same" else []
        runs = {*self.folder.glob("runs/*/*")}
        command = [sys.executable, "-m", "runner", "run", "bench.yaml", *same, "--fresh", "adapt"]

        def lines() -> int:
            found = next(iter({*self.folder.glob("runs/*/*")} - runs), None)
            path = found / "metrics.jsonl" if found else None
            return path.read_text().count('"loss"') if path and path.exists() else 0

        return self._watched(command, lines)

    def _theirs(self, settings: str, number: int) -> Cost:
        place = self.folder / f"trl-{settings}-{number}"
        place.mkdir()
        given = {
            "settings": settings,
            "model": str(self.model),
            "rows": str(self.folder / "rows.jsonl"),
            "template": str(TEMPLATE),
            "dtype": self.dtype,
            "rank": RANK,
            "batch": BATCH,
            "steps": STEPS,
            "max_length": LENGTH,
            "learning_rate": LEARNING_RATE,
            "warmup_steps": WARMUP,
            "times": str(place / "times.jsonl"),
            "out": str(place / "out"),
        }
        (place / "settings.json").write_text(json.dumps(given))
        times = place / "times.jsonl"
        command = [sys.executable, str(TOOLS / "trl_sft.py"), str(place / "settings.json")]
        return self._watched(
            command, lambda: times.read_text().count("\n") if times.exists() else 0
        )

    def _watched(self, command: list[str], lines: Any) -> Cost:
        """Run a program and note when each step ended."""
        with open(self.folder / "said.txt", "w+") as said:
            begun, ends = time.time(), []
            child = subprocess.Popen(
                command, cwd=self.folder, env=self.env, stdout=said, stderr=subprocess.STDOUT
            )
            memory = 0.0
            while child.poll() is None:
                memory = max(memory, _peak(child.pid))
                ends += [time.time()] * (lines() - len(ends))
                time.sleep(0.02)
            if child.returncode or len(ends) < STEPS:
                said.seek(0)
                raise RuntimeError(
                    f"{command} ended with {child.returncode}: {said.read()[-2000:]}"
                )
        return Cost.of(begun, ends, self.tokens, memory)

    def _write_rows(self) -> None:
        demo = json.loads((demo_sets(self.folder) / "alpaca_en_demo.json").read_text())
        with open(self.folder / "rows.jsonl", "w", encoding="utf-8") as file:
            for row in demo[:ROWS]:
                asked = "\n".join(filter(None, (row["instruction"], row.get("input"))))
                roles = {"user": asked, "assistant": row["output"]}
                messages = [{"role": role, "content": said} for role, said in roles.items()]
                file.write(json.dumps({"messages": messages}) + "\n")

    def _write_recipe(self) -> None:
        recipe = {
            "defaults": [{"/fetch": "smollm2-135m"}, "_self_"],
            "name": "bench",
            "steps": ["fetch", "process", "load", "adapt"],
            "fetch": {"data": {"path": "rows.jsonl"}},
            "process": {"held_out": 0, "max_length": LENGTH, "template": str(TEMPLATE)},
            "adapt": {
                "rank": RANK,
                "effective_batch_size": BATCH,
                "max_steps": STEPS,
                "learning_rate": LEARNING_RATE,
                "warmup_steps": WARMUP,
            },
        }
        text = "# @package _global_\n" + json.dumps(recipe)
        (self.folder / "bench.yaml").write_text(text, encoding="utf-8")

    def _call(self, *words: str) -> None:
        command = [sys.executable, "-m", "runner", *words]
        subprocess.run(command, cwd=self.folder, env=self.env, check=True, capture_output=True)

    def _record(self) -> Any:
        return json.loads(next(self.folder.glob("runs/*/*/record.json")).read_text())


def _peak(pid: int) -> float:
    """The most memory that a process has held so far, in bytes."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:"))) * 1024
    except (OSError, StopIteration):
        return 0.0


if __name__ == "__main__":
    hardware.prepare()
    print(page())
