"""The disk refuses: at every open, write, sync and rename in turn, and a disk that is full."""

import errno
import os
import subprocess
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from disk import hooked
from fakes import FakeStage, carry_out, in_child, recipe, source, step, three_steps
from measure import first, row, size

from runner import lease as leases
from runner import running, upkeep
from runner.errors import RunnerError
from runner.files import remove
from runner.plan import plan
from runner.store import Store

pytestmark = [pytest.mark.timeout(3600), pytest.mark.filterwarnings("default")]

CALLS = {
    "ENOSPC": {"open", "write", "fsync", "rename", "replace", "mkdir"},
    "EIO": {"open", "write", "fsync", "rename", "replace", "mkdir"},
    "EMFILE": {"open"},
}
EVERY = size("FAULTS_EVERY", 1)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(leases, "EXPIRY", 0.05)
    monkeypatch.setattr(leases, "POLL", 0.005)
    monkeypatch.setattr(os, "fsync", lambda fd: None)


def trial(rank: int = 8) -> Any:
    made = three_steps(rounds=(0, 2, 0))
    last = step("third", made.steps[2].stage, {"texts": ("first", "second")}, rank=rank)
    return recipe(*made.steps[:2], last)


class Injector:
    """Refuses the `number`th call of the given kinds, or every one from it on."""

    def __init__(self, name: str, number: int, *, for_good: bool) -> None:
        self.code, self.kinds = getattr(errno, name), CALLS[name]
        self.number, self.for_good, self.seen, self.at = number, for_good, 0, ""

    def before(self, call: str, path: str) -> None:
        if call not in self.kinds:
            return
        self.seen += 1
        if self.seen == self.number or (self.for_good and self.seen > self.number):
            self.at = self.at or f"{call} {Path(path).name}"
            raise OSError(self.code, os.strerror(self.code), path)


