"""The loop that runs a plan: what runs, what is restored, and what survives any sudden end."""

import errno
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fakes import (
    FakeStage,
    Ran,
    WithPart,
    Words,
    borrower,
    carry_out,
    consumer,
    end,
    finish,
    gatherer,
    lines,
    notes,
    recipe,
    script,
    source,
    spoil,
    step,
    three_steps,
    words,
)

from runner import lease as leases
from runner import upkeep
from runner.errors import StepError, Stopped, StoreError
from runner.events import Finished, Measured, Progressed, Started
from runner.execute import execute
from runner.plan import Verdict, plan
from runner.recipe import Recipe
from runner.stage import Need
from runner.store import Store

REUSE, RESUME, RUN = Verdict.REUSE, Verdict.RESUME, Verdict.RUN


class Chain:
    """load -> adapt -> generate, and a side step that only load feeds; stages as given."""

    def __init__(self, **stages: FakeStage) -> None:
        self.load = stages.get("load", source("load"))
        self.adapt = stages.get("adapt", borrower("adapt"))
        self.side = stages.get("side", borrower("side"))
        self.generate = stages.get("generate", borrower("generate"))

    def recipe(self, **options: dict[str, Any]) -> Recipe:
        return recipe(
            step("load", self.load, **options.get("load", {})),
            step("adapt", self.adapt, {"text": "load"}, **options.get("adapt", {})),
            step("side", self.side, {"text": "load"}, **options.get("side", {})),
            step("generate", self.generate, {"text": "adapt"}, **options.get("generate", {})),
        )

    def counts(self, what: str) -> list[int]:
        stages = self.load, self.adapt, self.side, self.generate
        return [stage.count[what] for stage in stages]


def fail(context: Any) -> None:
    raise StepError("the data has no rows", "Give it some.")


def kinds(ran: Ran) -> list[str]:
    return [type(event).__name__ for event in ran.events]


def test_a_first_run_runs_every_step_once_and_restores_nothing(store: Store):
    chain = Chain()
    ran = carry_out(chain.recipe(), store)
    assert ran.verdicts == dict.fromkeys(("load", "adapt", "side", "generate"), RUN)
    assert chain.counts("run") == [1, 1, 1, 1]
    assert chain.counts("restore") == [0, 0, 0, 0]
    assert words(store, ran.plan, "generate") == ["load:8:1.0", "adapt:8:1.0", "generate:8:1.0"]


def test_a_second_execution_runs_nothing_and_restores_nothing(store: Store):
    first = carry_out(Chain().recipe(), store)
    chain = Chain()
    second = carry_out(chain.recipe(), store)
    assert set(second.verdicts.values()) == {REUSE}
    assert chain.counts("run") == chain.counts("restore") == [0, 0, 0, 0]
    assert second.digests == first.digests
    assert kinds(second) == ["Finished"] * 4


def test_a_changed_option_reruns_that_step_and_its_dependents_only(store: Store):
    carry_out(Chain().recipe(), store)
    chain = Chain()
    ran = carry_out(chain.recipe(adapt={"rank": 16}), store)
    assert ran.verdicts == {"load": REUSE, "adapt": RUN, "side": REUSE, "generate": RUN}
    assert chain.counts("run") == [0, 1, 0, 1]
    assert words(store, ran.plan, "generate") == ["load:8:1.0", "adapt:16:1.0", "generate:8:1.0"]


def test_an_option_set_back_runs_nothing(store: Store):
    carry_out(Chain().recipe(), store)
    carry_out(Chain().recipe(adapt={"rank": 16}), store)
    chain = Chain()
    carry_out(chain.recipe(), store)
    assert chain.counts("run") == [0, 0, 0, 0]


def test_only_products_that_a_running_step_asks_for_are_restored(store: Store):
    carry_out(Chain().recipe(), store)
    chain = Chain()
    carry_out(chain.recipe(generate={"rank": 16}), store)
    assert chain.counts("run") == [0, 0, 0, 1]
    assert chain.counts("restore") == [0, 1, 0, 0]


