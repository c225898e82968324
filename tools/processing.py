"""What processing costs: many chat rows tokenized and packed, by our stage and by TRL, in turn.

`python tools/processing.py MODEL` prints the table; MODEL is a folder with a tokenizer whose chat
template is replaced by one that TRL can mask. PROCESS_ROWS makes it smaller for a try.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from runner.files import human_bytes

ROWS = int(os.environ.get("PROCESS_ROWS", "200000"))
LENGTH = 1024
TEMPLATE = Path(__file__).parent.parent / "tests" / "templates" / "chatml_marked.jinja"
WORDS = "the of a model row token learns answer date year small large red green what is to".split()


def page(model: Path) -> Iterator[str]:
    """The section "Processing"."""
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "rows.jsonl"
        _write(data)
        ours = _measured("ours", model, data, Path(place) / "ours")
        again = _measured("again", model, data, Path(place) / "ours")
        theirs = _measured("trl", model, data, Path(place) / "trl")
    yield from ("", f"## Processing {ROWS} chat rows with 2 workers: masks, packs of {LENGTH}", "")
    yield "| what | rows a second | memory of the largest process | against TRL |"
    yield "|---|---|---|---|"
    for name, (seconds, memory) in (
        ("`process`", ours),
        ("`process`, another max_length", again),
        ("`datasets.map` and TRL's preparation", theirs),
    ):
        ratio = f"{theirs[0] / seconds:.2f} times"
        yield f"| {name} | {ROWS / seconds:.0f} | {human_bytes(memory)} | {ratio} |"


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


def _measured(what: str, model: Path, data: Path, place: Path) -> tuple[float, float]:
    """Seconds and peak memory of one way, in a process of its own."""
    place.mkdir(exist_ok=True)
    env = {**os.environ, "HF_HOME": str(place / "hf"), "RUNNER_STORE": str(place / "store")}
    command = [sys.executable, __file__, what, str(model), str(data), str(place)]
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    seconds, memory = json.loads(done.stdout.splitlines()[-1])
    return seconds, memory


def ours(model: Path, data: Path, place: Path, length: int = LENGTH) -> None:
    """A recipe of two steps, run by the engine."""
    from runner import run

    recipe = {
        "steps": ["fetch", "process"],
        "fetch": {"model": {"path": str(model)}, "data": {"path": str(data)}},
        "process": {
            "pack": True,
            "held_out": 0,
            "template": str(TEMPLATE),
            "audit": "warn",
            "max_length": length,
            "workers": 2,
        },
    }
    (place / "recipe.yaml").write_text(json.dumps(recipe))
    planned, store = run.prepare(str(place / "recipe.yaml"), [])
    run.carry_out(planned, store, lambda _: None, place / "runs")


def trl(model: Path, data: Path, place: Path) -> None:
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


def _main() -> None:
    if len(sys.argv) == 2:
        print("\n".join(page(Path(sys.argv[1]))))
        return
    what, (model, data, place) = sys.argv[1], map(Path, sys.argv[2:])
    begun = time.perf_counter()
    if what == "trl":
        trl(model, data, place)
    else:
        ours(model, data, place, LENGTH if what == "ours" else LENGTH // 2)
    import resource

    both = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    peak = max(resource.getrusage(who).ru_maxrss for who in both) * 1024
    print(json.dumps([time.perf_counter() - begun, peak]))


if __name__ == "__main__":
    _main()
