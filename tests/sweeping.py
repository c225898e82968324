"""Sweeps of fake stages for tests: recipes, plans, and whole sweeps in processes of their own."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

from runner.store import Store
from runner.sweep import start
from runner.sweep.manifest import Manifest

RECIPE = {
    "begin": "begin: {{log: {log}}}",
    "grow": "grow: {{log: {log}}}",
    "tell": "tell: {{log: {log}}}",
    "score": "score: {{log: {log}}}",
}


def write(more: str = "", name: str = "r") -> Path:
    """A recipe of four fake steps beside the working directory's log; `more` is put after it."""
    given = {line.split(":")[0] for line in more.splitlines()}
    lines = [
        text.format(log=Path.cwd() / "log") for key, text in RECIPE.items() if key not in given
    ]
    path = Path(f"{name}.yaml")
    path.write_text("\n".join(["steps: [begin, grow, tell, score]", *lines, more, ""]))
    return path


def manifest_of(*words: str) -> Manifest:
    """What is planned for the recipe of `write`."""
    return start._planned("r", words)


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "runner", *words]


def begin(*words: str, **settings: object) -> "subprocess.Popen[str]":
    """Start a command as the leader of its own group."""
    return subprocess.Popen(
        command(*words),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **settings,
    )


def sweep(*words: str, timeout: float = 60) -> "tuple[int, str]":
    """Run a sweep to its end: its exit code and what it printed."""
    process = begin("sweep", *words)
    try:
        out, _ = process.communicate(timeout=timeout)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out


def made() -> "Counter[str]":
    """How often each key was begun to be made, as the stages logged it."""
    path = Path("log.keys")
    lines = path.read_text().splitlines() if path.exists() else []
    return Counter(line.split()[1] for line in lines)


def digests(store: Store, manifest: Manifest) -> dict[str, str | None]:
    """What the store has for every distinct step."""
    found = {key: store.entry(key) for key in manifest.keys}
    return {key: entry.digest if entry else None for key, entry in found.items()}


def rows(folder: Path) -> list[dict[str, str]]:
    """The table of a sweep's jobs."""
    import csv

    with open(folder / "jobs.csv", newline="") as file:
        return list(csv.DictReader(file))


def folder_of(name: str = "r") -> Path:
    """The folder of the only sweep of a recipe."""
    [path] = Path("sweeps", name).glob("*")
    return path


def status(name: str = "r") -> list[dict[str, object]]:
    """What `runner status` says, as a program reads it."""
    done = subprocess.run(command("status", name, "--json"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
