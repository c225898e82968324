"""What the report of a long run costs: the quickstart's, as if it had trained 10,000 steps."""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from pages import measured

from runner import files
from runner.metrics import NAME

STEPS, ROUNDS = 10_000, 5


def page(run: Path, env: dict[str, str]) -> str:
    """The part of docs/figures.md about it; `run` is a run's folder, which is left alone."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "runs" / "long" / run.name
        shutil.copytree(run, folder, symlinks=True)
        rows = (json.dumps({"of": "adapt", **row}) + "\n" for row in measured(STEPS))
        (folder / NAME).write_text("".join(rows), encoding="utf-8")
        seconds = [_seconds(folder, env) for _ in range(ROUNDS)]
        size = (folder / "report.html").stat().st_size
    lines = [
        "",
        f"## The report of a run of {STEPS:,} steps (median of {ROUNDS})",
        "",
        "Made by `runner report RUN`, the start of the program counted in.",
        "",
        "| what | measured | at most |",
        "|---|---|---|",
        f"| size | {files.human_bytes(size)} | 3 MB |",
        f"| time | {statistics.median(seconds):.2f} s | 3 s |",
    ]
    return "\n".join(lines) + "\n"


def _seconds(folder: Path, env: dict[str, str]) -> float:
    begun = time.perf_counter()
    command = [str(Path(sys.executable).with_name("runner")), "report", str(folder)]
    subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun
