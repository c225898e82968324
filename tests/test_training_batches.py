"""Batches: whole effective ones, whatever fits into memory, padded, joined or weighted."""

import math
from collections import Counter

import datasets
import pytest
import torch
from lessons import LENGTHS, OPTIONS, Lesson, adapter, dataset, distance, model, rows

from runner.data import pack
from runner.errors import StepError
from runner.training import batches, loss, methods
from runner.training.batches import Order
from runner.training.settings import Options


def test_every_epoch_sees_every_row_once_in_an_order_of_its_own():
    order = Order(LENGTHS, batch_size=4, seed=1)
    epochs = [[row for batch in order.epoch(number) for row in batch] for number in range(3)]
    assert all(sorted(epoch) == list(range(len(LENGTHS))) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert order.epoch(1) == Order(LENGTHS, batch_size=4, seed=1).epoch(1)
    assert order.epoch(1) != Order(LENGTHS, batch_size=4, seed=2).epoch(1)
    assert len(order.epoch(0)) == len(order) == 6


def test_processes_share_each_batch_and_lose_nothing():
    whole = Order(LENGTHS, 6, seed=1).epoch(0)
    shares = [Order(LENGTHS, 6, seed=1, share=n, shares=3) for n in range(3)]
    for batch in whole:
        parts = [share.shared(batch) for share in shares]
        assert sorted(row for part in parts for row in part) == sorted(batch)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_process_without_a_row_of_a_small_batch_learns_nothing(tmp_path):
    order = Order(LENGTHS[:5], 4, seed=1, share=1, shares=2)
    small = order.epoch(0)[1]
    assert order.shared(small) == [-1 - small[0]]
    numbered = batches.Numbered(datasets.Dataset.from_list(rows(5)))
    batch = batches._batch(numbered.__getitems__(order.shared(small)))
    assert batch.idle
    assert list(batch.rows) == [rows(5)[small[0]]]


def test_rows_of_similar_length_come_together_where_asked_for():
    lengths = [1 + number * 7 % 64 for number in range(640)]

    def waste(order):
        return sum(
            max(lengths[row] for row in batch) * len(batch) - sum(lengths[row] for row in batch)
            for batch in order.epoch(0)
        )

    assert waste(Order(lengths, 8, 0, by_length=True)) < waste(Order(lengths, 8, 0)) / 4
    seen = Counter(row for batch in Order(lengths, 8, 0, by_length=True).epoch(0) for row in batch)
    assert seen == Counter(range(640))


def test_lengths_are_those_of_the_rows_also_after_a_choice_of_rows():
    made = datasets.Dataset.from_list(rows())
    assert batches.lengths(made) == list(LENGTHS)
    assert batches.lengths(made.select([4, 0, 4])) == [LENGTHS[4], LENGTHS[0], LENGTHS[4]]
    pairs = [{"prompt_ids": [1, 2], "chosen_ids": [3], "rejected_ids": [4, 5], "position_ids": [0]}]
    assert batches.lengths(datasets.Dataset.from_list(pairs)) == [5]
    assert batches.tokens(pairs) == 5


@pytest.mark.parametrize("join", [False, True])
def test_the_adapter_does_not_depend_on_what_fits_into_memory(tmp_path, join):
    taught = [
        Lesson(tmp_path / str(micro)).run(micro_batch_size=micro, padding_free=join)
        for micro in (1, 2, 3, 4)
    ]
    assert distance(taught[0], Lesson(tmp_path / "n").run(learning_rate=0.0)) > 1e-2
    for other in taught[1:]:
        assert distance(taught[0], other) < 1e-5


def test_joined_rows_teach_what_padded_ones_do(tmp_path):
    padded = Lesson(tmp_path / "padded").run(padding_free=False)
    joined = Lesson(tmp_path / "joined").run(padding_free=True)
    assert 0 < distance(padded, joined) < 1e-5


def test_packed_rows_of_one_length_teach_what_the_rows_themselves_do(tmp_path):
    same = [row for row in rows(60) if len(row["input_ids"]) == 12]
    packs = [pack.joined(same[at : at + 2]) for at in range(0, len(same) - 1, 2)]
    loose = [row for at in range(0, len(same) - 1, 2) for row in same[at : at + 2]]
    options = {"max_steps": 1, "learning_rate": 1e-2, "warmup_steps": 0, "optimizer": "sgd"}
    whole = Lesson(tmp_path / "packs", data=dataset(packs)).run(
        effective_batch_size=len(packs), micro_batch_size=1, **options
    )
    apart = Lesson(tmp_path / "apart", data=dataset(loose)).run(
        effective_batch_size=len(loose), **options
    )
    assert distance(whole, apart) < 1e-6


def test_the_loss_of_a_step_is_the_mean_of_its_trained_tokens(tmp_path):
    lesson = Lesson(tmp_path, OPTIONS, dataset(rows(4), held_out=0))
    lesson.run(max_steps=1, micro_batch_size=1)
    untaught, total, count = model(), 0.0, 0
    for row in rows(4):
        with torch.no_grad():
            logits = untaught(torch.tensor([row["input_ids"]])).logits[0, :-1]
        targets = torch.tensor(row["labels"])[1:]
        total += float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
        count += int((targets != -100).sum())
    assert lesson.metrics[0]["loss"] == pytest.approx(total / count, abs=1e-5)
    assert lesson.metrics[0]["tokens"] == sum(LENGTHS[:4])


def batch(**more):
    """Two rows, of which some tokens are trained."""
    labels = torch.tensor([[-100, -100, -100, 3, 4], [-100, -100, 5, 6, 0]])
    return {"input_ids": labels.clamp(min=0), "labels": labels, **more}


def test_the_weighted_loss_is_its_formula():
    taught, weights = model(), torch.rand(2, 5)
    given = batch(weights=weights)
    logits, expected = taught(given["input_ids"]).logits.detach(), 0.0
    for row in range(2):
        for at in range(1, 5):
            if given["labels"][row, at] != -100:
                probability = torch.softmax(logits[row, at - 1], 0)[given["labels"][row, at]]
                expected -= float(weights[row, at]) * math.log(float(probability))
    found, outputs = loss.trained_loss(taught, given, 2.5)
    assert found.item() == pytest.approx(expected / 2.5, rel=1e-5)
    assert outputs.logits.shape[1] == 3  # of 5: the second token and what follows the last are not


@pytest.mark.parametrize("kind", ["plain", "lora", "prompt", "prefix", "ptuning", "other"])
def test_the_loss_and_its_gradients_are_those_of_transformers(kind, monkeypatch):
    torch.manual_seed(0)
    taught = model()
    if kind == "other":  # a model that cannot leave logits out
        monkeypatch.setattr(loss, "takes_places", lambda model: False)
    elif kind != "plain":
        rank = {"rank": 2} if kind == "lora" else {"virtual_tokens": 3}
        taught = methods.attach(taught, Options(method=kind, **rank), print)
    given, gradients = batch(), []
    theirs = taught(**given, num_items_in_batch=torch.tensor(7.0)).loss
    for found in (theirs, loss.trained_loss(taught, given, 7.0)[0]):
        assert found.item() == pytest.approx(theirs.item(), rel=1e-6)
        trained = [each for each in taught.parameters() if each.requires_grad]
        gradients.append(torch.autograd.grad(found, trained))
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("join", [False, True])
def test_tokens_that_weigh_differently_teach_so_whatever_fits(tmp_path, join):
    weighted = dataset(rows(weights=True))
    taught = [
        Lesson(tmp_path / str(micro), data=weighted).run(micro_batch_size=micro, padding_free=join)
        for micro in (1, 4)
    ]
    assert distance(*taught) < 1e-5
    assert distance(taught[0], Lesson(tmp_path / "even").run()) > 1e-3


def test_weights_of_one_change_nothing(tmp_path):
    even = [{**row, "weights": [1.0] * len(row["input_ids"])} for row in rows()]
    assert (
        distance(Lesson(tmp_path / "a", data=dataset(even)).run(), Lesson(tmp_path / "b").run())
        < 1e-5
    )


def test_the_length_of_a_training_is_said_in_epochs_steps_or_tokens(tmp_path):
    for name, said, steps in (
        ("none", {}, 6),
        ("epochs", {"epochs": 1.5}, 9),
        ("steps", {"max_steps": 4}, 4),
        ("tokens", {"max_tokens": sum(LENGTHS) + 1}, 7),
    ):
        lesson = Lesson(tmp_path / name)
        lesson.run(**{"max_steps": None, **said})
        assert lesson.facts["steps"] == steps, name
        assert lesson.metrics[-1]["step"] == steps


def test_a_model_that_lets_joined_rows_see_one_another_is_refused(tmp_path):
    blind = model()
    forward = blind.forward
    blind.forward = lambda *args, position_ids=None, **rest: forward(*args, **rest)
    with pytest.raises(StepError, match=r"adapt\.padding_free=false"):
        Lesson(tmp_path / "a").run(blind, padding_free=True)


def test_gradient_checkpointing_changes_no_bit(tmp_path):
    plain, twice = Lesson(tmp_path / "plain"), Lesson(tmp_path / "twice")
    assert plain.bytes(dropout=0.1, gradient_checkpointing=False) == twice.bytes(
        dropout=0.1, gradient_checkpointing=True
    )


def test_the_adapter_is_trained_at_all(tmp_path):
    taught = adapter(Lesson(tmp_path).run())
    assert all(float(value.abs().max()) > 0 for value in taught.values())