def test_a_product_is_restored_once_for_many_borrowers(store: Store):
    carry_out(Chain().recipe(), store)
    chain = Chain()
    carry_out(chain.recipe(adapt={"rank": 16}, side={"rank": 16}), store)
    assert chain.counts("restore") == [1, 0, 0, 0]


def test_a_step_that_asks_for_none_of_its_inputs_restores_none(store: Store):
    carry_out(Chain().recipe(), store)

    class Silent(FakeStage):
        def run(self, options: Any, inputs: Any, context: Any) -> Any:
            return super().run(options, {}, context)

    silent = Silent("generate", NEEDS=borrower().NEEDS)
    chain = Chain(generate=silent)
    carry_out(chain.recipe(generate={"rank": 16}), store)
    assert chain.counts("restore") == [0, 0, 0, 0]


@pytest.mark.parametrize("make", [borrower, consumer])
def test_to_ask_whether_a_role_is_filled_restores_nothing(store: Store, make: Any):
    class Asking(FakeStage):
        def run(self, options: Any, inputs: Any, context: Any) -> Any:
            assert "text" in inputs
            assert "model" not in inputs
            return super().run(options, {}, context)

    carry_out(Chain().recipe(), store)
    chain = Chain(generate=Asking("generate", NEEDS=make().NEEDS))
    carry_out(chain.recipe(generate={"rank": 16}), store)
    assert chain.counts("restore") == [0, 0, 0, 0]


def test_a_restore_may_ask_for_its_own_inputs(store: Store):
    class Delta(FakeStage):
        def restore(self, folder: Path, inputs: Any) -> Any:
            assert list(inputs) == ["text"]
            assert len(inputs) == 1
            assert inputs["text"].words == ["load:8:1.0"]
            return super().restore(folder, inputs)

    def chain() -> Chain:
        return Chain(adapt=Delta("adapt", NEEDS={"text": Need(kind="text", consumes=True)}))

    carry_out(chain().recipe(), store)
    again = chain()
    carry_out(again.recipe(generate={"rank": 16}), store)
    assert again.counts("run") == [0, 0, 0, 1]
    assert again.counts("restore") == [1, 1, 0, 0]


def test_a_consumed_product_is_restored_for_a_later_user(store: Store):
    chain = Chain(adapt=consumer("adapt"))
    ran = carry_out(chain.recipe(), store)
    assert chain.side.given == [{"text": ["load:8:1.0"]}]
    assert words(store, ran.plan, "adapt") == ["load:8:1.0", "adapt:8:1.0"]
    assert chain.counts("restore") == [1, 0, 0, 0]


def test_a_borrowed_product_stays_in_memory_for_a_later_user(store: Store):
    chain = Chain()
    carry_out(chain.recipe(), store)
    assert chain.side.given == [{"text": ["load:8:1.0"]}]
    assert chain.counts("restore") == [0, 0, 0, 0]


def test_a_product_that_is_not_held_is_what_its_restore_gives(store: Store):
    class Rounded(FakeStage):
        def restore(self, folder: Path, inputs: Any) -> Any:
            product = super().restore(folder, inputs)
            product.words = ["rounded"]
            return product

    chain = Chain(adapt=Rounded("adapt", NEEDS={"text": Need(kind="text")}, HOLDS=False))
    carry_out(chain.recipe(), store)
    assert chain.generate.given == [{"text": ["rounded"]}]
    assert chain.counts("restore") == [0, 1, 0, 0]


def test_a_role_of_many_gets_every_product_by_its_steps_name(store: Store):
    gather = gatherer()
    names = "a", "b", "c"
    steps = [step(name, source(), rank=place) for place, name in enumerate(names)]
    carry_out(recipe(*steps, step("all", gather, {"texts": names})), store)
    given = gather.given[0]["texts"]
    assert given == {"a": ["source:0:1.0"], "b": ["source:1:1.0"], "c": ["source:2:1.0"]}
    assert list(given) == ["a", "b", "c"]


