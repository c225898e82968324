"""Preflight: what a plan will write is compared with what is free, before anything is written."""

import shutil
from collections import namedtuple
from dataclasses import replace

import pytest
from fakes import borrower, carry_out, recipe, source, step

from runner import room, upkeep
from runner.errors import StoreError
from runner.plan import plan
from runner.stage import Room

Usage = namedtuple("Usage", "total used free")


def needs(**settings):
    return lambda options, inputs: Room(**settings)


def free(monkeypatch, count):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, count))


def trial():
    second = borrower("second", room=lambda options, inputs: Room(work=inputs["text"]["bytes"]))
    return recipe(
        step("first", source("first", room=needs(kept=100, work=50, gives={"bytes": 1000}))),
        step("second", second, {"text": "first"}),
    )


def test_every_step_that_cannot_have_its_room_is_named_with_the_figures(store, monkeypatch):
    free(monkeypatch, 149)
    with pytest.raises(StoreError) as error:
        room.outlook(plan(trial(), store), store).insist()
    first, _, second, command = str(error.value).splitlines()
    assert first == f"first: needs 150 B on disk, and {store.root} has 149 B free."
    assert second == f"second: needs 1.1 kB on disk, and {store.root} has 149 B free."
    assert command == "  See what can go: runner store gc"


def test_room_that_is_just_enough_is_enough(store, monkeypatch):
    free(monkeypatch, 1100)
    room.outlook(plan(trial(), store), store).insist()
    free(monkeypatch, 1099)
    with pytest.raises(StoreError, match=r"^second: needs 1\.1 kB"):
        room.outlook(plan(trial(), store), store).insist()


def test_a_step_that_is_done_takes_nothing_and_its_size_is_known(store, monkeypatch):
    carry_out(trial(), store)
    free(monkeypatch, 0)
    room.outlook(plan(trial(), store), store).insist()


def test_what_a_step_has_found_out_counts_for_those_after_it(store, monkeypatch):
    def find_out(context):
        context.facts["bytes"] = 10**6

    unknown = source("first", fault=find_out)
    what = recipe(step("first", unknown), replace(trial().steps[1]))
    free(monkeypatch, 10**5)
    what.steps[1].stage.room = lambda options, inputs: Room(work=inputs["text"].get("bytes", 0))
    with pytest.raises(StoreError, match=r"^second: needs 1\.0 MB on disk"):
        carry_out(what, store)
    assert store.entry(plan(what, store).step("first").key)
    assert what.steps[1].stage.count["run"] == 0


def test_unfinished_work_that_is_there_already_is_not_asked_for_again(store, monkeypatch):
    what = recipe(step("first", source("first", room=needs(work=5000))))
    draft = store.draft(plan(what, store).step("first").key)
    (draft.work / "half").write_bytes(bytes(3000))
    free(monkeypatch, 2000)
    room.outlook(plan(what, store), store).insist()
    free(monkeypatch, 1999)
    with pytest.raises(StoreError, match=r"first: needs 2\.0 kB"):
        room.outlook(plan(what, store), store).insist()


def test_what_goes_outside_the_store_is_looked_for_there(store, monkeypatch, tmp_path):
    asked = []

    def usage(path):
        asked.append(path)
        return Usage(1, 0, 10)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    target = tmp_path / "models" / "mine"
    what = recipe(step("first", source("first", room=needs(outside=(target, 11)))))
    with pytest.raises(StoreError, match=f"first: needs 11 B on disk, and {target} has 10 B free"):
        room.outlook(plan(what, store), store).insist()
    assert asked == [tmp_path]


def test_dropped_results_have_left_their_size(store, monkeypatch):
    monkeypatch.setattr(upkeep, "LARGE", 0)
    carry_out(replace(trial(), keep="results"), store)
    again = plan(replace(trial(), keep="results"), store)
    rooms = [found for _, found in room.rooms(again, store)]
    assert rooms == [Room(), Room()]


def test_the_bytes_of_several_steps_in_one_role_add_up():
    assert room._together([{"bytes": 1, "more": 2}, {"bytes": 3}]) == {"bytes": 4, "more": 2}
    assert room._together([{}]) == {}
