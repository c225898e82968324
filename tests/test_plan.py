"""Keys, verdicts and reasons: what a run would do, and why."""

import json
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import (
    FakeStage,
    Options,
    borrower,
    carry_out,
    finish,
    gatherer,
    recipe,
    script,
    source,
    spoil,
    step,
)

from runner import files
from runner import plan as plans
from runner.errors import StepError
from runner.options import build
from runner.plan import Verdict, differences, plan, versions
from runner.recipe import Recipe
from runner.stage import Need, version
from runner.store import Store


def two_steps(stage: Any = None, name: str = "trial", mode: str = "note", **options: Any) -> Recipe:
    return recipe(
        step("load", stage or source(), **options),
        step("adapt", borrower(), {"text": "load"}),
        name=name,
        versions=mode,
    )


def said(what: Recipe, store: Store, **settings: Any) -> dict[str, tuple[str, str]]:
    """Verdict and reason of every step."""
    found = plan(what, store, **settings).steps
    return {planned.step.name: (str(planned.verdict), planned.reason) for planned in found}


def key(what: Recipe, store: Store, name: str = "load") -> str:
    return plan(what, store).step(name).key


def edit_record(store: Store, what: Recipe, name: str, **changes: Any) -> None:
    entry = store.entry(key(what, store, name))
    assert entry is not None
    path = entry.folder / "record.json"
    record = files.read_json(path) | changes
    del record["seal"]
    path.write_text(json.dumps(record | {"seal": files.digest_json(record)}))


def test_a_first_run_runs_everything(store: Store):
    assert said(two_steps(), store) == {
        "load": ("run", "not done before"),
        "adapt": ("run", "not done before"),
    }


def test_planning_writes_nothing_and_runs_nothing(store: Store):
    stage = source()
    plan(two_steps(stage), store)
    assert not store.root.exists()
    assert not stage.count


def test_what_is_done_is_reused_and_says_when_it_was_made(store: Store):
    carry_out(two_steps(), store)
    edit_record(store, two_steps(), "load", made="2026-01-02T03:04:05Z")
    found = plan(two_steps(), store)
    assert found.work == ()
    assert found.step("load").reason == "done 2026-01-02 03:04:05 UTC"


def test_a_changed_option_is_named_and_so_is_the_input_it_changes(store: Store):
    carry_out(two_steps(rank=8), store)
    assert said(two_steps(rank=16), store) == {
        "load": ("run", "options changed: rank 8 -> 16"),
        "adapt": ("run", "input text changed: load"),
    }


def test_many_changes_are_counted(store: Store):
    carry_out(two_steps(rank=8), store)
    found = said(two_steps(rank=16, rate=0.5), store)
    assert found["load"][1] == "options changed: rank 8 -> 16 (and 1 more)"


def test_the_reason_is_told_from_the_closest_earlier_run(store: Store):
    carry_out(two_steps(rank=8, rate=0.5), store)
    carry_out(two_steps(rank=9, rate=0.7), store)
    assert said(two_steps(rank=8, rate=0.6), store)["load"][1] == "options changed: rate 0.5 -> 0.6"


def test_a_raised_stage_version_is_named(store: Store):
    carry_out(two_steps(source(VERSION=1)), store)
    found = said(two_steps(source(VERSION=2)), store)
    assert found["load"] == ("run", "version changed: 1 -> 2")
    assert found["adapt"] == ("run", "input text changed: load")


def test_a_result_that_was_taken_away_is_missed(store: Store):
    carry_out(two_steps(), store)
    store.discard(key(two_steps(), store))
    assert said(two_steps(), store)["load"] == ("run", "done before, but no longer in the store")


def test_another_recipes_step_of_that_name_is_no_reason(store: Store):
    carry_out(two_steps(rank=8), store)
    assert said(two_steps(rank=16, name="other"), store)["load"][1] == "not done before"


def test_the_same_step_in_another_recipe_is_reused(store: Store):
    carry_out(two_steps(), store)
    assert plan(two_steps(name="other"), store).work == ()


def test_an_option_that_changes_nothing_is_not_in_the_key(store: Store):
    assert key(two_steps(workers=1), store) == key(two_steps(workers=64), store)
    assert key(two_steps(rank=1), store) != key(two_steps(rank=64), store)


def test_a_default_written_out_is_the_same_key(store: Store):
    assert key(two_steps(), store) == key(two_steps(rank=8, rate=1.0), store)


