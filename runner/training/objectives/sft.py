"""Supervised fine-tuning: the tokens of the answers are made likelier."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from runner import chat
from runner.errors import StepError
from runner.options import Fault
from runner.products import Dataset
from runner.training.objectives import rows
from runner.training.settings import Options

ROWS = rows.TOKENS
OPTIONS: Mapping[str, Any] = {}


def check(options: Options) -> list[Fault]:
    """It has no options of its own."""
    return []


def trainer(
    options: Options,
    model: Any,
    tokenizer: Any,
    dataset: Dataset,
    arguments: Mapping[str, Any],
    callbacks: Sequence[Any],
) -> Any:
    """transformers' own Trainer."""
    from transformers import Trainer, TrainingArguments

    return Trainer(
        model=model,
        args=TrainingArguments(**arguments),
        train_dataset=dataset.train.select_columns(_columns(dataset, model)),
        data_collator=_collator(dataset, tokenizer),
        processing_class=tokenizer if _is_packed(dataset) else None,
        callbacks=list(callbacks),
    )


def _is_packed(dataset: Dataset) -> bool:
    return "position_ids" in dataset.train.column_names


def _columns(dataset: Dataset, model: Any) -> list[str]:
    """What of the rows is trained on; StepError where this cannot be done rightly."""
    if "weights" in dataset.train.column_names:
        raise StepError("messages weigh differently, and adapt knows only weights of 0 and 1.")
    if not _is_packed(dataset):
        return ["input_ids", "labels"]
    from runner.data import pack

    if pack.crosses(model):
        raise StepError(
            "this model lets packed rows see one another.", "Leave them apart: process.pack=false"
        )
    return ["input_ids", "labels", "position_ids"]


def _collator(dataset: Dataset, tokenizer: Any) -> Any:
    """What makes a batch of rows, padded to one length."""
    from transformers import DataCollatorForSeq2Seq

    from runner.data import pack

    if _is_packed(dataset):
        return partial(pack.collate, pad=tokenizer.pad_token_id, multiple_of=8)
    return DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=chat.IGNORED, pad_to_multiple_of=8)
