"""What fetching costs: a Hub over loopback, `hf download` and `runner run` in turn.

Alone, `python tools/fetching.py` prints its part of the page; FETCH_MB and FETCH_ROUNDS make it
smaller for a try.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runner.files import human_bytes

MB = 1 << 20
SIZE = int(os.environ.get("FETCH_MB", "1024")) * MB
ROUNDS = int(os.environ.get("FETCH_ROUNDS", "3"))
STARTS = 15
"""Rounds of what takes less than a second or two."""
REPO = "acme/big"
SMALL = {"config.json": b"{}", "tokenizer.json": b"{}", "README.md": b"# big\n"}
RECIPE = json.dumps({"steps": ["fetch"], "fetch": {"model": {"repo": REPO}}})
DOUBLE = Path(__file__).parent.parent / "tests" / "hub"
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "0",
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
}
# a process of its own, and a small one: a process starts with the peak of the one that started it
WATCH = """
import json, os, sys, time
out = os.open(os.devnull, os.O_WRONLY)
to_nowhere = [(os.POSIX_SPAWN_DUP2, out, 1), (os.POSIX_SPAWN_DUP2, out, 2)]
begun = time.perf_counter()
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=to_nowhere)
_, status, used = os.wait4(child, 0)
seconds = time.perf_counter() - begun
code = os.waitstatus_to_exitcode(status)
print(json.dumps({"code": code, "seconds": seconds, "bytes": used.ru_maxrss * 1024}))
"""


@dataclass(frozen=True)
class Cost:
    """What commands took: wall seconds, and the peak of the largest process in bytes."""

    seconds: float
    memory: float

    @classmethod
    def median(cls, costs: Sequence["Cost"]) -> "Cost":
        """The middle of each."""
        return cls(
            statistics.median(cost.seconds for cost in costs),
            statistics.median(cost.memory for cost in costs),
        )


class Place:
    """A folder with the recipe, a Hub cache and a store, and commands that are run there."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        self.folder = folder
        own = {"HF_HOME": str(folder / "hf"), "RUNNER_STORE": str(folder / "store")}
        self.env = {**os.environ, **ENVIRONMENT, **own, "HF_ENDPOINT": endpoint}
        self.empty()

    def empty(self) -> None:
        """Nothing fetched, nothing kept; and nothing of an earlier command left to be written."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        (self.folder / "recipe.yaml").write_text(RECIPE)
        os.sync()

    def cost(self, program: str, *words: str) -> Cost:
        """Run a program of this environment and measure it."""
        path = str(Path(sys.executable).with_name(program))
        command = [sys.executable, "-SE", "-c", WATCH, path, *words]
        done = subprocess.run(
            command, cwd=self.folder, env=self.env, check=True, capture_output=True
        )
        found = json.loads(done.stdout)
        if found["code"]:
            raise RuntimeError(f"{program} {' '.join(words)}: exit code {found['code']}")
        return Cost(found["seconds"], found["bytes"])

    def check(self) -> None:
        """The large file is there, whole."""
        sizes = [path.stat().st_size for path in self.folder.glob("hf/hub/*/snapshots/*/model.*")]
        assert sizes == [SIZE], sizes


def page() -> str:
    """The section "Fetching"."""
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as endpoint:
        place = Place(Path(folder) / "place", endpoint)
        load = os.getloadavg()[0]
        fetched = _fetched(place)
        again = _again(place)
    lines = [
        "",
        f"## Fetching {human_bytes(SIZE)} over loopback (medians of {ROUNDS}, taken in turn)",
        "",
        "Into an empty Hub cache and an empty store, over plain HTTP, with a load of "
        f"{load:.1f} before. The memory is the peak of the largest process.",
        "",
        *_fetched_table(fetched),
        "",
        f"## Fetching what is there (medians of {STARTS}, taken in turn)",
        "",
        "`runner show` starts and composes the recipe, and does no more.",
        "",
        *_again_table(again),
    ]
    return "\n".join(lines) + "\n"


def _fetched(place: Place) -> dict[str, Cost]:
    """Each command into an empty place; the last one's is left as it is."""

    def fetch(program: str, *words: str) -> Callable[[], Cost]:
        def act() -> Cost:
            place.empty()
            cost = place.cost(program, *words)
            place.check()
            return cost

        return act

    acts = {
        "`hf download`": fetch("hf", "download", REPO),
        "`runner run`": fetch("runner", "run", "recipe.yaml"),
    }
    return _in_turn(acts, ROUNDS)


def _again(place: Place) -> dict[str, Cost]:
    """What is left to do when all is there, with a lock file and without."""

    def act(program: str, *words: str) -> Callable[[], Cost]:
        return lambda: place.cost(program, *words)

    (place.folder / "locked.yaml").write_text(RECIPE)
    place.cost("runner", "lock", "locked.yaml")
    acts = {
        "`runner --version`": act("runner", "--version"),
        "`runner show`": act("runner", "show", "locked.yaml"),
        "`runner plan`, locked": act("runner", "plan", "locked.yaml"),
        "`runner run`, locked": act("runner", "run", "locked.yaml"),
        "`runner run`, the Hub asked for the commit": act("runner", "run", "recipe.yaml"),
        "`hf download`": act("hf", "download", REPO),
    }
    return _in_turn(acts, STARTS)


def _in_turn(acts: dict[str, Callable[[], Cost]], rounds: int) -> dict[str, Cost]:
    costs: dict[str, list[Cost]] = {name: [] for name in acts}
    for _ in range(rounds):
        for name, act in acts.items():
            costs[name].append(act())
    return {name: Cost.median(found) for name, found in costs.items()}


def _fetched_table(costs: dict[str, Cost]) -> Iterator[str]:
    least = costs["`hf download`"]
    yield "| command | seconds | memory | against `hf download` |"
    yield "|---|---|---|---|"
    for name, cost in costs.items():
        ratio = f"{cost.seconds / least.seconds:.2f} times, {cost.memory / least.memory:.2f} times"
        yield f"| {name} | {cost.seconds:.2f} | {human_bytes(cost.memory)} | {ratio} |"


def _again_table(costs: dict[str, Cost]) -> Iterator[str]:
    start, composed = costs["`runner --version`"].seconds, costs["`runner show`"].seconds
    yield "| command | ms | above `runner --version` | above `runner show` | memory |"
    yield "|---|---|---|---|---|"
    for name, cost in costs.items():
        above = f"{1000 * (cost.seconds - start):.0f} | {1000 * (cost.seconds - composed):.0f}"
        yield f"| {name} | {1000 * cost.seconds:.0f} | {above} | {human_bytes(cost.memory)} |"


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A repository with one large file, from a process of its own; gives the endpoint."""
    files = folder / "files"
    files.mkdir()
    for name, content in SMALL.items():
        (files / name).write_bytes(content)
    _write_large(files / "model.safetensors")
    process = subprocess.Popen(
        [sys.executable, str(DOUBLE), str(files)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def _write_large(path: Path) -> None:
    """A safetensors file with one tensor of random bytes."""
    header = json.dumps({"weight": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}})
    length = len(header) + 40  # room for the numbers
    count = SIZE - 8 - length
    tensor = {"dtype": "U8", "shape": [count], "data_offsets": [0, count]}
    header = json.dumps({"weight": tensor}).ljust(length)
    with path.open("wb") as file:
        file.write(length.to_bytes(8, "little") + header.encode())
        while (left := SIZE - file.tell()) > 0:
            file.write(os.urandom(min(left, MB)))


if __name__ == "__main__":
    begun = time.perf_counter()
    print(page())
    print(f"{time.perf_counter() - begun:.0f} s in all")
