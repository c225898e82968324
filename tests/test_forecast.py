"""What a plan expects of steps: only what records of the same or of like steps say."""

import pytest
from fakes import borrower, carry_out, recipe, source, step

from runner import forecast
from runner.plan import plan
from runner.report.terminal import duration, plan_table


def two_steps(stage=None, before=None, **options):
    return recipe(
        step("load", source(), **(before or {})),
        step("adapt", stage or borrower(), {"text": "load"}, **options),
    )


def expected(what, store, **settings):
    """The keys that steps are expected to be like."""
    found = forecast.forecasts(plan(what, store, **settings), store)
    return {name: each.like for name, each in found.items()}


def key(what, store, name="adapt"):
    return plan(what, store).step(name).key


def test_nothing_is_expected_of_what_never_ran(store):
    assert expected(two_steps(), store) == {}


def test_a_step_to_run_afresh_takes_what_it_took(store):
    carry_out(two_steps(), store)
    again = plan(two_steps(), store, ["adapt"])
    [(name, found)] = forecast.forecasts(again, store).items()
    record = store.entry(key(two_steps(), store)).record
    assert (name, found.like) == ("adapt", record["key"])
    assert (found.seconds, found.memory) == (record["seconds"], record["peak_memory"])


def test_a_number_that_is_not_far_from_what_it_was_makes_a_step_alike(store):
    carry_out(two_steps(rank=8), store)
    like = {"adapt": key(two_steps(rank=8), store)}
    assert expected(two_steps(rank=16), store) == like
    assert expected(two_steps(rank=4), store) == like
    assert expected(two_steps(rank=17), store) == {}
    assert expected(two_steps(rank=0), store) == {}


def test_a_step_is_alike_only_where_its_inputs_are(store):
    carry_out(two_steps(), store)
    assert [*expected(two_steps(before={"rank": 9}), store)] == ["load", "adapt"]
    assert expected(two_steps(before={"rank": 80}), store) == {}


def test_another_version_of_a_stage_is_not_alike(store):
    carry_out(two_steps(), store)
    assert expected(two_steps(borrower(VERSION=2)), store) == {}


def test_the_newest_of_those_alike_counts(store):
    for rank in (7, 9):
        carry_out(two_steps(rank=rank), store)
    assert expected(two_steps(rank=8), store)["adapt"] == key(two_steps(rank=9), store)


def test_what_another_machine_took_says_nothing(store, monkeypatch):
    carry_out(two_steps(rank=8), store)
    monkeypatch.setattr(forecast.socket, "gethostname", lambda: "elsewhere")
    assert expected(two_steps(rank=9), store) == {}


def test_of_a_result_that_was_collected_nothing_is_expected(store):
    carry_out(two_steps(rank=8), store)
    store.discard(key(two_steps(rank=8), store))
    assert expected(two_steps(rank=9), store) == {}


def test_the_table_says_what_each_step_took_and_all_that_are_known(store):
    steps = plan(two_steps(), store)
    half = {"adapt": forecast.Forecast(150.0, 2_400_000_000, "k")}
    assert [*plan_table(steps, expected=half)] == [
        "load   run     not done before",
        "adapt  run     not done before (about 2.5 min, 2.4 GB of memory)",
        "2 of 2 steps to run, about 2.5 min for 1 of them",
    ]
    whole = {**half, "load": forecast.Forecast(30.0, None, "k")}
    assert [*plan_table(steps, expected=whole)][-1] == "2 of 2 steps to run, about 3.0 min"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (9.4, "9.4 s"), (11.6, "12 s"), (150, "2.5 min"), (9000, "2.5 h")],
)
def test_a_duration_is_said_in_the_unit_that_fits(seconds, said):
    assert duration(seconds) == said
