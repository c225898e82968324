"""What processing costs: many chat rows tokenized and packed, by our stage and by TRL, in turn.

Alone, `python tools/processing.py MODEL` prints its part of the page; MODEL is a folder with a
tokenizer, whose chat template is replaced by one that TRL can mask. PROCESS_ROWS and
PROCESS_LARGE_ROWS make it smaller for a try.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runner.files import human_bytes

ROWS = int(os.environ.get("PROCESS_ROWS", "200000"))
LARGE_ROWS = int(os.environ.get("PROCESS_LARGE_ROWS", "2000000"))
LENGTH = 1024
EVERY = 0.2
"""Seconds between two looks at the memory."""
TEMPLATE = Path(__file__).parent.parent / "tests" / "templates" / "chatml_marked.jinja"
WORDS = "the of a model row token learns answer date year small large red green what is to".split()


@dataclass(frozen=True)
class Cost:
    """Wall seconds, the peak of the memory of all processes together, and if rows were read."""

    seconds: float
    memory: float
    reads: bool


def page(model: Path) -> Iterator[str]:
    """The section "Processing"."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        _write(place / "rows.jsonl")
        ours = _measured("ours", model, place / "rows.jsonl", place / "ours")
        theirs = _measured("trl", model, place / "rows.jsonl", place / "trl")
        shorter = _measured("shorter", model, place / "rows.jsonl", place / "ours")
        done = _measured("shorter", model, place / "rows.jsonl", place / "ours")
        text = _write_large(place / "large.jsonl")
        large = _measured("large", model, place / "large.jsonl", place / "large")
    yield from ("", f"## Processing {ROWS} chat rows with 2 workers: masks, packs of {LENGTH}", "")
    yield (
        "From a file of JSON lines and with every start counted, in turn. The memory is the peak of"
        " all processes together, without files mapped into memory, which the kernel takes back."
    )
    yield from (
        "",
        "| what | rows a second | memory | TRL takes | reads rows |",
        "|---|---|---|---|---|",
    )
    for name, cost in (
        ("`datasets.map` and TRL's preparation", theirs),
        ("`process`", ours),
        ("`process`, another max_length", shorter),
        ("`process`, nothing to do", done),
    ):
        ratio = f"{theirs.seconds / cost.seconds:.2f} times as long"
        rate = f"{ROWS / cost.seconds:.0f}"
        memory = human_bytes(cost.memory)
        yield f"| {name} | {rate} | {memory} | {ratio} | {'yes' if cost.reads else 'no'} |"
    yield ""
    yield (
        f"{LARGE_ROWS} short rows, {human_bytes(text)} of text: {large.seconds:.0f} s, at most"
        f" {human_bytes(large.memory)} of memory."
    )


def _write(path: Path) -> None:
    """Rows of two to six messages."""
    chance = random.Random(0)  # noqa: S311  the same rows every time
    with open(path, "w", encoding="utf-8") as file:
        for number in range(ROWS):
            messages = []
            for _ in range(chance.randint(1, 3)):
                for role in ("user", "assistant"):
                    said = " ".join(chance.choices(WORDS, k=chance.randint(5, 60)))
                    messages.append({"role": role, "content": f"{said} {number}"})
            file.write(json.dumps({"messages": messages}) + "\n")


def _write_large(path: Path) -> int:
    """Short rows, about 500 bytes each, no two alike; gives the size of the file."""
    chance = random.Random(1)  # noqa: S311  the same rows every time
    with open(path, "w", encoding="utf-8") as file:
        for number in range(LARGE_ROWS):
            said = [" ".join(chance.choices(WORDS, k=45)) for _ in range(2)]
            row = {"question": f"{number} {said[0]}", "answer": said[1]}
            file.write(json.dumps(row) + "\n")
    return path.stat().st_size


def _measured(what: str, model: Path, data: Path, place: Path) -> Cost:
    """What one way costs, in a process of its own and those that it starts."""
    place.mkdir(exist_ok=True)
    env = {**os.environ, "HF_HOME": str(place / "hf"), "RUNNER_STORE": str(place / "store")}
    command = [sys.executable, __file__, what, str(model), str(data), str(place)]
    begun = time.perf_counter()
    log = place / "log"
    with (
        open(log, "w", encoding="utf-8") as file,
        subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=file, text=True
        ) as process,
    ):
        watch = _Watch(process.pid)
        watch.start()
        said, _ = process.communicate()
        seconds = time.perf_counter() - begun
        watch.ended.set()
        watch.join()
    if process.returncode:
        raise SystemExit(f"{what}: exit {process.returncode}\n{log.read_text()[-2000:]}")
    return Cost(seconds, watch.peak, json.loads(said.splitlines()[-1]))


class _Watch(threading.Thread):
    """Looks at the memory of a process and of all below it until told to end."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self.process, self.peak, self.ended = process, 0.0, threading.Event()

    def run(self) -> None:
        """Look again and again."""
        while not self.ended.wait(EVERY):
            self.peak = max(self.peak, sum(map(_memory, _family(self.process))))


def _family(process: int) -> Iterator[int]:
    """A process and all below it."""
    yield process
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = path.read_text().split()
        except OSError:  # it has just ended
            continue
        for child in children:
            yield from _family(int(child))


def _memory(process: int) -> int:
    """Bytes of a process's own, with its share of what it has in common with others."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has just ended
        return 0
    own = ("Pss_Anon:", "Pss_Shmem:")
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(own))


def ours(model: Path, data: Path, place: Path, **given: object) -> bool:
    """A recipe of two steps, run by the engine; whether it read the rows."""
    from runner import running
    from runner.execute import Noted

    settings = {"held_out": 0, "template": str(TEMPLATE), "audit": "warn", "workers": 2, **given}
    recipe = {
        "steps": ["fetch", "process"],
        "fetch": {"model": {"path": str(model)}, "data": {"path": str(data)}},
        "process": settings,
    }
    (place / "recipe.yaml").write_text(json.dumps(recipe))
    planned, store = running.prepare(str(place / "recipe.yaml"), [])
    notes: list[str] = []
    running.carry_out(
        planned,
        store,
        lambda event: notes.append(event.text) if isinstance(event, Noted) else None,
        place / "runs",
    )
    return any(": read as " in note for note in notes)


def trl(model: Path, data: Path, place: Path) -> bool:
    """What SFTTrainer does with its data before it trains."""
    import datasets
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = TEMPLATE.read_text(encoding="utf-8")
    tiny = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
    )
    arguments = SFTConfig(
        output_dir=str(place / "out"),
        max_length=LENGTH,
        packing=True,
        assistant_only_loss=True,
        dataset_num_proc=2,
        report_to=[],
        use_cpu=True,
    )
    rows = datasets.load_dataset("json", data_files=str(data), split="train")
    SFTTrainer(
        LlamaForCausalLM(tiny), args=arguments, train_dataset=rows, processing_class=tokenizer
    )
    return True


def _main() -> None:
    if len(sys.argv) == 2:
        print("\n".join(page(Path(sys.argv[1]))))
        return
    what, (model, data, place) = sys.argv[1], map(Path, sys.argv[2:])
    lengths = {"ours": LENGTH, "shorter": LENGTH // 2}
    if what == "trl":
        reads = trl(model, data, place)
    elif what == "large":
        reads = ours(model, data, place, filters=[{"kind": "duplicates"}])
    else:
        reads = ours(model, data, place, pack=True, max_length=lengths[what])
    print(json.dumps(reads))


if __name__ == "__main__":
    _main()
