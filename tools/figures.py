"""Measures what docs/figures.md says, side by side on this machine, and writes it: `make bench`."""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import costs
import fetching
import jobs
import memory
import processing
import reporting
import training

from runner import __version__, hardware
from runner.files import human_bytes

TARGET = Path(__file__).parent.parent / "docs" / "figures.md"
ROUNDS = 15


def main() -> None:
    """Run the quickstart from nothing, then measure what is left to do when it is done."""
    with tempfile.TemporaryDirectory() as place:
        env = {**os.environ, "RUNNER_STORE": f"{place}/store"}
        begun = time.perf_counter()
        _call(["run", "quickstart"], place, env)
        whole = time.perf_counter() - begun
        model = next(Path(place).glob("store/entries/*/product/**/tokenizer.json")).parent
        folder = next(Path(place).glob("runs/*/*"))
        record = json.loads((folder / "record.json").read_text())
        rows = {
            "`python -c pass`": _median([sys.executable, "-c", "pass"], place, env),
            "`runner --version`": _median(_command("--version"), place, env),
            "`runner --help`": _median(_command("--help"), place, env),
            "`import hydra`": _median([sys.executable, "-c", "import hydra"], place, env),
            "`runner plan quickstart`": _median(_command("plan", "quickstart"), place, env),
            "`runner run quickstart`, all reused": _median(
                _command("run", "quickstart"), place, env
            ),
        }
        pages = ["\n".join(processing.page(model)) + "\n", memory.page(model)]
        report = reporting.page(folder, env)
    text = _page(whole, record, rows) + report + _store_page() + _sweep_page()
    text += fetching.page()
    text += "".join(pages) + training.page()
    TARGET.write_text(text, encoding="utf-8")
    print(TARGET.read_text(encoding="utf-8"))


def _page(whole: float, record: dict[str, object], rows: dict[str, float]) -> str:
    bare = rows["`python -c pass`"]
    steps = record["steps"]
    assert isinstance(steps, dict)
    peak = human_bytes(float(str(record["peak_memory"])))
    lines = [
        "# Figures",
        "",
        f"Written by `make bench` with runner {__version__} on {machine()}.",
        "",
        "## The quickstart from an empty store, with a warm pip cache",
        "",
        f"{whole:.0f} s in all, at most {peak} of memory.",
        "",
        "| step | seconds |",
        "|---|---|",
        *(f"| {name} | {step['seconds']:.1f} |" for name, step in steps.items()),
        "",
        f"## Start-up (medians of {ROUNDS}, taken in turn)",
        "",
        "| command | ms | above a bare Python |",
        "|---|---|---|",
        *(f"| {name} | {ms:.0f} | {ms - bare:.0f} |" for name, ms in rows.items()),
    ]
    return "\n".join(lines) + "\n"


def _store_page() -> str:
    lines = ["", "## The store (medians of 50)", "", "| what | took |", "|---|---|"]
    return "\n".join([*lines, *(f"| {what} | {took} |" for what, took in costs.rows())]) + "\n"


def _sweep_page() -> str:
    lines = ["", "## Sweeps (fake stages but for the first)", "", "| what | took |", "|---|---|"]
    return "\n".join([*lines, *(f"| {what} | {took} |" for what, took in jobs.rows())]) + "\n"


def machine() -> str:
    """The machine in words: cores, GPUs, Python."""
    model = "an unnamed processor"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    gpus = ", ".join(gpu.name for gpu in hardware.gpus()) or "no GPU"
    cores = f"{hardware.cores()} cores ({model})"
    return f"{cores}, {gpus}, Python {platform.python_version()}"


def _command(*words: str) -> list[str]:
    return [str(Path(sys.executable).with_name("runner")), *words]


def _call(words: list[str], place: str, env: dict[str, str]) -> None:
    subprocess.run(_command(*words), cwd=place, env=env, check=True, stdout=subprocess.DEVNULL)


def _median(command: list[str], place: str, env: dict[str, str]) -> float:
    """Milliseconds, the median of several runs."""
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        subprocess.run(command, cwd=place, env=env, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1000


if __name__ == "__main__":
    main()
