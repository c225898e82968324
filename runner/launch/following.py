"""What becomes of steps that others make, seen by what they leave in the store and the folder."""

from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from runner.launch import Begun, Broke, Failure, Made, Order, Said, local
from runner.sweep.manifest import Row


class Following:
    """Tells of steps that begin, are done or fail, and keeps the graph; asks nobody but the disk.

    A result that was there before counts only where the plan said that it does.
    """

    def __init__(self, order: Order) -> None:
        self.order, self.graph, self.store = order, order.graph, order.store
        self.at: dict[str, int] = {}
        self.lost: dict[str, int] = {}
        entries = {key: self.store.entry(key) for key in self.graph.open & self._there()}
        self.outdated = {key: each.record["id"] for key, each in entries.items() if each}

    def forget_failures(self, keys: Collection[str]) -> None:
        """These are tried anew: what went wrong before is no failure now."""
        for key in keys:
            with suppress(FileNotFoundError):
                (self.order.folder / local.FAILURES / f"{key}.json").unlink()

    def look(self) -> None:
        """Take in what has happened since."""
        for key in sorted(self.graph.open & self._there(), key=self.graph.place.__getitem__):
            entry = self.store.entry(key)
            if entry and entry.record["id"] != self.outdated.get(key):
                self.made(key, float(entry.record["seconds"]))
        failed = {Path(name).stem for name in _names(self.order.folder / local.FAILURES)}
        for failure in [*local.failures(self.order.folder)] if failed & self.graph.open else ():
            if failure.key in self.graph.open:
                self.failed(failure)
        for key in (self.graph.open & _names(self.store.root / "leases")) - {*self.at}:
            self._begun(key)

    def _there(self) -> set[str]:
        return _names(self.store.entries)

    def _begun(self, key: str) -> None:
        number = next(n for n in range(1, len(self.at) + 2) if n not in self.at.values())
        self.at[key] = number
        self.order.tell(Begun(number, self._row(key)))

    def made(self, key: str, seconds: float) -> None:
        """It is done."""
        self.forget_failures([key])
        self.graph.finish(key)
        self.order.tell(Made(self.at.pop(key, 0), self._row(key), seconds))

    def failed(self, failure: Failure) -> None:
        """It cannot be made, nor what builds on it."""
        self.graph.fail(failure.key)
        self.order.failures.append(failure)
        self.order.tell(Broke(self.at.pop(failure.key, 0), failure, False))

    def lose(self, failure: Failure, *, again: bool) -> bool:
        """Its machine or job is gone and left nothing; whether it is tried again."""
        attempts = self.lost[failure.key] = self.lost.get(failure.key, 0) + 1
        failure = replace(failure, attempts=attempts)
        again = again and attempts <= self.order.manifest.settings.retries
        if again:
            self.order.tell(Broke(self.at.pop(failure.key, 0), failure, True))
        else:
            local.write_failure(self.order.folder, failure)
            self.failed(failure)
        return again

    def is_enough(self) -> bool:
        """Whether `sweep.on_failure` says to stop by now; that is said, once."""
        enough = self.order.manifest.settings.is_enough(len(self.order.failures))
        if enough:
            self.order.tell(Said(0, "stopping: sweep.on_failure says so; what runs is kept"))
        return enough

    def _row(self, key: str) -> Row:
        return self.graph.rows[key]


def _names(folder: Path) -> set[str]:
    with suppress(FileNotFoundError):
        return {path.name for path in folder.iterdir()}
    return set()