def test_a_role_that_is_not_filled_is_absent(store: Store):
    alone = borrower("alone", NEEDS={"text": Need(kind="text", optional=True)})
    carry_out(recipe(step("alone", alone)), store)
    assert alone.given == [{}]


def test_two_steps_of_one_key_run_once(store: Store):
    stage = source()
    ran = carry_out(recipe(step("before", stage), step("after", stage)), store)
    assert stage.count["run"] == 1
    assert ran.verdicts == {"before": RUN, "after": REUSE}


@pytest.mark.parametrize("holds", [True, False])
@pytest.mark.parametrize("make", [borrower, consumer])
def test_the_result_is_the_same_from_memory_and_from_the_store(
    tmp_path: Path, make: Any, holds: bool
):
    def chain(**options: Any) -> Recipe:
        return Chain(load=source("load", HOLDS=holds), adapt=make("adapt")).recipe(**options)

    in_memory = carry_out(chain(), Store(tmp_path / "one"))
    store = Store(tmp_path / "two")
    for name in ("load", "adapt", "side"):
        interrupted = chain()
        stage = interrupted.step({"load": "adapt", "adapt": "side", "side": "generate"}[name]).stage
        stage.fault = fail
        with pytest.raises(StepError):
            carry_out(interrupted, store)
    from_store = carry_out(chain(), store)
    assert from_store.digests == in_memory.digests


def test_a_result_that_was_damaged_is_made_again_before_it_is_used(store: Store):
    first = carry_out(Chain().recipe(), store)
    spoil(first.outcomes[1].entry.product / "words.txt", "flip")
    chain = Chain()
    ran = carry_out(chain.recipe(generate={"rank": 16}), store)
    assert ran.notes == [
        "the kept result is damaged (words.txt has other bytes than were written): made again"
    ]
    assert chain.counts("run") == [0, 1, 0, 1]
    assert ran.digests["adapt"] == first.digests["adapt"]
    assert chain.generate.given == [{"text": ["load:8:1.0", "adapt:8:1.0"]}]
    entry = store.entry(ran.plan.step("adapt").key)
    assert entry is not None
    assert entry.damage() is None


def test_a_step_that_was_made_again_is_not_reported_as_reused(store: Store):
    first = carry_out(Chain().recipe(), store)
    spoil(first.outcomes[1].entry.product / "words.txt", "flip")
    assert carry_out(Chain().recipe(generate={"rank": 16}), store).verdicts["adapt"] is RUN


def test_every_damaged_result_below_a_damaged_one_is_made_again(store: Store):
    first = carry_out(Chain().recipe(), store)
    for outcome in first.outcomes[:2]:
        spoil(outcome.entry.product / "words.txt", "flip")
    chain = Chain(adapt=consumer("adapt"))
    ran = carry_out(chain.recipe(generate={"rank": 16}, side={"rank": 16}), store)
    assert len(ran.notes) == 2
    assert chain.counts("run") == [1, 1, 1, 1]
    assert ran.digests["load"] == first.digests["load"]
    assert chain.side.given == [{"text": ["load:8:1.0"]}]


def test_a_result_that_goes_between_plan_and_run_is_made_again(store: Store):
    carry_out(Chain().recipe(), store)
    chain = Chain()
    planned = plan(chain.recipe(), store)
    store.discard(planned.step("adapt").key)
    execute(planned, store, lambda event: None, lambda: None)
    assert chain.counts("run") == [0, 1, 0, 0]


def test_a_result_that_comes_between_plan_and_run_is_used(store: Store):
    chain = Chain()
    planned = plan(chain.recipe(), store)
    carry_out(Chain().recipe(), store)
    outcomes = execute(planned, store, lambda event: None, lambda: None)
    assert chain.counts("run") == [0, 0, 0, 0]
    assert {outcome.reason for outcome in outcomes} == {"made by another run meanwhile"}


def test_a_step_asked_for_afresh_replaces_its_result(store: Store):
    first = carry_out(Chain().recipe(), store)
    chain = Chain()
    ran = carry_out(chain.recipe(), store, fresh={"adapt"})
    assert chain.counts("run") == [0, 1, 0, 0]
    assert ran.outcomes[1].entry.record["id"] != first.outcomes[1].entry.record["id"]
    assert ran.digests == first.digests


