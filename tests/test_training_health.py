"""What a training does where memory, the loss or a gradient fails it."""

import math
from dataclasses import replace

import pytest
import torch
from lessons import OPTIONS, Lesson, adapter, dataset, distance, model, rows

from runner.errors import StepError
from runner.training import health, loss

ERRORS = {
    "gpu": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "cpu": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory:"
    ),
    "cpu, not enough": RuntimeError(
        "DefaultCPUAllocator: not enough memory: you tried to allocate"
    ),
    "python": MemoryError(),
}


def narrow(most, error):
    """A model whose forward takes no more than so many rows while it learns."""
    taught = model()
    forward = taught.forward

    def watched(*args, input_ids=None, **rest):
        if taught.training and len(input_ids) > most:
            raise error
        return forward(*args, input_ids=input_ids, **rest)

    taught.forward = watched
    return taught


@pytest.mark.parametrize("kind", ERRORS)
def test_where_memory_does_not_suffice_half_as_many_rows_go_on(tmp_path, kind):
    options = replace(OPTIONS, effective_batch_size=8, micro_batch_size=8)
    lesson = Lesson(tmp_path / "narrow", options)
    taught = lesson.run(narrow(3, ERRORS[kind]))
    assert lesson.facts["micro_batch_size"] == 2
    assert [note.split(":")[0] for note in lesson.notes] == ["not enough memory at step 1"] * 2
    assert "2 rows at once, and as many a step as before" in lesson.notes[1]
    plain = Lesson(tmp_path / "plain", options)
    assert distance(taught, plain.run()) < 1e-5
    for row, other in zip(lesson.metrics, plain.metrics, strict=True):
        for name in {"loss", "held_out_loss"} & {*row}:
            assert row[name] == pytest.approx(other[name], abs=1e-5)
        assert row.get("tokens") == other.get("tokens")


def test_memory_that_runs_out_in_the_middle_of_a_step_loses_nothing_of_it(tmp_path):
    """The longest rows come first; the failure hits after some gradients were made."""
    options = replace(OPTIONS, effective_batch_size=8, micro_batch_size=4, max_steps=3)
    taught, calls = model(), []
    forward = taught.forward

    def failing(*args, **rest):
        if taught.training:
            calls.append(len(rest["input_ids"]))
            if len(calls) in (2, 6):
                raise ERRORS["gpu"]
        return forward(*args, **rest)

    taught.forward = failing
    done = Lesson(tmp_path / "failing", options)
    taught = done.run(taught)
    assert calls[:6] == [4, 4, 2, 2, 2, 2]
    plain = Lesson(tmp_path / "plain", options).run()
    assert distance(taught, plain) < 1e-5
    assert done.facts["micro_batch_size"] == 1


def test_rows_at_once_that_were_halved_stay_so_after_a_crash(tmp_path):
    options = replace(OPTIONS, effective_batch_size=8, micro_batch_size=8)
    lesson = Lesson(tmp_path, options, stop_at=3)
    with pytest.raises(Exception, match="SIGTERM"):
        lesson.run(narrow(3, ERRORS["gpu"]))
    lesson.stop_at = None
    lesson.run()  # memory would suffice again, and the bits must not change
    assert lesson.facts["micro_batch_size"] == 2
    lesson = Lesson(tmp_path / "other", options, stop_at=3)
    with pytest.raises(Exception, match="SIGTERM"):
        lesson.run()
    lesson.stop_at = None
    lesson.run(micro_batch_size=4)
    assert lesson.facts["micro_batch_size"] == 4


def test_a_single_row_that_does_not_fit_is_an_error_with_what_to_change(tmp_path):
    with pytest.raises(StepError, match=r"even with a single row.*\n.*process\.max_length"):
        Lesson(tmp_path).run(narrow(0, ERRORS["gpu"]))


def test_another_error_is_not_taken_for_one_of_memory(tmp_path):
    lesson = Lesson(tmp_path)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        lesson.run(narrow(2, RuntimeError("shapes do not fit")))
    assert lesson.notes == []


