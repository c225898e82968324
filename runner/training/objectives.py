"""What is learned from which rows: the Trainer of an objective, with its columns and batches."""

from functools import partial
from typing import Any

from runner import chat
from runner.errors import StepError
from runner.products import Dataset
from runner.training.settings import Options
from runner.training.watch import watched


def trainer(
    options: Options,
    model: Any,
    tokenizer: Any,
    dataset: Dataset,
    arguments: dict[str, Any],
    callbacks: list[Any],
) -> Any:
    """The Trainer of the objective over the rows to train on.

    `arguments` are fields of transformers' TrainingArguments.
    """
    from transformers import Trainer, TrainingArguments

    return watched(Trainer)(
        model=model,
        args=TrainingArguments(**arguments),
        train_dataset=dataset.train.select_columns(_columns(dataset, model)),
        data_collator=_collator(dataset, tokenizer),
        processing_class=tokenizer if _is_packed(dataset) else None,
        callbacks=callbacks,
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