def test_a_step_asked_for_afresh_does_not_go_on_from_a_draft(store: Store):
    what = recipe(step("load", source("load"), rounds=3))
    with pytest.raises(Stopped):
        carry_out(what, store, stop_signal=after(2))
    assert plan(what, store).step("load").verdict is RESUME
    stage = source("load")
    carry_out(recipe(step("load", stage, rounds=3)), store, fresh={"load"})
    assert stage.count["round"] == 3


def test_a_fresh_run_that_fails_leaves_the_kept_result(store: Store):
    first = carry_out(Chain().recipe(), store)
    with pytest.raises(StepError):
        carry_out(Chain(adapt=borrower("adapt", fault=fail)).recipe(), store, fresh={"adapt"})
    assert store.entry(first.plan.step("adapt").key) is not None


def test_a_step_that_fails_is_named_and_leaves_the_earlier_ones(store: Store):
    chain = Chain(side=borrower("side", fault=fail))
    with pytest.raises(StepError) as caught:
        carry_out(chain.recipe(), store)
    assert str(caught.value) == "side: the data has no rows\n  Give it some."
    assert caught.value.exit_code == 1
    healthy = Chain()
    ran = carry_out(healthy.recipe(), store)
    assert healthy.counts("run") == [0, 0, 1, 1]
    assert ran.verdicts["adapt"] is REUSE


def test_a_step_that_failed_holds_no_lease(store: Store):
    planned = plan(Chain().recipe(), store)
    with pytest.raises(StepError):
        carry_out(Chain(load=source("load", fault=fail)).recipe(), store)
    assert not store.in_work(planned.step("load").key)


def test_a_full_disk_ends_the_run_and_a_later_one_goes_on(store: Store):
    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    chain = Chain(adapt=borrower("adapt", save_fault=full))
    with pytest.raises(StoreError, match="No space left"):
        carry_out(chain.recipe(), store)
    assert len(list(store.entries.iterdir())) == 1
    healthy = Chain()
    ran = carry_out(healthy.recipe(), store)
    assert healthy.counts("run") == [0, 1, 1, 1]
    assert ran.verdicts["adapt"] is RESUME


def test_a_checkpoint_that_finds_the_disk_full_is_a_store_error(store: Store):
    def full(context: Any) -> None:
        context.checkpoint.folder.touch()  # a file in the place of the folder: nothing fits

    with pytest.raises(StoreError):
        carry_out(recipe(step("load", source("load", fault=full), rounds=1)), store)


def after(calls: int, name: str = "SIGTERM") -> Any:
    """A signal that comes after it was asked for `calls` times."""
    asked = []

    def signal_name() -> str | None:
        asked.append(1)
        return name if len(asked) > calls else None

    return signal_name


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 75), ("SIGUSR1", 75), ("SIGINT", 130)])
def test_a_signal_between_steps_stops_the_run(store: Store, name: str, code: int):
    chain = Chain()
    with pytest.raises(Stopped) as caught:
        carry_out(chain.recipe(), store, stop_signal=after(2, name))
    assert caught.value.exit_code == code
    assert name in str(caught.value)
    assert chain.counts("run") == [1, 1, 0, 0]
    healthy = Chain()
    carry_out(healthy.recipe(), store)
    assert healthy.counts("run") == [0, 0, 1, 1]


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 75), ("SIGINT", 130)])
def test_a_signal_within_a_step_stops_it_at_its_checkpoint(store: Store, name: str, code: int):
    stage = source("load")
    what = recipe(step("load", stage, rounds=5))
    with pytest.raises(Stopped) as caught:
        carry_out(what, store, stop_signal=after(3, name))
    assert caught.value.exit_code == code
    assert stage.count["round"] == 3
    planned = plan(what, store).step("load")
    assert planned.verdict is RESUME
    assert not store.in_work(planned.key)


