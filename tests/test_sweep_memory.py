"""What a worker holds in memory between steps never changes what a step gives."""

import pytest
from fakes import WORDS, borrower, carry_out, consumer, recipe, source, spoil, step

from runner.errors import StepError
from runner.execute import Memory, execute_last
from runner.plan import Verdict, plan_last
from runner.store import Store


def none():
    return None


def made(what, store, memory):
    return execute_last(plan_last(what, store), store, lambda event: None, none, None, memory)


def words(outcome):
    return (outcome.entry.product / WORDS).read_text().split()


def chain(**stages):
    """first, then second (changes first) or third (reads first), whatever is asked for."""
    found = {"first": source("first"), "second": consumer("second"), "third": borrower("third")}
    found |= stages

    def upto(name, **options):
        steps = [step("first", found["first"])]
        if name != "first":
            steps.append(step(name, found[name], {"text": "first"}, **options))
        return recipe(*steps)

    return upto, found


def test_what_is_in_memory_is_used_and_not_read_again(store):
    upto, stages = chain()
    memory = Memory()
    made(upto("first"), store, memory)
    for rank in (1, 2, 3):
        made(upto("third", rank=rank), store, memory)
    assert stages["first"].count == {"run": 1, "save": 1}


def test_a_product_that_was_changed_is_nobody_elses(store):
    upto, stages = chain()
    memory = Memory()
    first = made(upto("first"), store, memory)
    made(upto("second"), store, memory)
    assert first.planned.key not in memory.products
    assert words(made(upto("third"), store, memory)) == ["first:8:1.0", "third:8:1.0"]
    assert stages["first"].count["restore"] == 1


def test_two_names_of_one_result_are_not_changed_for_one_another(store):
    same = source("same")
    steps = [step("one", same), step("two", same)]
    end = step("end", borrower("end"), {"text": "two"})
    change = step("change", consumer("change"), {"text": "one"})
    memory = Memory()
    for what in ([steps[0]], steps, [*steps, change], [*steps, end]):
        last = made(recipe(*what), store, memory)
    assert words(last) == ["same:8:1.0", "end:8:1.0"]
    alone = carry_out(recipe(*steps, change, end), Store(store.root / "other"))
    assert alone.digests["end"] == last.entry.digest


def test_after_a_failure_nothing_stays_in_memory(store):
    def half(context):
        raise StepError("it does not work.")

    upto, _ = chain(third=borrower("third", fault=half))
    memory = Memory()
    made(upto("first"), store, memory)
    with pytest.raises(StepError, match="third: it does not work"):
        made(upto("third"), store, memory)
    assert memory.products == {}


def test_an_input_that_changed_on_disk_while_it_was_in_use_spoils_the_step(store):
    upto, _ = chain()
    memory = Memory()
    first = made(upto("first"), store, memory)
    memory.keep(())
    made(upto("third", rank=1), store, memory)  # reads first from the store
    spoil(first.entry.product / WORDS, "flip")
    with pytest.raises(StepError, match="its input first changed while it ran"):
        made(upto("third", rank=2), store, memory)


def test_what_is_not_wanted_is_let_go(store):
    upto, _ = chain()
    memory = Memory()
    first = made(upto("first"), store, memory)
    third = made(upto("third"), store, memory)
    assert {*memory.products} == {first.planned.key, third.planned.key}
    memory.keep([first.planned.key])
    assert {*memory.products} == {first.planned.key}


def test_a_step_that_somebody_made_meanwhile_is_reused(store):
    upto, stages = chain()
    planned = plan_last(upto("first"), store)
    made(upto("first"), store, Memory())
    outcome = execute_last(planned, store, lambda event: None, none, None, Memory())
    assert outcome.verdict is Verdict.REUSE
    assert stages["first"].count["run"] == 1


def test_a_result_that_is_gone_is_made_again_on_the_way(store):
    upto, stages = chain()
    first = made(upto("first"), store, Memory())
    store.discard(first.planned.key)
    assert words(made(upto("third"), store, Memory())) == ["first:8:1.0", "third:8:1.0"]
    assert stages["first"].count["run"] == 2
