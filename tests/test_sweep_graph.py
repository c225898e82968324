"""Which step of a sweep may be made, and which one next."""

from random import Random

import pytest
from fakes import borrower, consumer, source

from runner.sweep.graph import Graph
from runner.sweep.manifest import Job, Manifest, Row
from runner.sweep.settings import Sweep

STAGES = {"source": source(), "borrower": borrower(), "consumer": consumer()}


def manifest(*jobs):
    """Jobs as lists of (key, stage, key of what it takes in); a step is named by its key."""
    rows, numbers, made = [], {}, []
    for number, job in enumerate(jobs):
        chosen = []
        for key, stage, giver in job:
            if key not in numbers:
                numbers[key] = len(rows)
                rows.append(Row(key, stage, {}, {"text": (giver,)} if giver else {}, key))
            chosen.append(numbers[key])
        made.append(Job(f"{number}", (), tuple(chosen)))
    return Manifest("r", None, (), Sweep(), (), None, "note", tuple(rows), tuple(made))


START = ("start", "source", None)
MODEL = ("model", "consumer", "start")
TOLD = [(f"told{n}", "borrower", "model") for n in range(3)]
SMALL = [(f"small{n}", "consumer", "model") for n in range(2)]
WHOLE = manifest(*([START, MODEL, told, small] for told in TOLD for small in SMALL))


def graph(whole=WHOLE, done=()):
    return Graph(whole, STAGES, done)


def worked_off(made):
    """The order in which one worker works that holds what it made and borrowed last."""
    order, held = [], ()
    while key := made.choose(held):
        order.append(key)
        made.finish(key)
        held = {key, *(giver for giver, consumes in made.inputs[key].items() if not consumes)}
    return order


def test_a_step_is_ready_once_all_that_it_builds_on_is_done():
    made = graph()
    assert made.ready == {"start"}
    assert made.choose(()) == "start"
    assert made.choose(()) is None
    made.finish("start")
    assert made.ready == {"model"}


def test_those_that_borrow_a_product_come_before_the_one_that_changes_it():
    assert worked_off(graph()) == [
        *("start", "model", "told0", "told1", "told2"),
        *("small0", "small1"),
    ]


def test_every_step_is_given_out_once():
    order = worked_off(graph())
    assert len(order) == len({*order}) == 7


def test_what_is_done_is_not_made_again():
    assert worked_off(graph(done={"start", "model", "told1"})) == [
        *("told0", "told2", "small0", "small1")
    ]


def test_a_result_whose_own_source_is_gone_waits_for_that():
    made = graph(done={"model"})
    assert made.ready == {"start"}
    made.choose(())
    made.finish("start")
    assert made.ready == {"told0", "told1", "told2", "small0", "small1"}


def test_a_worker_leaves_what_another_holds_to_that_one_while_there_is_other_work():
    two = manifest(
        [START, ("a", "borrower", "start"), ("a1", "borrower", "a"), ("a2", "borrower", "a")],
        [START, ("b", "borrower", "start"), ("b1", "borrower", "b")],
    )
    made = graph(two, done={"start", "a", "b"})
    assert made.choose((), elsewhere={"a"}) == "b1"
    assert made.choose((), elsewhere={"a"}) == "a1"


def test_what_builds_on_a_failure_is_lost_and_the_rest_is_not():
    side = ("side", "borrower", "start")
    other = manifest([START, MODEL, TOLD[0], ("end", "borrower", "told0")], [START, side])
    made = graph(other, done={"start"})
    assert made.choose(()) == "model"
    made.fail("model")
    assert made.lost == {"model", "told0", "end"}
    assert made.ready == made.open == {"side"}


def test_what_was_given_back_is_given_out_again():
    made = graph()
    assert made.choose(()) == "start"
    made.give_back("start")
    assert made.choose(()) == "start"


def test_a_worker_keeps_what_its_job_still_takes_in_and_nothing_else():
    made = graph(done={"start", "model"})
    assert made.wanted("told0") == {"model"}
    assert made.wanted("small1") == {"model"}
    assert graph().wanted("start") == {"start", "model"}
    assert graph(done={"start", "model", "told0", "small0"}).wanted("told1") == {"model"}


def random_jobs(draw):
    """Chains of steps that share their beginnings."""
    pool, jobs = [("k", "source", None)], []
    for _ in range(draw.randint(1, 5)):
        job = [pool[0]]
        for _ in range(draw.randint(1, 4)):
            again = [each for each in pool if each[2] == job[-1][0]]
            if not again or draw.random() < 0.5:
                stage = draw.choice(["borrower", "consumer"])
                pool.append((f"k{len(pool)}", stage, job[-1][0]))
                again = [pool[-1]]
            job.append(draw.choice(again))
        jobs.append(job)
    return jobs


@pytest.mark.parametrize("seed", range(60))
def test_workers_in_any_order_make_every_step_once_after_its_inputs(seed):
    draw = Random(seed)
    whole = manifest(*random_jobs(draw))
    done = {key for key in whole.keys if draw.random() < 0.2}
    made, begun, ended, working = graph(whole, done), [], {*done}, []
    while made.ready or working:
        held = {key for key in ended if draw.random() < 0.3}
        if draw.random() < 0.5 and (key := made.choose(held, ended - held)):
            assert {*made.inputs[key]} <= ended
            begun.append(key)
            working.append(key)
        elif working:
            key = working.pop(draw.randrange(len(working)))
            if draw.random() < 0.2:
                begun.remove(key)
                made.give_back(key)
            else:
                made.finish(key)
                ended.add(key)
    assert sorted(begun) == sorted({*whole.keys} - done)
    assert ended == {*whole.keys}
