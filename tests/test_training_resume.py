"""A training that ends at any moment goes on to the very same bytes."""

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import datasets
import pytest
import torch
from lessons import OPTIONS, Crash, Lesson, adapter, dataset, model, rows

from runner import files
from runner.checkpoint import MANIFEST
from runner.errors import StepError, Stopped
from runner.products import Dataset
from runner.training import state
from runner.training.arguments import OPTIMIZERS

WITH_DROPOUT = replace(OPTIONS, dropout=0.2, max_steps=9, micro_batch_size=2)


def columns(metrics):
    """What of the figures does not depend on the clock."""
    names = ("step", "loss", "learning_rate", "gradient_norm", "tokens", "held_out_loss")
    return [{name: row[name] for name in names if name in row} for row in metrics]


def test_a_crash_after_any_step_changes_no_bit_and_no_figure(tmp_path):
    whole = Lesson(tmp_path / "whole", WITH_DROPOUT)
    expected = whole.bytes(evaluate_every=3)
    for step in range(1, 10):
        lesson = Lesson(tmp_path / str(step), whole.options, crash_at=step)
        with pytest.raises(Crash):
            lesson.run()
        lesson.crash_at = None
        assert lesson.bytes() == expected, step
        assert columns(lesson.metrics) == columns(whole.metrics), step


def test_crashes_again_and_again_change_no_bit(tmp_path):
    whole = Lesson(tmp_path / "whole", replace(WITH_DROPOUT, checkpoint_every=1))
    expected = whole.bytes()
    lesson = Lesson(tmp_path / "broken", whole.options)
    for step in range(2, 10, 2):
        lesson.crash_at = step
        with pytest.raises(Crash):
            lesson.run()
    lesson.crash_at = None
    assert lesson.bytes() == expected
    assert columns(lesson.metrics) == columns(whole.metrics)


@pytest.mark.parametrize("optimizer", sorted({*OPTIMIZERS} - {"paged_adamw", "paged_adamw_8bit"}))
def test_every_optimizer_teaches_and_goes_on(tmp_path, optimizer):
    options = replace(WITH_DROPOUT, optimizer=optimizer, max_steps=6, weight_decay=0.01)
    whole = Lesson(tmp_path / "whole", options)
    expected = whole.bytes()
    assert expected != Lesson(tmp_path / "still", replace(options, learning_rate=0.0)).bytes()
    lesson = Lesson(tmp_path / "broken", options, crash_at=5)
    with pytest.raises(Crash):
        lesson.run()
    lesson.crash_at = None
    assert lesson.bytes() == expected
    assert "going on from step 4" in lesson.notes


@pytest.mark.parametrize(
    "how",
    [
        {"method": "dora"},
        {"method": "vera", "rank": 4},
        {"method": "ia3", "rank": None, "dropout": None},
        {"method": "prompt", "rank": None, "dropout": None},
        {"method": "prefix", "rank": None, "dropout": None},
        {"method": "ptuning", "rank": None, "dropout": None},
        {"method": "full", "rank": None, "dropout": None},
    ],
    ids=lambda how: how["method"],
)
def test_every_method_goes_on_to_the_same_bits(tmp_path, how):
    options = replace(WITH_DROPOUT, max_steps=6, **how)
    expected = adapter(Lesson(tmp_path / "whole", options).run())
    lesson = Lesson(tmp_path / "broken", options, crash_at=5)
    with pytest.raises(Crash):
        lesson.run()
    lesson.crash_at = None
    found = adapter(lesson.run())
    assert "going on from step 4" in lesson.notes
    assert expected.keys() == found.keys()
    assert all(value.equal(found[name]) for name, value in expected.items())


def test_a_signal_ends_within_the_step_and_its_half_made_gradients_are_dropped(tmp_path):
    whole = Lesson(tmp_path / "whole", replace(WITH_DROPOUT, micro_batch_size=1))
    expected = whole.bytes()
    lesson = Lesson(tmp_path / "stopped", whole.options, stop_at=3)
    with pytest.raises(Stopped):
        lesson.run()
    assert lesson.checkpoints().newest()[0] == 3
    lesson.stop_at = None
    assert lesson.bytes() == expected


def test_a_signal_in_a_long_accumulation_ends_it_before_the_next_rows(tmp_path):
    taught, calls = model(), []
    forward = taught.forward

    def counted(*args, **rest):
        calls.append(taught.training)
        return forward(*args, **rest)

    taught.forward = counted
    options = replace(OPTIONS, micro_batch_size=1, evaluate_rows=0)
    lesson = Lesson(tmp_path, options)
    lesson._signal = lambda: "SIGUSR1" if len(calls) >= 6 else None
    with pytest.raises(Stopped):
        lesson.run(taught)
    assert calls == [True] * 6  # four rows of the first step, two of the second
    assert lesson.checkpoints().newest()[0] == 1
    lesson = Lesson(tmp_path, options)
    assert lesson.bytes() == Lesson(tmp_path / "whole", options).bytes()
    assert "going on from step 1" in lesson.notes


def test_a_signal_before_the_first_step_leaves_nothing_and_harms_nothing(tmp_path):
    lesson = Lesson(tmp_path, WITH_DROPOUT, stop_at=0)
    with pytest.raises(Stopped):
        lesson.run()
    assert lesson.checkpoints().newest() is None
    lesson.stop_at = None
    assert lesson.bytes() == Lesson(tmp_path / "whole", WITH_DROPOUT).bytes()


