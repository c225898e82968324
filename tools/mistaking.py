"""How soon a mistake is told: from Enter to the first error, for every mistake of the tests.

Alone, `python tools/mistaking.py MODEL` prints its part of the page, for a model's folder.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import hub
from mistakes import MISTAKES, Mistake, repositories
from tiny import make_model

ROUNDS = 3
COMMANDS = ("check", "run")
RIGHT = "quickstart"
LOADED = "model.safetensors"


@dataclass(frozen=True)
class Told:
    """One mistake and one command: seconds to the first error, and whether it was the right one."""

    kind: str
    command: str
    seconds: float
    caught: bool


def page(real: Path) -> str:
    """The part of docs/figures.md about it; `real` is a model's folder."""
    with tempfile.TemporaryDirectory() as place, hub.serve(*repositories()) as server:
        model = make_model(Path(place) / "model")
        env = _environment(Path(place), server.endpoint)
        told = [each for _ in range(ROUNDS) for each in _round(Path(place), model, env)]
        brought = server.bytes_sent(f"GET .*{LOADED}")
        whole = _whole(Path(place), real)
    count = len(told) // ROUNDS // len(COMMANDS)
    lines = [
        "",
        f"## The first error of {count} mistakes (each {ROUNDS} times)",
        "",
        "From the start of the program to the first line of an error that names the mistake and"
        f" its cure, in seconds. {_caught(told)} Of weights, {brought} bytes were asked for.",
        "",
        "| mistakes | `runner check`: median | longest | `runner run`: median | longest |",
        "|---|---|---|---|---|",
        *(_row(kind, [each for each in told if each.kind == kind]) for kind in MISTAKES),
        _row("all", told),
        "",
        f"The whole `runner check {RIGHT}` with the model in a folder, so that template and masks"
        f" are looked at, and nothing wrong: {whole:.1f} s (median of {ROUNDS}; at most 10).",
    ]
    return "\n".join(lines) + "\n"


def _whole(place: Path, real: Path) -> float:
    """Seconds of a check that finds nothing, but for the first one, which composes the recipe."""
    env = {**os.environ, "RUNNER_STORE": str(place / "right")}
    words = [RIGHT, "~fetch.model", f"+fetch.model={{path: {real}}}"]
    command = [str(Path(sys.executable).with_name("runner")), "check", *words]
    times = []
    for _ in range(1 + ROUNDS):
        begun = time.perf_counter()
        subprocess.run(command, cwd=place, env=env, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - begun)
    return statistics.median(times[1:])


def _round(place: Path, model: Path, env: dict[str, str]) -> Iterator[Told]:
    for kind, mistakes in MISTAKES.items():
        for mistake in mistakes:
            for command in COMMANDS:
                with tempfile.TemporaryDirectory(dir=place) as folder:
                    words = mistake.lay(Path(folder), model)
                    yield _told(kind, mistake, [command, *words], folder, env)


def _told(
    kind: str, mistake: Mistake, words: Sequence[str], folder: str, env: dict[str, str]
) -> Told:
    """Start a command, and stop the clock at the line that names the mistake.

    A check goes on to what else there may be; it is not waited for.
    """
    begun = time.perf_counter()
    command = [str(Path(sys.executable).with_name("runner")), *words]
    process = subprocess.Popen(
        command, cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout
    seconds, whole = 0.0, ""
    for line in process.stdout:
        whole += line
        if mistake.fact in line:
            seconds = time.perf_counter() - begun
        if seconds and mistake.cure in whole:
            break
    caught = bool(seconds) and mistake.cure in whole and not (Path(folder) / "runs").exists()
    process.kill()
    process.communicate()
    return Told(kind, words[0], seconds or time.perf_counter() - begun, caught)


def _row(name: str, told: Sequence[Told]) -> str:
    cells = []
    for command in COMMANDS:
        seconds = [each.seconds for each in told if each.command == command]
        cells += [f"{statistics.median(seconds):.2f}", f"{max(seconds):.2f}"]
    return f"| {name} | {' | '.join(cells)} |"


def _caught(told: Sequence[Told]) -> str:
    missed = sum(not each.caught for each in told)
    return f"{missed} were missed." if missed else "All were caught, before a run had begun."


def _environment(place: Path, endpoint: str) -> dict[str, str]:
    """Nobody is logged in, compiled code is kept, and pip asks no index."""
    kept = {name: value for name, value in os.environ.items() if "DONTWRITE" not in name}
    return {
        **{
            name: value
            for name, value in kept.items()
            if name not in ("HF_TOKEN", "HF_HUB_OFFLINE")
        },
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(place / "home"),
        "PIP_NO_INDEX": "1",
        "PYTHONPYCACHEPREFIX": str(place / "compiled"),
        "RUNNER_STORE": str(place / "store"),
        "OMP_NUM_THREADS": "1",
    }


if __name__ == "__main__":
    print(page(Path(sys.argv[1])))
