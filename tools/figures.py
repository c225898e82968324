"""Measures what docs/figures.md says, side by side on this machine: `make bench`.

`make bench ONLY="training memory"` measures these sections alone and leaves the others.
"""

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

import costs
import deciding
import fetching
import generating
import jobs
import memory
import mistaking
import processing
import quantizing
import reporting
import saving
import sharing
import training

from runner import __version__, hardware
from runner.files import human_bytes

TARGET = Path(__file__).parent.parent / "docs" / "figures.md"
ROUNDS = 15
MARK = re.compile(r"^<!-- (\w+) -->$", re.MULTILINE)


class Quickstart:
    """The quickstart, run from nothing when it is first asked for; its store and its run."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.env = {**os.environ, "RUNNER_STORE": f"{place}/store"}

    @cached_property
    def seconds(self) -> float:
        """How long it took."""
        begun = time.perf_counter()
        subprocess.run(
            _command("run", "quickstart"),
            cwd=self.place,
            env=self.env,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return time.perf_counter() - begun

    @property
    def run(self) -> Path:
        """The folder of the run."""
        assert self.seconds
        return next(Path(self.place).glob("runs/*/*"))

    @property
    def model(self) -> Path:
        """The folder of the model that it fetched; RUNNER_REAL_MODEL names one that is there."""
        if there := os.environ.get("RUNNER_REAL_MODEL"):
            return Path(there)
        return (self.run / "products" / "fetch.model" / "files").resolve()

    def median(self, *command: str) -> float:
        """Milliseconds of a command, the median of several runs."""
        times = []
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            subprocess.run(
                command, cwd=self.place, env=self.env, check=True, stdout=subprocess.DEVNULL
            )
            times.append(time.perf_counter() - begun)
        return statistics.median(times) * 1000


def main() -> None:
    """Measure the sections that are named, or all, and leave the others as they are."""
    wanted = sys.argv[1:] or [*SECTIONS]
    if unknown := {*wanted} - {*SECTIONS}:
        sys.exit(f"no section {', '.join(sorted(unknown))}; there are: {', '.join(SECTIONS)}")
    with tempfile.TemporaryDirectory() as place:
        quickstart = Quickstart(place)
        for name in wanted:
            _keep(name, SECTIONS[name](quickstart))


def _keep(name: str, text: str) -> None:
    """Put a section in its place, with what it was measured on."""
    print(text, flush=True)
    found = _sections()
    found[name] = f"{text.strip()}\n\n*Measured with runner {__version__} on {machine()}.*"
    parts = [f"<!-- {each} -->\n{found[each]}\n" for each in SECTIONS if each in found]
    head = "# Figures\n\nWritten by `make bench`, each section side by side in one run.\n"
    TARGET.write_text("\n".join([head, *parts]), encoding="utf-8")


def _sections() -> dict[str, str]:
    """The sections that are there."""
    _, *parts = MARK.split(TARGET.read_text(encoding="utf-8"))
    return {name: text.strip() for name, text in zip(parts[::2], parts[1::2], strict=True)}


def _quickstart_page(quickstart: Quickstart) -> str:
    whole = quickstart.seconds
    record = json.loads((quickstart.run / "record.json").read_text())
    lines = [
        "## The quickstart from an empty store, with a warm pip cache",
        "",
        f"{whole:.0f} s in all, at most {human_bytes(record['peak_memory'])} of memory.",
        "",
        "| step | seconds |",
        "|---|---|",
        *(f"| {name} | {step['seconds']:.1f} |" for name, step in record["steps"].items()),
    ]
    return "\n".join(lines) + "\n"


def _starting_page(quickstart: Quickstart) -> str:
    commands = {
        "`python -c pass`": [sys.executable, "-c", "pass"],
        "`runner --version`": _command("--version"),
        "`runner --help`": _command("--help"),
        "`import hydra`": [sys.executable, "-c", "import hydra"],
        "`runner plan quickstart`": _command("plan", "quickstart"),
        "`runner run quickstart`, all reused": _command("run", "quickstart"),
    }
    assert quickstart.seconds
    rows = {name: quickstart.median(*command) for name, command in commands.items()}
    bare = rows["`python -c pass`"]
    lines = [
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


SECTIONS: Mapping[str, Callable[[Quickstart], str]] = {
    "quickstart": _quickstart_page,
    "starting": _starting_page,
    "deciding": lambda _: deciding.page(),
    "mistakes": lambda quickstart: mistaking.page(quickstart.model),
    "report": lambda quickstart: reporting.page(quickstart.run, quickstart.env),
    "store": lambda _: _store_page(),
    "fetching": lambda _: fetching.page(),
    "processing": lambda quickstart: "\n".join(processing.page(quickstart.model)),
    "memory": lambda quickstart: memory.page(quickstart.model),
    "training": lambda _: training.page(),
    "quantizing": lambda quickstart: quantizing.page(quickstart.model),
    "answers": lambda quickstart: generating.page(quickstart.model),
    "saving": lambda quickstart: saving.page(quickstart.model),
    "opening": lambda quickstart: saving.opening_page(quickstart.model),
    "sweeps": lambda _: _sweep_page(),
    "sharing": lambda quickstart: sharing.page(quickstart.model),
}
"""Every part of the page, in its order."""

if __name__ == "__main__":
    main()
