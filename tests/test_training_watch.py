"""Trainers of trl, watched: the same batches, memory and states as for every other."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from lessons import OPTIONS, Crash, Lesson, distance, model

from runner import products
from runner.products import Dataset
from runner.training import objectives
from runner.training.objectives.given import Given
from runner.training.watch import watched

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def pairs() -> Dataset:
    """Prompts, each with a better and a worse answer."""
    rows = [
        {"prompt": f"say {number}", "chosen": str(number) * (1 + number % 3), "rejected": "no"}
        for number in range(12)
    ]
    made = datasets.Dataset.from_list(rows)
    return Dataset(made, made.select(range(4)))


@pytest.fixture
def preferences(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every training is one of preferences from now on."""
    tokenizer = products.open_tokenizer(tiny_model)

    def trainer(given: Given) -> Any:
        from trl import DPOConfig, DPOTrainer

        return watched(DPOTrainer)(
            model=given.model,
            args=DPOConfig(**given.arguments),
            train_dataset=given.dataset.train,
            eval_dataset=given.dataset.held_out,
            processing_class=tokenizer,
            callbacks=list(given.callbacks),
        )

    monkeypatch.setattr(objectives, "trainer", trainer)


def wide() -> Any:
    """The tiny model, with a vocabulary for bytes."""
    taught = model()
    torch.manual_seed(1)
    taught.resize_token_embeddings(300, mean_resizing=False)
    return taught


def test_preferences_are_learned_alike_whatever_fits(tmp_path, pairs, preferences):
    options = replace(OPTIONS, max_steps=4)
    taught = [
        Lesson(tmp_path / str(micro), options, pairs).run(wide(), micro_batch_size=micro)
        for micro in (1, 3, 4)
    ]
    assert distance(taught[0], wide_and_still(tmp_path, pairs)) > 1e-3
    for other in taught[1:]:
        assert distance(taught[0], other) < 1e-5


def wide_and_still(tmp_path: Path, pairs: Dataset) -> Any:
    options = replace(OPTIONS, max_steps=1, learning_rate=0.0)
    return Lesson(tmp_path / "still", options, pairs).run(wide())


def test_preferences_go_on_after_a_crash_to_the_same_bits(tmp_path, pairs, preferences):
    options = replace(OPTIONS, max_steps=6, micro_batch_size=2)
    whole = Lesson(tmp_path / "whole", options, pairs)
    expected = whole.run(wide())
    assert "rewards/margins" in whole.metrics[1]
    lesson = Lesson(tmp_path / "broken", options, pairs, crash_at=5)
    with pytest.raises(Crash):
        lesson.run(wide())
    lesson.crash_at = None
    assert distance(lesson.run(wide()), expected) == 0
    assert "going on from step 4" in lesson.notes