@pytest.fixture
def spoil(monkeypatch):
    """Has the loss of every step multiplied by what a function says of the step's number."""

    def spoil(factor):
        right, steps = loss.trained_loss, []

        def spoilt(taught, *rest):
            found, outputs = right(taught, *rest)
            steps.extend([1] * taught.training)
            return found * (factor(len(steps)) if taught.training else 1), outputs

        monkeypatch.setattr(loss, "trained_loss", spoilt)

    return spoil


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_names_the_step_and_its_rows(tmp_path, value, spoil):
    spoil(lambda step: value if step == 4 else 1)
    data = dataset(rows())
    lesson = Lesson(tmp_path, OPTIONS, data)
    with pytest.raises(StepError, match=f"the loss is {value} at step 4") as raised:
        lesson.run()
    assert "lower adapt.learning_rate" in raised.value.command
    number = int(raised.value.fact.split("rows: ")[1].split(" ")[0])
    ids = data.train[number]["input_ids"]
    assert f"{number} ('{' '.join(map(str, ids))[:60]}')" in raised.value.fact
    assert lesson.checkpoints().newest()[0] == 3
    again = Lesson(tmp_path, OPTIONS, data)
    again.bytes()
    assert again.metrics[0]["step"] == 0
    assert again.bytes() == Lesson(tmp_path / "whole", OPTIONS, data).bytes()


def test_a_gradient_that_is_no_number_never_reaches_the_weights(tmp_path):
    taught = model()
    lesson = Lesson(tmp_path, replace(OPTIONS, loss_limit=None))

    class Exploding(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value):
            return value.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * math.nan

    taught.lm_head.register_forward_pre_hook(lambda _, given: (Exploding.apply(given[0]),))
    with pytest.raises(StepError, match="the gradient's norm is nan at step 1"):
        lesson.run(taught)
    assert all(bool(value.isfinite().all()) for value in adapter(taught).values())


def test_a_loss_that_explodes_stops_the_training():
    usual = [2.0, 2.1, 1.9] * 10
    for losses in (usual, [*usual, 900.0], [*usual, 90, 90, 90, 90, 1.8], [90.0] * 5):
        health.check_explosion(losses, 10, len(losses))
    with pytest.raises(StepError, match="the loss explodes: 92 at step 35, and above 10 times"):
        health.check_explosion([*usual, 88, 89, 90, 91, 92], 10, 35)
    health.check_explosion([*usual, 88, 89, 90, 91, 92], None, 35)
    health.check_explosion([0.01] * 30 + [0.9] * 5, 10, 35)


def test_a_training_that_explodes_is_stopped_and_goes_on_when_told_so(tmp_path, spoil):
    spoil(lambda step: 50 if 12 < step <= 17 else 1)
    lesson = Lesson(tmp_path, replace(OPTIONS, max_steps=20))
    with pytest.raises(StepError, match=r"the loss explodes: .* at step 17"):
        lesson.run()
    assert lesson.checkpoints().newest()[0] == 17
    lesson.run(loss_limit=None)
    assert lesson.facts["steps"] == 20


def test_held_out_rows_are_scored_before_and_after_and_while_it_trains(tmp_path):
    lesson = Lesson(tmp_path, OPTIONS)
    taught = lesson.run(evaluate_every=2, micro_batch_size=2)
    looks = [
        (row["step"], row["held_out_loss"]) for row in lesson.metrics if "held_out_loss" in row
    ]
    assert [step for step, _ in looks] == [0, 2, 4, 6]
    assert lesson.facts["held_out_loss_before"] == looks[0][1] > looks[-1][1]
    assert lesson.facts["held_out_loss"] == looks[-1][1]
    total = count = 0.0
    for row in lesson.data.held_out:
        with torch.no_grad():
            logits = taught.eval()(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
        targets = torch.tensor(row["labels"])[1:]
        total += float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
        count += int((targets != -100).sum())
    assert looks[-1][1] == pytest.approx(total / count, abs=1e-5)


def test_looks_change_nothing_of_what_is_taught(tmp_path):
    options = replace(OPTIONS, dropout=0.2)
    some = Lesson(tmp_path / "some", options).bytes(evaluate_every=1)
    assert some == Lesson(tmp_path / "none", options).bytes(evaluate_rows=0)


def test_every_step_leaves_its_figures(tmp_path):
    lesson = Lesson(tmp_path, OPTIONS)
    lesson.run(evaluate_rows=0)
    assert [row["step"] for row in lesson.metrics] == [1, 2, 3, 4, 5, 6]
    names = "step loss learning_rate gradient_norm tokens tokens_per_second seconds memory"
    assert all(" ".join(row) == names for row in lesson.metrics)
    assert all(row["memory"] > 1e7 and row["gradient_norm"] > 0 for row in lesson.metrics)
    assert lesson.facts["tokens"] == lesson.metrics[-1]["tokens"]
