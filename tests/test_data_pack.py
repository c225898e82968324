"""Packing: rows stay whole, bins stay small, and no row sees another."""

import random
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.data.pack import collate, crosses, efficiency, pack, packed
from runner.products import IGNORED


def packs_of(rows, bins):
    """Those packs of rows, as Python lists."""
    import pyarrow as pa

    inside = pa.Table.from_pylist([rows[number] for numbers in bins for number in numbers])
    return packed(inside, [len(numbers) for numbers in bins]).to_pylist()


LENGTHS = st.lists(st.integers(1, 50), max_size=120)


def best_fit_decreasing(lengths, max_length):
    """The method as a textbook has it: of all bins look for the fullest that a row fits."""
    spaces = []
    for length in sorted(lengths, reverse=True):
        fitting = [index for index, space in enumerate(spaces) if space >= length]
        if fitting:
            spaces[min(fitting, key=lambda index: spaces[index])] -= length
        else:
            spaces.append(max_length - length)
    return len(spaces)


def first_fit(lengths, max_length):
    spaces = []
    for length in lengths:
        index = next((i for i, space in enumerate(spaces) if space >= length), None)
        if index is None:
            spaces.append(max_length)
            index = -1
        spaces[index] -= length
    return len(spaces)


@given(LENGTHS, st.integers(50, 90))
def test_every_row_is_in_one_bin_and_no_bin_is_too_long(lengths, max_length):
    bins = pack(lengths, max_length)
    assert sorted(row for one in bins for row in one) == list(range(len(lengths)))
    assert all(0 < sum(lengths[row] for row in one) <= max_length for one in bins)
    assert pack(lengths, max_length) == bins


@given(LENGTHS, st.integers(50, 90))
def test_there_are_as_many_bins_as_best_fit_decreasing_needs(lengths, max_length):
    bins = pack(lengths, max_length)
    assert len(bins) == best_fit_decreasing(lengths, max_length)
    least = -(-sum(lengths) // max_length)
    assert least <= len(bins) <= 11 / 9 * first_fit(lengths, max_length) + 1


def test_on_rows_like_those_of_conversations_it_beats_first_fit():
    draw = random.Random(0)
    lengths = [min(1024, max(1, int(draw.lognormvariate(5, 1)))) for _ in range(3000)]
    bins = pack(lengths, 1024)
    assert len(bins) <= first_fit(lengths, 1024)
    assert efficiency(lengths, bins, 1024) > 0.99


def test_two_hundred_thousand_rows_are_packed_in_seconds():
    draw = random.Random(0)
    lengths = [draw.randint(1, 32768) for _ in range(200_000)]
    began = time.monotonic()
    bins = pack(lengths, 32768)
    assert time.monotonic() - began < 15  # 0.7 s on an idle machine
    assert efficiency(lengths, bins, 32768) > 0.99


@pytest.mark.parametrize("lengths", [[5, 11], [0], [3, 0]])
def test_a_row_that_fits_no_bin_is_refused(lengths):
    with pytest.raises(ValueError, match="1 to 10 tokens"):
        pack(lengths, 10)


def test_nothing_packs_into_nothing():
    assert pack([], 10) == []
    assert efficiency([], [], 10) == 1.0


def test_positions_restart_and_no_row_is_predicted_from_another():
    rows = [
        {"input_ids": [1, 2, 3], "labels": [1, 2, 3], "weights": [1.0, 0.5, 1.0]},
        {"input_ids": [4, 5], "labels": [4, 5], "weights": [2.0, 2.0]},
    ]
    assert packs_of(rows, [[0, 1]]) == [
        {
            "input_ids": [1, 2, 3, 4, 5],
            "labels": [1, 2, 3, IGNORED, 5],
            "position_ids": [0, 1, 2, 0, 1],
            "lengths": [3, 2],
            "weights": [1.0, 0.5, 1.0, 0.0, 2.0],
        }
    ]
    (unweighted,) = packs_of(
        [rows[0], {**rows[1], "labels": [IGNORED, 5], "weights": None}], [[0, 1]]
    )
    assert unweighted["weights"] == [1.0, 0.5, 1.0, 0.0, 1.0]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40))
def test_every_token_is_packed_once(lengths):
    rows = [{"input_ids": list(range(n)), "labels": [IGNORED, *range(1, n)]} for n in lengths]
    made = packs_of(rows, pack(lengths, 32))
    assert sorted(t for one in made for t in one["input_ids"]) == sorted(
        t for row in rows for t in row["input_ids"]
    )
    assert all(one["position_ids"] == one["input_ids"] for one in made)
    assert all(sum(one["lengths"]) == len(one["labels"]) for one in made)


