"""A loss of power at every call by which a run touches the disk, by a model of the disk."""

import random
import time
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from disk import Disk, hooked
from fakes import carry_out, spoil, step, three_steps
from measure import first, row, size

from runner import files, upkeep
from runner import lease as leases
from runner.events import Finished, Progressed
from runner.plan import plan
from runner.recipe import Recipe
from runner.store import Store

pytestmark = [pytest.mark.timeout(3600), pytest.mark.filterwarnings("default")]

VARIANTS = size("POWER_VARIANTS", 5)


def trial(rank: int = 8) -> Recipe:
    """Three steps, the second with checkpoints."""
    made = three_steps(rounds=(0, 2, 0))
    steps = list(made.steps)
    steps[1] = step("second", steps[1].stage, {"text": "first"}, rounds=2, rank=rank)
    return Recipe(made.name, made.path, tuple(steps), made.plain)


class Crashes:
    """Makes the folders that a loss of power would leave, and looks at each."""

    def __init__(self, tmp_path: Path, name: str, *, discards: bool) -> None:
        self.seed = sum(map(ord, name))
        self.place, self.name, self.discards = tmp_path / name, name, discards
        self.top = self.place / "top"
        self.top.mkdir(parents=True)
        self.store = Store(self.top / "store")
        self.disk = Disk(self.top)
        self.done: set[str] = set()
        self.checkpoints = 0
        self.count = self.lost_checkpoints = 0
        self.wrong: list[str] = []
        self.right: dict[str, str] = {}
        self.snapshots: list[tuple[int, Path, bool, set[str], int]] = []

    def hear(self, event: Any) -> None:
        """What a run has said to be done must outlive the next crash."""
        if isinstance(event, Finished):
            self.done.add(event.outcome.planned.key)
            self.checkpoints = 0
        if isinstance(event, Progressed):
            self.checkpoints = int(event.done)

    def after(self, call: str, path: str, other: str) -> None:
        """One more call is made: the power may fail now."""
        self.disk.after(call, path, other)
        for variant in range(VARIANTS + 1):
            target = self.place / f"{self.disk.calls}-{variant}"
            chance = random.Random(self.seed * 10**6 + self.disk.calls * 100 + variant)
            with UNHOOKED():
                self.disk.crash(target, chance if variant else None)
            worst = variant == 0
            self.snapshots.append(
                (self.disk.calls, target, worst, set(self.done), self.checkpoints)
            )

    def judge(self, what: Recipe, allowed: dict[str, str]) -> None:
        """Look at every folder, then run on it; `allowed` is the digest that each key may have."""
        right = carry_out(what, Store(self.place / "undisturbed")).digests
        for call, target, _, done, checkpoints in self.snapshots:
            self.count += 1
            where = f"{self.name}, call {call}, {target.name}"
            store = Store(target / "store")
            seen = set()
            for key, fault in upkeep.verify(store):
                entry = store.entry(key)
                if fault is None and entry and allowed.get(key) != entry.digest:
                    self.wrong.append(f"{where}: {key} is neither old nor new")
                if fault and not self.discards:
                    self.wrong.append(f"{where}: {key} is half there: {fault}")
                if fault is None:
                    seen.add(key)
            if lost := done - seen:
                self.wrong.append(f"{where}: finished and lost: {sorted(lost)}")
            if checkpoints:
                key = plan(what, store).step("second").key
                kept = [p.name for p in store.drafts.glob(f"{key}.*/checkpoints/*")]
                gone = f"{checkpoints:09d}" not in kept and store.entry(key) is None
                self.lost_checkpoints += gone and self.name != "first-run"
            try:
                again = carry_out(what, store).digests
            except Exception as error:
                self.wrong.append(f"{where}: the next run ends by {error!r}")
            else:
                if again != right:
                    self.wrong.append(f"{where}: the next run makes other bytes")
                bad = [found for found in upkeep.verify(store) if found[1]]
                if bad:
                    self.wrong.append(f"{where}: still damaged after the next run: {bad}")
            files.remove(target)


