"""How far a sweep is: what the store has of its steps, who is at them, what has failed."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from statistics import mean

from runner.launch import Failure
from runner.launch.local import failures
from runner.plan import finished
from runner.recipe import Recipe
from runner.stage import Stage
from runner.store import Entry, Store, default_root
from runner.sweep import pruned
from runner.sweep.manifest import Job, Manifest
from runner.sweep.pruned import Pruned


class State(StrEnum):
    """How far a job is."""

    DONE = "done"
    RUNNING = "running"
    FAILED = "failed"
    PRUNED = "pruned"
    WAITING = "waiting"


def store_of(manifest: Manifest) -> Store:
    """The store that a sweep's results are in."""
    return Store(manifest.store or default_root())


def done(manifest: Manifest, store: Store, stages: Mapping[str, Stage]) -> dict[str, Entry]:
    """The steps that need not be made, by key."""
    recipe = Recipe(manifest.recipe, manifest.path, (), {}, versions=manifest.versions)
    there = {path.name for path in store.entries.glob("*")}
    found = {}
    for key, row in manifest.keys.items():
        if key in there and (entry := finished(recipe, row.step(stages), key, store)):
            found[key] = entry
    return found


@dataclass(frozen=True)
class Standing:
    """The state of every job, and why those that failed did."""

    manifest: Manifest
    entries: Mapping[str, Entry]
    running: frozenset[str]
    failed: Mapping[str, Failure]
    pruned: Mapping[str, Pruned] = field(default_factory=dict)

    def state(self, job: Job) -> State:
        """How far a job is."""
        if job.id in self.pruned:
            return State.PRUNED
        lacking = [row.key for row in self.manifest.steps(job) if row.key not in self.entries]
        if not lacking:
            return State.DONE
        if any(key in self.failed for key in lacking):
            return State.FAILED
        return State.RUNNING if any(key in self.running for key in lacking) else State.WAITING

    def cause(self, job: Job) -> str:
        """Why a job failed or was given up; nothing where it was not."""
        if job.id in self.pruned:
            return self.pruned[job.id].why
        for row in self.manifest.steps(job):
            if row.key in self.failed and row.key not in self.entries:
                failure = self.failed[row.key]
                return f"{failure.step}: {failure.cause}: {failure.fact}"
        return ""

    def counts(self) -> dict[State, int]:
        """How many jobs are in each state."""
        states = [self.state(job) for job in self.manifest.jobs]
        return {state: states.count(state) for state in State}


def look(manifest: Manifest, folder: Path, store: Store, stages: Mapping[str, Stage]) -> Standing:
    """What the store and the sweep's folder say now."""
    entries = done(manifest, store, stages)
    failed = {each.key: each for each in failures(folder) if each.key not in entries}
    open_keys = [key for key in manifest.keys if key not in entries and key not in failed]
    running = frozenset(key for key in open_keys if store.in_work(key))
    return Standing(manifest, entries, running, failed, pruned.read(folder))


@dataclass(frozen=True)
class Work:
    """What a sweep takes: steps, and seconds as far as such steps have been timed before."""

    steps: int
    distinct: int
    done: int
    seconds: float
    distinct_seconds: float
    seconds_left: float
    is_whole: bool

    @property
    def shared(self) -> int:
        """The steps that need not be made, since another job's are the same."""
        return self.steps - self.distinct


def work(manifest: Manifest, entries: Mapping[str, Entry], store: Store) -> Work:
    """What is to be done, and what sharing saves."""
    known = _seconds(manifest, entries, store)
    uses: dict[str, int] = {}
    for job in manifest.jobs:
        for row in manifest.steps(job):
            uses[row.key] = uses.get(row.key, 0) + 1
    took = {key: known.get(key, 0.0) for key in uses}
    return Work(
        steps=sum(uses.values()),
        distinct=len(uses),
        done=len(entries),
        seconds=sum(took[key] * count for key, count in uses.items()),
        distinct_seconds=sum(took.values()),
        seconds_left=sum(took[key] for key in uses if key not in entries),
        is_whole={*uses} <= {*known},
    )


def _seconds(manifest: Manifest, entries: Mapping[str, Entry], store: Store) -> dict[str, float]:
    """Seconds by key: as recorded, else as steps of that name took here or in earlier runs."""
    found = {key: float(entry.record["seconds"]) for key, entry in entries.items()}
    by_name: dict[str, list[float]] = {}
    for key, seconds in found.items():
        by_name.setdefault(manifest.keys[key].name, []).append(seconds)
    for name in {row.name for row in manifest.keys.values()} - {*by_name}:
        if earlier := [*_earlier(manifest.recipe, name, store)]:
            by_name[name] = earlier
    guessed = {name: mean(times) for name, times in by_name.items()}
    more = {
        key: guessed[row.name]
        for key, row in manifest.keys.items()
        if key not in found and row.name in guessed
    }
    return found | more


def _earlier(recipe: str, step: str, store: Store) -> Iterator[float]:
    """The seconds that the last results of a step took."""
    for row in store.recent(recipe, step):
        if entry := store.entry(row["key"]) or store.remains(row["key"]):
            yield float(entry.record["seconds"])


def names(manifest: Manifest, keys: Collection[str]) -> dict[str, int]:
    """How many of these distinct steps have each name, in the recipe's order."""
    found: dict[str, int] = {}
    for key, row in manifest.keys.items():
        found[row.name] = found.get(row.name, 0) + (key in keys)
    return found
