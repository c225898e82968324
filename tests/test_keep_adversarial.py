"""`store.keep`, room and sources side by side, where things go wrong or come in an odd order."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import borrower, carry_out, gatherer, notes, recipe, source, spoil, step, words
from test_keep import chain, kept

from runner import room, upkeep
from runner.errors import StepError, Stopped, StoreError
from runner.plan import Verdict, plan
from runner.recipe import Recipe
from runner.stage import Room
from runner.store import Store

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def every_result_is_large(monkeypatch):
    monkeypatch.setattr(upkeep, "LARGE", 0)


def key(what: Recipe, store: Store, name: str) -> str:
    return plan(what, store).step(name).key


# --- what is dropped, and what comes back


def test_a_result_that_another_recipe_dropped_is_made_where_it_is_asked_for(store):
    carry_out(chain("results"), store)
    short = recipe(*chain("all").steps[:2], keep="results", name="short")
    ran = carry_out(short, store)
    assert words(store, ran.plan, "b") == ["a:8:1.0", "b:8:1.0"]


def test_a_step_that_has_become_the_last_has_its_files(store):
    carry_out(chain("results"), store)
    shortened = replace(chain("results"), steps=chain("results").steps[:-1])
    carry_out(shortened, store)
    assert kept(store, shortened) >= {"d"}


def test_a_step_that_is_kept_from_now_on_has_its_files(store):
    carry_out(chain("results"), store)
    carry_out(chain(("c",)), store)
    assert kept(store, chain(("c",))) >= {"c", "e"}


def test_a_kill_between_the_two_writes_of_a_drop_changes_nothing(store, monkeypatch):
    right = carry_out(chain("all"), Store(store.root / "other")).digests

    def killed(*_: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(Store, "discard", killed)
        with pytest.raises(SystemExit):
            carry_out(chain("results"), store)
    ran = carry_out(chain("results"), store)
    assert ran.verdicts["a"] is Verdict.REUSE
    assert ran.digests == right
    assert kept(store, chain("results")) == {"e"}


def test_a_dropped_result_of_an_older_stage_is_made_by_the_newer_one(store):
    carry_out(chain("results"), store)
    what = chain("results")
    what.steps[2].stage.VERSION = 2
    ran = carry_out(what, store)
    assert "version changed: 1 -> 2" in ran.plan.step("c").reason
    assert set(ran.verdicts.values()) == {Verdict.RUN}  # c needs b, and b consumes a
    assert kept(store, what) == {"e"}


def test_a_fresh_step_in_the_middle_has_its_dropped_inputs_made_again(store):
    first = carry_out(chain("results"), store)
    again = carry_out(chain("results"), store, fresh={"d"})
    verdicts = {name: str(verdict) for name, verdict in again.verdicts.items()}
    assert verdicts == {"a": "run", "b": "run", "c": "run", "d": "run", "e": "reuse"}
    assert again.digests == first.digests
    assert kept(store, chain("results")) == {"e"}


def test_a_run_that_fails_late_goes_on_without_making_dropped_results_again(store):
    what = chain("results")

    def fail(context: Any) -> None:
        raise StepError("no.")

    what.steps[3].stage.fault = fail
    with pytest.raises(StepError):
        carry_out(what, store)
    assert kept(store, what) == {"b", "c"}
    what.steps[3].stage.fault = lambda context: None
    ran = carry_out(what, store)
    assert [name for name, verdict in ran.verdicts.items() if verdict is Verdict.RUN] == ["d", "e"]


def test_a_damaged_input_has_the_dropped_ones_before_it_made_again(store):
    carry_out(chain(("d",)), store)
    what = recipe(*chain("all").steps, step("f", borrower("f"), {"text": "d"}), keep=("d",))
    entry = store.entry(key(what, store, "d"))
    spoil(entry.product / "words.txt", "flip")
    ran = carry_out(what, store)
    assert words(store, ran.plan, "f")[-2:] == ["d:8:1.0", "f:8:1.0"]
    assert kept(store, what) == {"d", "e", "f"}
    assert any("the kept result is damaged" in note for note in ran.notes)


def test_two_recipes_that_share_a_store_end_with_the_results_of_both(store):
    one, two = chain("results", name="one"), chain("results", last=9, name="two")
    for what in (one, two, one, two):
        carry_out(what, store)
    assert kept(store, one) >= {"e"}
    assert kept(store, two) >= {"e"}
    assert set(carry_out(one, store).verdicts.values()) == {Verdict.REUSE}


def test_an_input_outside_the_store_that_changes_under_a_step_counts_for_nothing(store):
    """What a source left outside the store is spoilt while the second step reads it."""
    spoilt: list[str] = []
    outside = source(
        "first", HOLDS=False, stale=lambda options, folder, facts: (spoilt or [None])[0]
    )
    second = borrower("second", fault=lambda context: spoilt.append("it has other bytes"))
    what = recipe(step("first", outside), step("second", second, {"text": "first"}))
    with pytest.raises(StepError, match="changed while it ran"):
        carry_out(what, store)
    assert store.entry(key(what, store, "second")) is None


# --- room


def large(keep: str) -> Recipe:
    """Four steps in a row of 100 bytes each."""
    takes = {"room": lambda options, inputs: Room(kept=100)}
    return recipe(
        step("a", source("a", **takes)),
        step("b", borrower("b", **takes), {"text": "a"}),
        step("c", borrower("c", **takes), {"text": "b"}),
        step("d", borrower("d", **takes), {"text": "c"}),
        keep=keep,
    )


def test_room_that_dropped_results_leave_is_reckoned_with(store, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, 250))
    with pytest.raises(StoreError, match=r"^c: needs 300 B"):
        room.outlook(plan(large("all"), store), store).insist()
    room.outlook(plan(large("results"), store), store).insist()
    assert room.outlook(plan(large("results"), store), store).peak == 200


# --- side by side


def test_a_draft_may_go_while_its_size_is_asked_for(store, monkeypatch):
    """A source asks for the room of all while those beside it end and tidy up."""
    draft, real = store.draft("k" * 32), Path.is_file
    (draft.work / "half").touch()

    def and_gone(path: Path) -> bool:
        found = real(path)
        if path.name == "half":
            path.unlink(missing_ok=True)
        return found

    monkeypatch.setattr(Path, "is_file", and_gone)
    assert store.draft_size("k" * 32) == 0


def together(*faults: Any, **settings: Any) -> Recipe:
    """One source for each fault, which begin at the same time."""
    barrier = threading.Barrier(len(faults), timeout=10)

    def acts(fault: Any) -> Any:
        return lambda context: (barrier.wait(), fault(context))

    sources = [
        source(f"s{number}", PARTS=True, HOLDS=False, fault=acts(fault))
        for number, fault in enumerate(faults)
    ]
    return recipe(*(step(f"fetch.{each.label}", each, **settings) for each in sources))


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_process_ends_it_from_within_a_source_too(kind, store):
    def end(context: Any) -> None:
        raise kind

    what = together(end, lambda context: None, rounds=500, pause=0.01)
    begun = time.monotonic()
    with pytest.raises(kind):
        carry_out(what, store)
    assert time.monotonic() - begun < 3
    assert plan(what, store).step("fetch.s1").verdict is Verdict.RESUME


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 75), ("SIGUSR1", 75)])
def test_a_signal_stops_all_sources_with_its_own_code(name, code, store):
    seen: list[str] = []
    what = together(lambda context: None, lambda context: seen.append(name), rounds=50, pause=0.01)
    with pytest.raises(Stopped) as stopped:
        carry_out(what, store, stop_signal=lambda: seen[0] if seen else None)
    assert stopped.value.exit_code == code
    verdicts = {planned.verdict for planned in plan(what, store).steps}
    assert verdicts <= {Verdict.RESUME, Verdict.RUN}
    seen.clear()
    what.steps[1].stage.fault = what.steps[0].stage.fault = lambda context: None
    assert len(carry_out(what, store).outcomes) == 2


def test_two_sources_of_one_key_are_brought_once(store):
    alike = source("alike", PARTS=True, HOLDS=False)
    what = recipe(
        step("fetch.a", alike, rounds=3, pause=0.05),
        step("fetch.b", alike, rounds=3, pause=0.05),
        step("use", gatherer("use"), {"texts": ("fetch.a", "fetch.b")}),
    )
    heard: list[Any] = []
    ran = carry_out(what, store, events=heard)
    assert alike.count["run"] == 1
    assert len(words(store, ran.plan, "use")) == 9
    assert not [text for text in notes(heard) if "damaged" in text]


STUBBORN = """
import os, sys, time
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from fakes import recipe, source, step
from runner import hardware, running
from runner.plan import plan
from runner.store import Store

def act(context):
    print("begun", file=screen, flush=True)
    time.sleep(4)

screen = open(os.dup(1), "w")
hardware.prepare = lambda: ""
store = Store(Path(sys.argv[1]) / "store")
names = ("a", "b")[: int(os.environ["SOURCES"])]
what = recipe(*(step(f"fetch.{n}", source(n, PARTS=True, fault=act)) for n in names))
try:
    running.carry_out(plan(what, store), store, lambda event: None, Path(sys.argv[1]) / "runs")
except KeyboardInterrupt:
    raise SystemExit(130)
"""


@pytest.mark.parametrize(
    "count",
    [
        1,
        pytest.param(2),
    ],
)
def test_a_second_ctrl_c_stops_at_once_however_many_sources_run(count, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", STUBBORN, str(tmp_path), str(Path(__file__).parent), *sys.path],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "SOURCES": str(count)},
    )
    try:
        for _ in range(count):
            assert process.stdout.readline() == "begun\n"
        begun = time.monotonic()
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)
        assert process.wait(20) == 130
        assert time.monotonic() - begun < 2.5
    finally:
        process.kill()
        process.communicate()