def test_a_stopped_step_goes_on_from_its_checkpoint(tmp_path: Path, store: Store):
    right = carry_out(recipe(step("load", source("load"), rounds=5)), Store(tmp_path / "other"))
    stage = source("load")
    what = recipe(step("load", stage, rounds=5))
    for _ in range(2):
        with pytest.raises(Stopped):
            carry_out(what, store, stop_signal=after(2))
    ran = carry_out(what, store)
    assert stage.count["from"] == 2
    assert stage.count["round"] == 5
    assert ran.verdicts == {"load": RESUME}
    assert ran.digests == right.digests
    assert list(store.drafts.iterdir()) == []


def test_a_damaged_checkpoint_falls_back_to_the_one_before_aloud(store: Store):
    stage = source("load")
    what = recipe(step("load", stage, rounds=5))
    with pytest.raises(Stopped):
        carry_out(what, store, stop_signal=after(4))
    newest = sorted(store.drafts.glob("*/checkpoints/*"))[-1]
    spoil(newest / "words.txt", "flip")
    ran = carry_out(what, store)
    assert len(ran.notes) == 1
    assert ran.notes[0].startswith("checkpoint 4 is damaged")
    assert stage.count["round"] == 4 + 2


def test_a_checkpoint_of_other_options_is_never_taken(store: Store):
    with pytest.raises(Stopped):
        carry_out(recipe(step("load", source("load"), rounds=5)), store, stop_signal=after(2))
    stage = source("load")
    ran = carry_out(recipe(step("load", stage, rounds=5, rank=16)), store)
    assert stage.count["from"] == 0
    assert stage.count["round"] == 5
    assert ran.verdicts == {"load": RUN}


def test_what_a_run_tells(store: Store):
    ran = carry_out(recipe(step("load", source("load"), rounds=2)), store)
    expected = [Started, Progressed, Progressed, Measured, Finished]
    assert [type(event) for event in ran.events] == expected
    progressed = ran.events[2]
    assert isinstance(progressed, Progressed)
    assert (progressed.step, progressed.done, progressed.total) == ("load", 2, 2)
    assert ran.outcomes[0].entry.record["facts"] == {"words": 3}
    assert ran.outcomes[0].entry.record["parts"] == ran.plan.step("load").parts


def test_a_product_that_nobody_will_ask_for_is_let_go(store: Store):
    import weakref

    class Watched(FakeStage):
        def run(self, options: Any, inputs: Any, context: Any) -> Any:
            product = super().run(options, inputs, context)
            alive.append(weakref.ref(product))
            return product

    alive: list[Any] = []
    seen: list[bool] = []
    last = borrower("generate", fault=lambda context: seen.append(alive[0]() is not None))
    carry_out(Chain(load=Watched("load"), generate=last).recipe(), store)
    assert seen == [False]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "POLL", 0.02)


@pytest.mark.usefixtures("quick")
def test_a_signal_ends_the_wait_for_another_run(store: Store):
    what, ended, events = recipe(step("load", source("load"))), threading.Event(), []

    def wait() -> None:
        with suppress(Stopped):
            carry_out(what, store, stop_signal=after(1), events=events)
        ended.set()

    with store.lease(plan(what, store).step("load").key, print):
        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        in_time = ended.wait(2)
    thread.join()
    assert any("waiting for process" in text for text in notes(events))
    assert in_time


def test_two_processes_that_race_for_a_step_run_it_once(tmp_path: Path):
    store, log = tmp_path / "store", tmp_path / "log"
    racers = [script("run", store, log, 0.1) for _ in range(2)]
    one, two = (finish(racer) for racer in racers)
    ran = [line for line in lines(log) if line.endswith(" run")]
    assert sorted(ran) == ["first run", "second run", "third run"]
    assert one["digests"] == two["digests"]
    said = one["notes"] + two["notes"]
    assert any(text.startswith("waiting for process ") for text in said)


