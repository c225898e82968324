"""What the store costs, with fake stages: commits, reused steps, long listings."""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fakes import borrower, carry_out, recipe, source, step

from runner import cli_store
from runner.store import Store

MANY = 10_000
RECORD = {"recipe": "trial", "step": "only", "parts": {}, "facts": {}, "seconds": 1.0}


def rows() -> Iterator[tuple[str, str]]:
    """What was done, and how long it took."""
    with tempfile.TemporaryDirectory() as place:
        store = Store(Path(place) / "store")
        bare = _milliseconds(lambda number: _written(Path(place) / f"{number}.json"))
        commit = _milliseconds(lambda number: _commit(store, f"{number:032x}"))
        yield "a file of 1 kB written, synced, renamed, its folder synced", f"{bare:.2f} ms"
        yield (
            "a result with a file of 1 kB committed",
            f"{commit:.2f} ms, {commit / bare:.1f} times",
        )
        names = [f"s{number}" for number in range(10)]
        inputs = [{}, *({"text": name} for name in names)]
        ten = recipe(
            *(
                step(name, borrower(name) if given else source(name), given)
                for name, given in zip(names, inputs, strict=False)
            )
        )
        carry_out(ten, store)
        reused = _milliseconds(lambda _: carry_out(ten, store))
        yield "10 finished steps planned and reused", f"{reused:.2f} ms"
        with patch("os.fsync", lambda _: None):
            for number in range(100, MANY):
                _commit(store, f"{number:032x}")
        begun = time.perf_counter()
        with open(os.devnull, "w") as nowhere, patch("sys.stdout", nowhere):
            cli_store.main(["--store", str(store.root), "ls"])
        seconds = time.perf_counter() - begun
        yield (
            f"`runner store ls` with {len(list(store.entries.iterdir()))} results",
            f"{seconds:.2f} s",
        )


def _commit(store: Store, key: str) -> None:
    store.commit(store.draft(key), _product, RECORD)


def _product(folder: Path) -> None:
    (folder / "scores.json").write_bytes(bytes(1000))


def _written(path: Path) -> None:
    """What any durable write takes."""
    with open(path.with_suffix(".new"), "wb") as file:
        file.write(bytes(1000))
        file.flush()
        os.fsync(file.fileno())
    os.replace(path.with_suffix(".new"), path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def _milliseconds(act: Callable[[int], object], rounds: int = 50) -> float:
    """The median of many."""
    times = []
    for number in range(rounds):
        begun = time.perf_counter()
        act(number)
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1000


if __name__ == "__main__":
    for what, took in rows():
        print(f"{what}: {took}")