class Counted(datasets.Dataset):
    """A dataset that notes which rows are read."""

    read: ClassVar[list[int]] = []

    def __getitems__(self, keys):
        self.read.extend(keys)
        return super().__getitems__(keys)


def test_no_row_before_the_checkpoint_is_read_again(tmp_path):
    data = dataset(rows(400))
    counted = Counted(data.train.data)
    options = replace(OPTIONS, max_steps=60, checkpoint_every=50, evaluate_rows=0)
    lesson = Lesson(tmp_path, options, Dataset(counted, data.held_out), crash_at=53)
    with pytest.raises(Crash):
        lesson.run()
    lesson.crash_at = None
    Counted.read = []
    lesson.run()
    assert len(Counted.read) == len(set(Counted.read)) == 10 * 4


def test_early_stopping_and_the_best_weights_survive_a_crash(tmp_path):
    options = replace(
        WITH_DROPOUT,
        learning_rate=0.3,
        max_steps=30,
        checkpoint_every=1,
        evaluate_every=2,
        keep="best",
        patience=2,
    )
    whole = Lesson(tmp_path / "whole", options)
    expected = whole.bytes()
    assert whole.facts["steps"] < 30
    assert whole.facts["best_step"] < whole.facts["steps"]
    for step in range(1, whole.facts["steps"]):
        lesson = Lesson(tmp_path / str(step), options, crash_at=step)
        with pytest.raises(Crash):
            lesson.run()
        lesson.crash_at = None
        assert lesson.bytes() == expected, step
        for name in ("steps", "best_step", "held_out_loss", "held_out_loss_before"):
            assert lesson.facts[name] == whole.facts[name], (step, name)


def test_the_best_weights_are_those_of_the_lowest_loss(tmp_path):
    options = replace(OPTIONS, learning_rate=0.3, max_steps=8, evaluate_every=1, keep="best")
    lesson = Lesson(tmp_path / "best", options)
    best = lesson.bytes()
    looks = {row["step"]: row["held_out_loss"] for row in lesson.metrics if "held_out_loss" in row}
    assert lesson.facts["held_out_loss_before"] == looks.pop(0)
    step = lesson.facts["best_step"]
    assert looks[step] == min(looks.values()) == lesson.facts["held_out_loss"]
    last = Lesson(tmp_path / "last", replace(options, keep="last"))
    assert (last.bytes() == best) == (step == 8)


class Burglar:
    """Runs code where it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


FOREIGN = (
    "optimizer.pt",
    "scheduler.pt",
    "scaler.pt",
    "rng_state.pth",
    "training_args.bin",
    "pytorch_model.bin",
    "adapter_model.bin",
    "optimizer.bin",
)


def broken_lesson(folder):
    lesson = Lesson(folder, crash_at=5)
    with pytest.raises(Crash):
        lesson.run()
    lesson.crash_at = None
    return lesson, max((folder / "checkpoints").iterdir())


def sign(checkpoint):
    (checkpoint / MANIFEST).unlink()
    files.write_json(checkpoint / MANIFEST, files.manifest(checkpoint))


def test_a_pickle_in_a_checkpoint_never_runs(tmp_path):
    lesson, checkpoint = broken_lesson(tmp_path)
    assert not [path for path in checkpoint.iterdir() if path.suffix in (".pt", ".bin", ".pth")]
    for name in FOREIGN:
        (checkpoint / name).write_bytes(pickle.dumps(Burglar(tmp_path / "robbed")))
    sign(checkpoint)
    assert lesson.bytes() == Lesson(tmp_path / "whole").bytes()
    assert not (tmp_path / "robbed").exists()


@pytest.mark.parametrize("name", [state.WEIGHTS, state.TENSORS])
def test_a_pickle_in_the_place_of_tensors_is_refused(tmp_path, name):
    lesson, checkpoint = broken_lesson(tmp_path)
    (checkpoint / name).write_bytes(pickle.dumps(Burglar(tmp_path / "robbed")))
    sign(checkpoint)
    with pytest.raises(StepError, match=r"cannot be read: .*\n.*--fresh"):
        lesson.run()
    assert not (tmp_path / "robbed").exists()


def test_state_goes_through_json_as_it_was():
    value = {
        0: {"step": torch.tensor(3.0), "exp_avg": torch.randn(2, 3)},
        "betas": (0.9, 0.999),
        "none": None,
        "flags": [True, 1, 1.5, "x", float("inf")],
    }
    tensors: dict[str, torch.Tensor] = {}
    again = state.unplain(json.loads(json.dumps(state.plain(value, tensors))), tensors)
    assert again[0]["exp_avg"].equal(value[0]["exp_avg"])
    del again[0], value[0]
    assert again == value
    assert isinstance(again["betas"], tuple)
    with pytest.raises(TypeError, match="cannot hold a function"):
        state.plain({"f": lambda: None}, {})


def test_a_checkpoint_is_a_copy_that_training_does_not_change():
    taught = model()
    before = state.weights(taught)
    name, parameter = next(iter(taught.named_parameters()))
    with torch.no_grad():
        parameter.add_(1)
    assert not before[name].equal(parameter)


def test_checkpoints_come_by_the_clock_where_no_steps_are_said(tmp_path):
    lesson = Lesson(tmp_path, replace(OPTIONS, checkpoint_every=None, checkpoint_seconds=0.0))
    lesson.run(max_steps=20)
    assert lesson.facts["checkpoints"] >= 1
    assert lesson.facts["checkpoint_share"] < 0.1
    none = Lesson(tmp_path / "none", replace(lesson.options, checkpoint_seconds=None))
    none.run()
    assert none.facts["checkpoints"] == 0