def test_a_whole_number_for_a_figure_is_the_same_key(store: Store):
    one, faults = build(Options, {"rate": 1})
    assert faults == []
    assert type(one.rate) is float
    assert key(two_steps(rate=1), store) == key(two_steps(rate=1.0), store)


def test_what_a_stage_resolves_is_in_the_key(store: Store):
    pinned = source(resolve=lambda options, locked: replace(options, rank=99))
    found = plan(two_steps(pinned, rank=1), store).step("load")
    assert found.key == key(two_steps(rank=99), store)
    assert found.step.options.rank == 99


def test_the_stages_name_is_in_the_key(store: Store):
    assert key(two_steps(source("a")), store) != key(two_steps(source("b")), store)


def judge(given: dict[str, str]) -> Recipe:
    needs = {"model": Need(kind="text"), "reference": Need(kind="text")}
    first, second = step("a", source(), rank=1), step("b", source(), rank=2)
    return recipe(first, second, step("judge", FakeStage("judge", NEEDS=needs), given))


def test_inputs_are_in_the_key_by_role(store: Store):
    straight, swapped = {"model": "a", "reference": "b"}, {"model": "b", "reference": "a"}
    assert key(judge(straight), store, "judge") != key(judge(swapped), store, "judge")
    again = dict(reversed(straight.items()))
    assert key(judge(straight), store, "judge") == key(judge(again), store, "judge")


def test_swapped_inputs_are_named(store: Store):
    carry_out(judge({"model": "a", "reference": "b"}), store)
    found = said(judge({"model": "b", "reference": "a"}), store)["judge"]
    assert found == ("run", "input model changed: b (and 1 more)")


def test_a_renamed_step_keeps_the_keys_of_the_steps_that_use_it(store: Store):
    renamed = recipe(step("base", source()), step("adapt", borrower(), {"text": "base"}))
    assert key(two_steps(), store, "adapt") == key(renamed, store, "adapt")


def test_the_steps_that_fill_a_role_of_many_are_all_in_the_key(store: Store):
    def many(*names: str) -> Recipe:
        steps = [step(name, source(), rank=place) for place, name in enumerate("ab")]
        return recipe(*steps, step("all", gatherer(), {"texts": names}))

    assert key(many("a"), store, "all") != key(many("a", "b"), store, "all")
    carry_out(many("a"), store)
    assert said(many("a", "b"), store)["all"] == ("run", "input texts changed: b")


def test_a_figure_without_a_value_is_refused_as_the_recipes_fault():
    _, faults = build(Options, {"rate": float("nan")})
    assert len(faults) == 1


def test_a_step_asked_for_afresh_runs_and_nothing_else(store: Store):
    carry_out(two_steps(), store)
    found = said(two_steps(), store, fresh={"load"})
    assert found["load"] == ("run", "asked for by --fresh")
    assert found["adapt"][0] == "reuse"


@pytest.mark.parametrize(
    ("name", "how", "reason"),
    [
        ("product/words.txt", "truncate", "words.txt has 11 bytes instead of 12"),
        ("product/words.txt", "delete", "words.txt is missing"),
        ("record.json", "delete", "its record cannot be read"),
    ],
)
def test_a_damaged_result_is_made_again_and_the_plan_says_so(
    store: Store, name: str, how: str, reason: str
):
    carry_out(two_steps(), store)
    spoil(store.entries / key(two_steps(), store) / name, how)
    found = said(two_steps(), store)
    assert found["load"] == ("run", f"the kept result is damaged: {reason}")
    assert found["adapt"][0] == "reuse"


def test_a_stale_result_is_made_again_for_its_reason(store: Store):
    carry_out(two_steps(), store)
    seen = []

    def stale(options: Any, folder: Path, facts: Any) -> str:
        seen.append((folder / "words.txt").is_file())
        return "the file it wrote is gone"

    found = said(two_steps(source(stale=stale)), store)
    assert found["load"] == ("run", "the file it wrote is gone")
    assert seen == [True]