def where(error: BaseException) -> str:
    """The innermost lines of the engine that an exception passed."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/runner/" in frame.filename]
    return " < ".join(
        f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in ours[:-4:-1]
    )


def run_apart(what: Any, store: Store, injector: Injector) -> dict[str, Any]:
    """A run in a process of its own: what came out, and where it was refused."""

    def work(tell: Callable[[Any], None]) -> None:
        said: dict[str, Any] = {"digests": None, "unclear": ""}
        try:
            with hooked(store.root, before=injector.before):
                said["digests"] = carry_out(what, store).digests
        except RunnerError as error:
            if len(str(error).splitlines()) != 1:
                said["unclear"] = f"not one line: {error}"
        except BaseException as error:
            said["unclear"] = f"{type(error).__name__} at {where(error)}"
        tell({**said, "at": injector.at})

    return in_child(work)


@pytest.mark.parametrize("begun_before", [False, True], ids=["first-run", "edit"])
def test_a_refusal_is_one_clear_line_and_the_next_run_goes_on(begun_before, tmp_path):
    begun = time.monotonic()
    what = trial(rank=9) if begun_before else trial()
    right = carry_out(what, Store(tmp_path / "undisturbed")).digests
    tries, unclear, wrong, redone = 0, Counter(), [], Counter()
    for name in CALLS:
        for for_good in (False, True):
            number = 0
            while True:
                number += EVERY
                store = Store(tmp_path / "store")
                if begun_before:
                    carry_out(trial(), store)
                before = {key for key, fault in upkeep.verify(store) if not fault}
                ids = {key: store.entry(key).record["id"] for key in before}
                injector = Injector(name, number, for_good=for_good)
                mode = f"{name}{' for good' if for_good else ''} at call {number}"
                said = run_apart(what, store, injector)
                injector.at = said["at"]
                if said["unclear"]:
                    unclear[said["unclear"]] += 1
                if said["digests"] not in (None, right):
                    wrong.append(f"{mode} ({injector.at}): other digests")
                if not injector.at:
                    remove(store.root)
                    break
                tries += 1
                bad = [found for found in upkeep.verify(store) if found[1]]
                if bad:
                    wrong.append(f"{mode} ({injector.at}): damaged {bad}")
                for key in before:
                    entry = store.entry(key)
                    if entry is None or entry.record["id"] != ids[key]:
                        redone[f"{name} at {injector.at}"] += 1
                try:
                    if carry_out(what, store).digests != right:
                        wrong.append(f"{mode} ({injector.at}): the next run makes other bytes")
                except Exception as error:
                    wrong.append(f"{mode} ({injector.at}): the next run ends by {error!r}")
                remove(store.root)
    kind = "an edited recipe" if begun_before else "a first run"
    row(
        f"ENOSPC, EIO, EMFILE once and for good at every disk call of {kind}",
        f"{tries} refusals",
        f"{len(wrong)} wrong states or results, {sum(unclear.values())} without a clear line,"
        f" {sum(redone.values())} whole results thrown away",
        begun,
    )
    print(*(f"{count} x {text}" for text, count in unclear.most_common()), sep="\n")
    print("thrown away:", dict(redone))
    assert not wrong, first(wrong)
    assert not unclear, "\n".join(f"{count} x {text}" for text, count in unclear.most_common(9))
    assert not redone, redone


class Large(FakeStage):
    """A stage whose product takes room."""

    def save(self, product: Any, folder: Path) -> None:
        super().save(product, folder)
        for number in range(10):
            (folder / f"{number}.bin").write_bytes(bytes([number]) * 40_000)


@pytest.fixture
def full(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "torture", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"cannot mount a tmpfs: {error}")
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("runs_too", [False, True], ids=["store", "store-and-runs"])
def test_a_disk_that_is_really_full(runs_too, full, tmp_path):
    begun = time.monotonic()
    tries, unclear, wrong, failed = 0, Counter(), [], 0

    def large() -> Any:
        stage = Large("first")
        second = step("second", Large("second", NEEDS=trial().steps[1].stage.NEEDS))
        return recipe(
            step("first", stage, rounds=2),
            step("second", second.stage, {"text": "first"}, rounds=2),
            step("third", source("third")),
        )

    right = carry_out(large(), Store(tmp_path / "undisturbed")).digests
    for room in range(0, 1200_000, size("FULL_STRIDE", 12_000)):
        remove(full / "store")
        remove(full / "runs")
        filler = full / "filler"
        with open(filler, "wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass
            file.truncate(max(0, filler.stat().st_size - room))
        store = Store(full / "store")
        runs = (full if runs_too else tmp_path) / "runs"

        def go(store: Store = store, runs: Path = runs) -> dict[str, str]:
            outcomes = running.carry_out(plan(large(), store), store, lambda event: None, runs)
            return {o.planned.step.name: o.entry.digest for o in outcomes}

        tries += 1
        try:
            with patch.object(running.hardware, "prepare", lambda: ""):
                go()
        except RunnerError as error:
            failed += 1
            if len(str(error).splitlines()) != 1:
                unclear[f"not one line: {error}"] += 1
        except Exception as error:
            failed += 1
            unclear[f"{type(error).__name__} at {where(error)}"] += 1
        bad = [found for found in upkeep.verify(store) if found[1]]
        if bad:
            wrong.append(f"{room} bytes: damaged {bad}")
        filler.unlink()
        try:
            with patch.object(running.hardware, "prepare", lambda: ""):
                if go() != right:
                    wrong.append(f"{room} bytes: the next run makes other bytes")
        except Exception as error:
            wrong.append(f"{room} bytes: the next run ends by {error!r}")
    what = "the store and the runs" if runs_too else "the store"
    row(
        f"a tmpfs of 2 MB that is full, with {what} on it",
        f"{tries} amounts of room, {failed} too small",
        f"{len(wrong)} wrong states or results, {sum(unclear.values())} without a clear line",
        begun,
    )
    assert failed
    assert not wrong, first(wrong)
    assert not unclear, "\n".join(f"{count} x {text}" for text, count in unclear.most_common(9))
