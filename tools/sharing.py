"""What jobs that share work cost: a sweep, the same by hand in one process, and Hydra's multirun.

`python tools/sharing.py MODEL` prints its part of the page alone, for a model's folder; SHARE_JOBS
and SHARE_STEPS make it smaller for a try.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from runner import places

TOOLS = Path(__file__).parent
JOBS = int(os.environ.get("SHARE_JOBS", "16"))
STEPS = int(os.environ.get("SHARE_STEPS", "80"))
RECIPE = """\
defaults: [{{/adapt: lora}}, _self_]
name: shared
steps: [fetch, process, load, adapt, generate]
fetch: {{model: {{path: {model}}}, data: {{path: {data}}}}}
process: {{held_out: 64}}
adapt: {{max_steps: {steps}}}
generate: {{rows: 16, max_new_tokens: 16}}
"""


def page(model: Path) -> str:
    """The section "Jobs that share work"."""
    with tempfile.TemporaryDirectory() as place:
        ours, trained = _sweep(Path(place), model)
        [manifest] = Path(place).glob("sweeps/*/*")
        by_hand = _seconds(place, "shared_by_hand.py", str(manifest))
        words = ["-m", f"folder={manifest}", f"job=range(0,{JOBS})", f"hydra.sweep.dir={place}/h"]
        multirun = _seconds(place, "shared_by_hand.py", *words)
    lines = [
        "",
        f"## {JOBS} jobs that share all but generate",
        "",
        f"Fetched, processed and loaded once, {STEPS} steps of LoRA on SmolLM2-135M, then 16"
        f" answers of at most 16 tokens, {JOBS} times; the start of the processes counted in. The"
        " others call the stages' own functions, without engine and store.",
        "",
        "| way | seconds | the sweep takes |",
        "|---|---|---|",
        f"| `runner sweep`, of it training {trained:.1f} s | {ours:.1f} | |",
        f"| by hand in one process, all that is shared once | {by_hand:.1f} |"
        f" {ours / by_hand:.2f} times as long |",
        f"| Hydra's basic multirun, no store | {multirun:.1f} | {multirun / ours:.1f} times less |",
    ]
    return "\n".join(lines) + "\n"


def _sweep(place: Path, model: Path) -> tuple[float, float]:
    """How long the sweep took, and its training."""
    data = places.shipped("recipes") / "data" / "dates.jsonl"
    recipe = RECIPE.format(model=model.resolve(), data=data.resolve(), steps=STEPS)
    (place / "shared.yaml").write_text(recipe, encoding="utf-8")
    values = ",".join(f"{(number + 1) / 10:.1f}" for number in range(JOBS))
    took = _seconds(str(place), "-m", "runner", "sweep", "shared", f"generate.temperature={values}")
    records = [json.loads(path.read_text()) for path in place.glob("store/entries/*/record.json")]
    [trained] = [each["seconds"] for each in records if each["step"] == "adapt"]
    assert sum(each["step"] == "generate" for each in records) == JOBS
    return took, trained


def _seconds(place: str, *words: str) -> float:
    """A Python of its own, the store beside it."""
    what = [str(TOOLS / words[0]), *words[1:]] if words[0].endswith(".py") else [*words]
    env = {**os.environ, "RUNNER_STORE": f"{place}/store"}
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *what], cwd=place, env=env, capture_output=True, text=True
    )
    took = time.perf_counter() - begun
    if done.returncode:
        raise RuntimeError(f"{what}:\n{done.stdout}{done.stderr}")
    return took


if __name__ == "__main__":
    print(page(Path(sys.argv[1])))