class UNHOOKED:
    """Calls of the model itself are not the store's."""

    def __enter__(self) -> None:
        import builtins
        import io
        import os

        self.kept = {
            (m, n): getattr(m, n)
            for m, n in [(builtins, "open"), (io, "open"), (os, "open"), (os, "mkdir")]
        }
        for (module, name), value in REAL.items():
            setattr(module, name, value)

    def __exit__(self, *_: object) -> None:
        for (module, name), value in self.kept.items():
            setattr(module, name, value)


def _real() -> dict[Any, Any]:
    import builtins
    import io
    import os

    pairs = [(builtins, "open"), (io, "open"), (os, "open"), (os, "mkdir")]
    return {(module, name): getattr(module, name) for module, name in pairs}


REAL = _real()


def digests(what: Recipe, tmp_path: Path) -> dict[str, str]:
    """Key to right digest."""
    ran = carry_out(what, Store(tmp_path / f"digests-{time.monotonic_ns()}"))
    return {o.planned.key: o.entry.digest for o in ran.outcomes}


def record(crashes: Crashes, what: Recipe) -> None:
    from runner.execute import execute

    with hooked(crashes.top, after=crashes.after):
        execute(plan(what, crashes.store), crashes.store, crashes.hear, lambda: None)


def settle(crashes: Crashes) -> None:
    """What is there now has long been on the disk."""
    for node in _nodes(crashes.disk.top):
        node.durable = dict(node.now) if node.is_folder else node.now
    crashes.disk.changes.clear()


def _nodes(node: Any) -> Any:
    yield node
    if node.is_folder:
        for child in node.now.values():
            yield from _nodes(child)


@pytest.fixture
def scenarios(tmp_path: Path) -> list[Crashes]:
    """A first run; a run after an edit; a damaged result made again; a collection."""
    first_run = Crashes(tmp_path, "first-run", discards=False)
    record(first_run, trial())
    first_run.judged = trial()

    edited = Crashes(tmp_path, "edit", discards=False)
    prepared(edited)
    record(edited, trial(rank=9))
    edited.judged = trial(rank=9)

    damaged = Crashes(tmp_path, "damage", discards=True)
    prepared(damaged)
    for name in ("first", "second"):
        entry = damaged.store.entry(plan(trial(), damaged.store).step(name).key)
        file = entry.product / "words.txt"
        spoil(file, "truncate")
        damaged.disk._find(str(file)).now = file.read_bytes()
    settle(damaged)
    record(damaged, trial())
    damaged.judged = trial()

    collected = Crashes(tmp_path, "gc", discards=True)
    prepared(collected)
    with hooked(collected.top, after=collected.after):
        upkeep.delete(collected.store, upkeep.garbage(collected.store, 0, drafts=True))
    collected.judged = trial()
    return [first_run, edited, damaged, collected]


def prepared(crashes: Crashes) -> None:
    with hooked(crashes.top, after=crashes.disk.after):
        carry_out(trial(), crashes.store)
    settle(crashes)


def test_after_any_loss_of_power_the_store_is_old_or_new(scenarios, tmp_path):
    begun = time.monotonic()
    allowed = digests(trial(), tmp_path) | digests(trial(rank=9), tmp_path)
    elsewhere = {"host": "here", "boot": "another", "space": "here"}
    with (
        patch.object(leases, "_place", lambda: elsewhere),
        patch.object(leases, "EXPIRY", 0.03),
        patch.object(leases, "POLL", 0.005),
        patch("os.fsync", lambda fd: None),
    ):
        for each in scenarios:
            each.judge(each.judged, allowed)
    wrong = [text for each in scenarios for text in each.wrong]
    calls = sum(each.disk.calls for each in scenarios)
    lost = sum(each.lost_checkpoints for each in scenarios)
    row(
        "loss of power at every disk call of a first run, an edit, a repair and a gc",
        f"{calls} calls, {sum(each.count for each in scenarios)} crashes",
        f"{len(wrong)} wrong states or results; in {lost} crashes the newest checkpoint was gone"
        " and its work was done again",
        begun,
    )
    kinds = Counter((text.split(",")[0], text.split(": ")[1]) for text in wrong)
    assert not wrong, f"{dict(kinds)}\n{first(wrong, 8)}"
