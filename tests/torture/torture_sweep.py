"""Sweeps whose workers, and which as a whole, are killed at random times: as undisturbed ones."""

import time
from pathlib import Path

import pytest
from measure import first, row, size
from sweeping import digests, disturbed, manifest_of, sweep, write

from runner import upkeep
from runner.store import Store
from runner.sweep import standing

pytestmark = pytest.mark.timeout(7200)

WORDS = ["grow.rank=1,2,3", "tell.rank=1,2,3"]


def prepared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A working directory with the recipe, and an empty store."""
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("RUNNER_STORE", str(folder / "store"))
    slow = f"rounds: 3, pause: 0.03, log: {folder / 'log'}"
    write("\n".join(f"{name}: {{{slow}}}" for name in ("begin", "grow", "tell")))
    return Store(folder / "store")


def test_kills_of_workers_and_sweeps(here, monkeypatch):
    begun, total, each = time.monotonic(), size("SWEEP_KILLS", 200), 10
    prepared(here / "undisturbed", monkeypatch)
    assert sweep("r", *WORDS)[0] == 0
    manifest = manifest_of(*WORDS)
    right = digests(standing.store_of(manifest), manifest)
    kills, sweeps, wrong, redone = 0, 0, list[str](), 0
    while kills < total:
        sweeps += 1
        store = prepared(here / str(sweeps), monkeypatch)
        killed, again = disturbed(WORDS, min(each, total - kills), seed=sweeps)
        kills, redone = kills + killed, redone + len(again)
        if digests(store, manifest) != right:
            wrong.append(f"sweep {sweeps}: other digests")
        wrong += [f"{key}: {fault}" for key, fault in upkeep.verify(store) if fault]
    row(
        "SIGKILL of single workers of a sweep, and of the whole of it, at random times",
        f"{kills} kills, {sweeps} sweeps of {len(manifest.keys)} distinct steps",
        f"0 repairs by hand, {len(wrong)} wrong results, {redone} committed steps done again",
        begun,
    )
    assert not wrong, first(wrong)
    assert redone == 0
