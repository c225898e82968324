"""Figures over time: kept with the result, whole after a kill, there where it is reused."""

import json
from pathlib import Path

import pytest
from fakes import borrower, recipe, source, step

from runner import hardware, running
from runner.errors import StepError, Stopped
from runner.metrics import Metrics, current, read
from runner.plan import plan
from runner.report import folder as folders
from runner.store import Store


def steps(rows):
    return [row["step"] for row in rows if "step" in row]


def test_what_is_measured_again_takes_the_place_of_what_was_measured_before():
    rows = [{"step": n, "loss": n} for n in (1, 2, 3, 4, 5)]
    again = [{"step": n, "loss": 10 * n} for n in (3, 4)]
    assert current(rows + again) == [*rows[:2], *again]


def test_rows_of_one_step_are_joined_and_rows_without_a_step_stay():
    rows = [{"words": 1}, {"step": 1, "loss": 2}, {"step": 1, "held_out": 3}, {"words": 4}]
    assert current(rows) == [{"words": 1}, {"step": 1, "loss": 2, "held_out": 3}, {"words": 4}]


def test_step_nought_is_a_step():
    assert steps(current([{"step": 0}, {"step": 1}, {"step": 0}])) == [0]


def test_every_row_says_when_it_was_measured_and_the_memory_then(tmp_path):
    metrics = Metrics(tmp_path / "m.jsonl")
    row = metrics.add({"step": 1})
    assert row["seconds"] >= 0
    assert 1 << 20 < row["memory"] <= hardware.peak_memory()
    assert list(read(tmp_path / "m.jsonl")) == [row]


def test_a_torn_line_is_left_out_and_the_clock_goes_on(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1, "seconds": 50.0}\n{"step": 2, "seco')
    metrics = Metrics(path)
    assert steps(metrics.earlier) == [1]
    assert metrics.add({"step": 2})["seconds"] >= 50
    assert steps(read(path)) == [1, 2]


def rounds(context, begin, end, fault=None):
    for number in range(begin, end + 1):
        context.metrics({"step": number, "loss": 1 / number})
    if fault:
        raise fault


@pytest.fixture
def carried_out(monkeypatch, store, tmp_path):
    monkeypatch.setattr(hardware, "prepare", lambda: "")

    def call(*stages, runs="runs"):
        given = [{}, {"text": "s0"}]
        what = recipe(*(step(f"s{n}", stage, given[n]) for n, stage in enumerate(stages)))
        try:
            running.carry_out(plan(what, store), store, lambda event: None, tmp_path / runs)
        finally:
            (found,) = (tmp_path / runs / what.name).iterdir()
            call.run = folders.read(found)
        return call.run

    return call


def test_a_run_that_goes_on_after_a_stop_has_one_whole_curve(carried_out):
    with pytest.raises(Stopped):
        carried_out(source("a", fault=lambda c: rounds(c, 1, 6, Stopped("SIGTERM"))), runs="first")
    assert steps(carried_out.run.metrics("s0")) == [1, 2, 3, 4, 5, 6]
    with pytest.raises(StepError):
        carried_out(source("a", fault=lambda c: rounds(c, 4, 8, StepError("no"))), runs="second")
    assert steps(carried_out.run.metrics("s0")) == [1, 2, 3, 4, 5, 6, 7, 8]
    done = carried_out(source("a", fault=lambda c: rounds(c, 7, 9)), runs="third")
    rows = done.metrics("s0")
    assert steps(rows) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert [row["seconds"] for row in rows] == sorted(row["seconds"] for row in rows)


def test_a_run_that_reuses_a_step_has_the_curve_of_what_it_uses(carried_out, store):
    made = carried_out(source("a", fault=lambda c: rounds(c, 1, 5)), runs="first")
    assert steps(made.metrics("s0")) == [1, 2, 3, 4, 5]
    reused = carried_out(source("a"), borrower("b"), runs="second")
    assert reused.steps[0].said == "reuse"
    assert reused.metrics("s0") == [
        {name: value for name, value in row.items() if name != "of"} for row in made.metrics("s0")
    ]
    store.discard(made.keys["s0"])
    assert steps(folders.read(reused.folder).metrics("s0")) == [1, 2, 3, 4, 5]


def test_metrics_outlive_the_files_that_are_dropped(carried_out, store: Store):
    made = carried_out(source("a", fault=lambda c: rounds(c, 1, 3)))
    entry = store.entry(made.keys["s0"])
    store.drop(entry)
    assert steps(read(store.remains(entry.key).metrics)) == [1, 2, 3]


def test_a_step_made_anew_does_not_go_on_from_old_figures(carried_out, store, tmp_path):
    with pytest.raises(StepError):
        carried_out(source("a", fault=lambda c: rounds(c, 5, 9, StepError("no"))), runs="first")
    for key in drafts(store):
        store.drop_draft(key)
    done = carried_out(source("a", fault=lambda c: rounds(c, 1, 2)), runs="second")
    assert steps(done.metrics("s0")) == [1, 2]
    lines = (done.folder / "metrics.jsonl").read_text().splitlines()
    assert steps(map(json.loads, lines)) == [1, 2]


def drafts(store: Store) -> list[str]:
    return [path.name.split(".")[0] for path in Path(store.drafts).iterdir()]