@pytest.fixture
def other_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results are made with what `versions` says, and planned with another torch."""
    monkeypatch.setattr(plans, "LIBRARIES", ("blake3", "pytest"))
    versions.cache_clear()
    yield
    versions.cache_clear()


@pytest.mark.usefixtures("other_libraries")
def test_a_change_of_libraries_is_noted(store: Store):
    carry_out(two_steps(), store)
    assert set(versions()) == {"blake3", "pytest"}
    edit_record(store, two_steps(), "load", versions=versions() | {"blake3": "0.0.1"})
    verdict, reason = said(two_steps(), store)["load"]
    assert verdict == "reuse"
    assert reason.endswith(f", with other libraries: blake3 0.0.1 -> {versions()['blake3']}")


@pytest.mark.usefixtures("other_libraries")
def test_a_change_of_libraries_is_a_miss_where_versions_are_strict(store: Store):
    carry_out(two_steps(), store)
    edit_record(store, two_steps(), "load", versions=versions() | {"pytest": "0.0.1"})
    found = said(two_steps(mode="strict"), store)
    assert found["load"] == ("run", f"libraries changed: pytest 0.0.1 -> {versions()['pytest']}")
    assert found["adapt"][0] == "reuse"


@pytest.mark.usefixtures("other_libraries")
def test_a_library_that_the_record_does_not_name_is_no_change(store: Store):
    carry_out(two_steps(), store)
    edit_record(store, two_steps(), "load", versions={"tokenizers": "9"})
    assert plan(two_steps(mode="strict"), store).work == ()


def broken(context: Any) -> None:
    (context.draft / "half").touch()
    raise StepError("no more")


def test_what_was_begun_and_not_finished_is_resumed(store: Store):
    with pytest.raises(StepError):
        carry_out(two_steps(source(fault=broken)), store)
    assert said(two_steps(), store)["load"] == ("resume", "begun before and not finished")
    assert said(two_steps(rank=16), store)["load"][0] == "run"


def test_a_third_partys_changed_source_changes_the_key(tmp_path: Path):
    file = tmp_path / "theirs.py"
    file.write_text("VERSION = 3\n")
    theirs = types.SimpleNamespace(VERSION=3, __name__="theirs", __file__=str(file))
    before = version(theirs)
    file.write_text("VERSION = 3  # and more\n")
    assert before.startswith("3+")
    assert version(theirs).startswith("3+")
    assert version(theirs) != before
    ours = types.SimpleNamespace(VERSION=3, __name__="runner.stages.x", __file__=str(file))
    assert version(ours) == "3"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ({"schema": 1}, {"schema": 2}, ["schema changed: 1 -> 2"]),
        ({"stage": "a"}, {"stage": "b"}, ["stage changed: a -> b"]),
        (
            {"options": {"lora": {"rank": 8, "alpha": 1}}},
            {"options": {"lora": {"rank": 16, "alpha": 1}}},
            ["options changed: lora.rank 8 -> 16"],
        ),
        ({"inputs": {"text": {"a": "1"}}}, {"inputs": {}}, ["input text changed"]),
        ({"options": {"a": [1]}}, {"options": {"a": [1]}}, []),
    ],
)
def test_differences_are_said_in_words(old: Any, new: Any, said: list[str]):
    assert differences(old, new) == said


def test_a_long_value_is_shortened_in_a_reason():
    found = differences({"options": {"text": "a" * 99}}, {"options": {"text": "b"}})
    assert found == [f"options changed: text {'a' * 18}...{'a' * 18} -> b"]


@pytest.mark.parametrize(
    ("old", "new"), [({"a": False}, {"a": 0}), ({"a": 1}, {"a": 1.0}), ({}, {"a": None})]
)
def test_whatever_changes_the_key_is_a_difference(old: Any, new: Any):
    assert files.digest_json(old) != files.digest_json(new)
    assert differences({"options": old}, {"options": new})


def test_planning_and_running_what_is_done_loads_no_heavy_library(tmp_path: Path):
    arguments = "run", tmp_path / "store", tmp_path / "log", 0
    assert set(finish(script(*arguments))["verdicts"].values()) == {"run"}
    again = finish(script(*arguments))
    assert set(again["verdicts"].values()) == {"reuse"}
    assert again["heavy"] == []


def test_a_plan_says_what_a_run_then_does(store: Store):
    carry_out(two_steps(), store)
    with pytest.raises(StepError):
        carry_out(two_steps(source(fault=broken), rank=9), store)
    for options, verdict in ({"rank": 8}, Verdict.REUSE), ({"rank": 9}, Verdict.RESUME):
        ran = carry_out(two_steps(**options), store)
        assert ran.plan.step("load").verdict is verdict
        assert [(o.verdict, o.reason) for o in ran.outcomes] == [
            (p.verdict, p.reason) for p in ran.plan.steps
        ]
