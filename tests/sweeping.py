"""Sweeps of fake stages for tests: recipes, plans, and whole sweeps in processes of their own."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from runner.store import Store
from runner.sweep import start
from runner.sweep.manifest import Manifest
from runner.sweep.standing import store_of

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


def begin(*words: str, inside: Sequence[str] = (), **settings: object) -> "subprocess.Popen[str]":
    """Start a command as the leader of its own group, `inside` another one."""
    return subprocess.Popen(
        [*inside, *command(*words)],
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


def children(pid: int) -> list[int]:
    """The processes that one has started and that are not waited for yet."""
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def disturbed(words: list[str], total: int, seed: int) -> tuple[int, list[str]]:
    """A sweep, workers of which and which as a whole is killed at random, begun until it ends.

    Gives how often something was killed, and what was made again after it was committed.
    """
    clock, killed, redone = random.Random(seed), 0, list[str]()
    manifest, log = manifest_of(*words), Path("log.keys")
    store = store_of(manifest)

    def committed() -> tuple[set[str], int]:
        done = {key for key in manifest.keys if store.entry(key)}
        return done, len(log.read_text().splitlines()) if log.exists() else 0

    marks = []
    while True:
        process = begin("sweep", "r", *words, "sweep.workers=2", "sweep.retries=1000")
        while killed < total and process.poll() is None:
            time.sleep(clock.uniform(0.02, 0.5))
            marks.append(committed())
            workers = children(process.pid)
            if workers and clock.random() < 0.6:
                with suppress(ProcessLookupError):
                    os.kill(clock.choice(workers), signal.SIGKILL)
                    killed += 1
            elif process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                killed += 1
                process.wait()
        out, _ = process.communicate(timeout=120)
        if process.returncode != -signal.SIGKILL:
            assert process.returncode == 0, out
            break
    keys = [line.split()[1] for line in log.read_text().splitlines()]
    for done, place in marks:
        redone += [key for key in keys[place:] if key in done]
    return killed, redone


def status(name: str = "r") -> list[dict[str, object]]:
    """What `runner status` says, as a program reads it."""
    done = subprocess.run(command("status", name, "--json"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
