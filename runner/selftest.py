"""A whole run on a random model of two layers, twice: whether this machine does what it must."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROWS, SECONDS = 24, 300
RECIPE = """\
steps: [fetch, process, load, before, adapt, quantize, generate, evaluate, save]
fetch: {model: {path: model}, data: {path: rows.jsonl}}
process: {held_out: 4}
before: {stage: generate, max_new_tokens: 4}
adapt: {rank: 2, max_steps: 2, effective_batch_size: 2}
generate: {max_new_tokens: 4}
evaluate: {perplexity_rows: 2}
save: {to: saved}
"""


def run() -> Iterator[tuple[str, str]]:
    """What was tried and what is wrong with it (nothing, where all is well), in order."""
    with tempfile.TemporaryDirectory(prefix="runner-self-test-") as place:
        folder = Path(place)
        yield "a random model is written", _tried(folder, "-c", MAKE, str(folder))
        (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
        (folder / "rows.jsonl").write_text("".join(map(_row, range(ROWS))), encoding="utf-8")
        yield "it is taught, quantized, asked, scored and saved", _tried(folder, *COMMAND)
        begun = time.monotonic()
        said = _tried(folder, *COMMAND, wanted=" 0 steps run, ")
        yield f"the second run does nothing, in {time.monotonic() - begun:.1f} s", said


COMMAND = ("-m", "runner", "run", "recipe.yaml")
MAKE = """\
import pathlib, sys
from runner.smoke import families, models
models.of_family(families.of("smollm2"), pathlib.Path(sys.argv[1]) / "model")
"""


def _row(number: int) -> str:
    question = {"role": "user", "content": f"say {number}"}
    return (
        json.dumps({"messages": [question, {"role": "assistant", "content": str(number)}]}) + "\n"
    )


def _tried(folder: Path, *words: str, wanted: str = "") -> str:
    """Run Python in the folder, with a store of its own, offline; what it says if it fails."""
    package = str(Path(__file__).parent.parent)
    ways = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    environment = {"RUNNER_STORE": str(folder / "store"), "RUNNER_OFFLINE": "1", "PYTHONPATH": ways}
    try:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=folder,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"it took more than {SECONDS} s"
    if done.returncode:
        return done.stderr.strip() or f"exit code {done.returncode}"
    return "" if wanted in done.stdout else f"it said: {done.stdout.strip()}"