@pytest.fixture(scope="module")
def model(tiny_model: Path):
    import torch
    from transformers import AutoModelForCausalLM

    made = AutoModelForCausalLM.from_pretrained(
        tiny_model, dtype=torch.float32, attn_implementation="sdpa"
    )
    return made.eval()


def rows_of(*lengths):
    draw = random.Random(1)
    rows = [[draw.randrange(256) for _ in range(length)] for length in lengths]
    return [{"input_ids": ids, "labels": ids} for ids in rows]


def alone(model, row):
    import torch

    with torch.no_grad():
        return model(input_ids=torch.tensor([row["input_ids"]])).logits[0]


def difference(model, rows, bins, **changes):
    """How far the logits of packed rows are from those of each row by itself."""
    import torch

    batch = {**collate(packs_of(rows, bins), pad=0), **changes}
    batch = {name: value for name, value in batch.items() if value is not None}
    with torch.no_grad():
        logits = model(**batch).logits
    assert torch.isfinite(logits).all()
    worst = 0.0
    for number, numbers in enumerate(bins):
        start = 0
        for row in numbers:
            length = len(rows[row]["input_ids"])
            inside = logits[number, start : start + length]
            worst = max(worst, float((inside - alone(model, rows[row])).abs().max()))
            start += length
    return worst


@pytest.mark.parametrize("bins", [[[0, 1, 2, 3]], [[0, 1], [2, 3]], [[2], [3, 1, 0]]])
def test_a_packed_row_gives_the_logits_that_it_gives_alone(model, bins):
    rows = rows_of(7, 1, 12, 5)
    assert difference(model, rows, bins) < 1e-4


def test_without_positions_or_with_a_mask_or_a_cache_rows_would_see_one_another(model):
    import torch

    rows, bins = rows_of(7, 9), [[0, 1]]
    assert difference(model, rows, bins, position_ids=None) > 1e-2
    everything = torch.ones(1, 16, dtype=torch.long)
    assert difference(model, rows, bins, attention_mask=everything) > 1e-2
    assert difference(model, rows, bins, use_cache=True) > 1e-2


def test_what_pads_a_batch_changes_nothing(model):
    import torch

    rows = rows_of(4, 6, 3)
    packs = packs_of(rows, [[0, 1], [2]])
    said = []
    for pad in (0, 77):
        batch = collate(packs, pad=pad, multiple_of=8)
        assert batch["input_ids"].shape == (2, 16)
        with torch.no_grad():
            said.append(model(**batch))
    assert torch.equal(said[0].logits[0, :10], said[1].logits[0, :10])
    assert torch.equal(said[0].logits[1, :3], said[1].logits[1, :3])
    assert torch.equal(said[0].loss, said[1].loss)


def test_the_loss_of_a_pack_is_that_of_its_rows(model):
    import torch

    rows = rows_of(7, 12, 5)
    with torch.no_grad():
        whole = model(**collate(packs_of(rows, [[0, 1, 2]]), pad=0)).loss
        parts = [
            model(**collate(packs_of(rows, [[number]]), pad=0)).loss * (length - 1)
            for number, length in enumerate((7, 12, 5))
        ]
    assert torch.allclose(whole, sum(parts) / (24 - 3), atol=1e-5)


def test_a_model_can_be_asked_whether_rows_see_one_another(model):
    import types

    assert not crosses(model)
    assert not crosses(model, batch_size=3)
    assert not model.training
    blind = types.SimpleNamespace(
        training=False,
        device=model.device,
        eval=model.eval,
        train=model.train,
    )

    class Careless(types.SimpleNamespace):
        def __call__(self, position_ids, **rest):
            return model(**rest)

    assert crosses(Careless(**vars(blind)))


def test_a_trainer_takes_packs(model, tmp_path):
    import copy

    import datasets
    from transformers import Trainer, TrainingArguments

    rows = rows_of(7, 12, 5, 9, 3)
    bins = pack([7, 12, 5, 9, 3], 16)
    trainer = Trainer(
        model=copy.deepcopy(model),
        args=TrainingArguments(
            output_dir=str(tmp_path),
            max_steps=2,
            per_device_train_batch_size=2,
            use_cpu=True,
            dataloader_pin_memory=False,
            report_to=[],
            disable_tqdm=True,
            save_strategy="no",
        ),
        train_dataset=datasets.Dataset.from_list(packs_of(rows, bins)),
        data_collator=lambda packs: collate(packs, pad=0),
    )
    assert trainer.train().training_loss > 0