def wait_for(log: Path, count: int) -> None:
    """Until the stages have logged that many lines."""
    deadline = time.monotonic() + 20
    while len(lines(log)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def committed(root: Path) -> list[str]:
    """Which of the three steps are in the store."""
    store = Store(root)
    return [p.step.name for p in plan(three_steps(), store).steps if store.entry(p.key)]


@pytest.mark.parametrize("moments", [[1], [2], [4], [6], [8], [9], [12], [1, 3, 4, 7, 8, 11, 12]])
def test_a_run_killed_at_any_moment_ends_as_an_undisturbed_one(tmp_path: Path, moments: list[int]):
    right = carry_out(three_steps(), Store(tmp_path / "undisturbed")).digests
    store, log, done = tmp_path / "store", tmp_path / "log", []
    for lines_so_far in moments:  # of 12 or more: each step says that it runs, and three rounds
        process = script("run", store, log, 0.05)
        wait_for(log, lines_so_far)
        time.sleep(0.01 * (lines_so_far % 4))
        end(process)
        done.append((committed(store), len(lines(log))))
    again = finish(script("run", store, log, 0))
    assert again["digests"] == right
    for names, place in done:
        assert not [name for name in names if f"{name} run" in lines(log)[place:]]
    rounds = [line for line in lines(log) if "round" in line]
    assert len({*rounds}) == 9
    assert len(rounds) <= 9 + len(moments)  # a kill costs at most the round that it hits


def test_a_run_that_dies_at_any_store_call_ends_as_an_undisturbed_one(tmp_path: Path):
    stride = 4
    processes = [
        script("die-everywhere", tmp_path / "stores", begin, stride)
        for begin in range(1, stride + 1)
    ]
    said = [finish(process, timeout=120) for process in processes]
    assert [each["wrong"] for each in said] == [[]] * stride
    calls = [call for each in said for call in each["calls"]]
    assert len(calls) > 100
    assert {"os.rename", "os.replace", "runner.files.sync", "runner.files.write_json"} <= {*calls}


def test_what_a_step_has_borrowed_is_not_consumed_under_its_hands(store: Store):
    """The second input is damaged, and to make it again consumes the first one."""

    class Both(FakeStage):
        def run(self, options: Any, inputs: Any, context: Any) -> Any:
            first, second = inputs["left"], inputs["right"]
            self.seen = (list(first.words), list(second.words))
            return Words([*first.words, *second.words])

    needs = {"left": Need(kind="text"), "right": Need(kind="text")}

    def chain(rank: int) -> tuple[FakeStage, Recipe]:
        both = Both("both", NEEDS=needs)
        return both, recipe(
            step("load", source()),
            step("change", consumer(), {"text": ("load",)}),
            step("both", both, {"left": ("load",), "right": ("change",)}, rank=rank),
        )

    both, what = chain(1)
    first = carry_out(what, store)
    expected = both.seen
    spoil(first.outcomes[1].entry.product / "words.txt", "flip")
    both, what = chain(2)
    carry_out(what, store)
    assert both.seen == expected


# --- inputs that change under a step's hands


def spoiling(store: Store, name: str, how: str) -> Recipe:
    """first -> second, and while second runs, first's file is spoilt (and second keeps on)."""

    def act(context: Any) -> None:
        key = plan(what, store).step("first").key
        for path in (store.entries / key / "product").rglob(name):
            spoil(path, how)

    second = borrower("second", fault=act)
    what = recipe(
        step("first", source("first", HOLDS=False)),
        step("second", second, {"text": "first"}, rounds=1),
    )
    return what


@pytest.mark.parametrize("how", ["flip", "truncate", "delete"])
def test_a_step_whose_input_changed_while_it_ran_counts_for_nothing(store, how):
    what = spoiling(store, "words.txt", how)
    with pytest.raises(StepError, match=r"^second: its input first changed while it ran: words"):
        carry_out(what, store)
    key = plan(what, store).step("second").key
    assert store.entry(key) is None
    assert not store.has_draft(key)
    what.steps[1].stage.fault = lambda context: None
    ran = carry_out(what, store)
    assert set(ran.verdicts.values()) == {Verdict.RUN}
    assert words(store, ran.plan, "second") == ["first:8:1.0", "second:8:1.0", "second.1"]


def test_an_input_that_was_only_touched_is_no_change(store):
    def touch(context: Any) -> None:
        key = plan(what, store).step("first").key
        os.utime(store.entries / key / "product" / "words.txt")

    what = recipe(
        step("first", source("first", HOLDS=False)),
        step("second", borrower("second", fault=touch), {"text": "first"}),
    )
    assert set(carry_out(what, store).verdicts.values()) == {Verdict.RUN}


# --- sources, side by side


def test_sources_are_brought_side_by_side(store):
    together = threading.Barrier(2, timeout=10)
    bring = {"PARTS": True, "HOLDS": False, "fault": lambda context: together.wait()}
    what = recipe(
        step("fetch.a", source("a", **bring)),
        step("fetch.b", source("b", **bring)),
        step("use", gatherer("use"), {"texts": ("fetch.a", "fetch.b")}),
    )
    ran = carry_out(what, store)
    assert words(store, ran.plan, "use") == ["a:8:1.0", "b:8:1.0", "use:8:1.0"]
    assert [o.planned.step.name for o in ran.outcomes] == ["fetch.a", "fetch.b", "use"]
    assert set(carry_out(what, store).verdicts.values()) == {REUSE}


def test_where_one_source_fails_the_others_stop_and_keep_what_they_have(store):
    begun = threading.Event()

    def fail(context: Any) -> None:
        assert begun.wait(10)
        raise StepError("it is not there.")

    slow = source("slow", PARTS=True, fault=lambda context: begun.set())
    what = recipe(
        step("fetch.bad", source("bad", PARTS=True, fault=fail)),
        step("fetch.slow", slow, rounds=1000, pause=0.01),
    )
    with pytest.raises(StepError, match=r"^fetch\.bad: it is not there\.$"):
        carry_out(what, store)
    assert 0 < slow.count["round"] < 1000
    assert plan(what, store).step("fetch.slow").verdict is RESUME


# --- parts of a step's work


def with_part(use: WithPart, **options: Any) -> Recipe:
    return recipe(step("first", source("first")), step("use", use, {"text": "first"}, **options))


@pytest.fixture
def use() -> WithPart:
    return WithPart("use", {"text": Need(kind="text")})


def test_a_part_is_kept_for_other_options_and_made_for_its_own(use, store):
    carry_out(with_part(use), store)
    ran = carry_out(with_part(use, rank=9), store)
    assert use.count["part"] == 1
    assert words(store, ran.plan, "use") == ["first:8:1.0", "9"]
    carry_out(with_part(use, rank=9, rate=2.0), store)
    assert use.count["part"] == 2
    assert not upkeep.garbage(store, 3, drafts=True).entries


def test_a_part_that_was_broken_off_goes_on_from_what_is_there(use, store):
    def stop(context: Any) -> None:
        raise Stopped("SIGTERM")

    use.fault = stop
    with pytest.raises(Stopped):
        carry_out(with_part(use), store)
    use.fault = lambda context: None
    carry_out(with_part(use), store)
    assert use.count["kept"] == 3
    assert sorted(path.name for path in use.folder.iterdir()) == [
        *("0.txt", "1.txt", "2.txt"),
        "all.txt",
    ]


def test_a_damaged_part_is_made_again(use, store):
    carry_out(with_part(use), store)
    spoil(use.folder / "all.txt", "flip")
    ran = carry_out(with_part(use, rank=9), store)
    assert use.count["part"] == 2
    assert words(store, ran.plan, "use") == ["first:8:1.0", "9"]


def test_no_collection_takes_a_part_that_is_in_use(use, store):
    def collect(context: Any) -> None:
        upkeep.delete(store, upkeep.garbage(store, 0, drafts=True))

    real = use.run

    def run(options: Any, inputs: Any, context: Any) -> Words:
        product = real(options, inputs, context)
        collect(context)
        assert (use.folder / "all.txt").exists()
        return product

    use.run = run
    carry_out(with_part(use), store)
