"""Supervised fine-tuning: the tokens of the answers are made likelier."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from runner.data import pack
from runner.errors import StepError
from runner.options import Fault
from runner.products import Dataset
from runner.training import batches
from runner.training.loss import OfTrained
from runner.training.objectives import rows
from runner.training.objectives.given import Given
from runner.training.settings import Options
from runner.training.watch import watched

ROWS = rows.TOKENS
OPTIONS: Mapping[str, Any] = {}
COLUMNS = ("input_ids", "labels", "position_ids", "weights")
CHEAP_JOINED = ("flash_attention", "flex_attention")
"""Attention that skips what rows joined to one may not see; others compute it and throw it away."""


def check(options: Options) -> list[Fault]:
    """It has no options of its own."""
    return []


def trainer(given: Given) -> Any:
    """transformers' own Trainer, with a loss that is only computed where it counts."""
    from transformers import TrainingArguments

    is_packed = "position_ids" in given.dataset.train.column_names
    if is_packed and pack.crosses(given.model):
        raise StepError(
            "this model lets packed rows see one another.",
            "Leave them apart: process.pack=false",
        )
    joins = not is_packed and _joins(given.options, given.model)
    return watched(_kind(given.options, given.dataset))(
        model=given.model,
        args=TrainingArguments(**given.arguments),
        train_dataset=_columns(given.dataset.train),
        eval_dataset=_held_out(given.dataset, given.options),
        data_collator=partial(_collate, pad=given.tokenizer.pad_token_id, joins=joins),
        callbacks=list(given.callbacks),
    )


def _kind(options: Options, dataset: Dataset) -> type:
    """Liger's kernels never hold all logits either, but know no weights."""
    from transformers import Trainer

    base: type = Trainer
    if options.kernels == "liger" and "weights" not in dataset.train.column_names:
        return base
    return type("OfTrainedTrainer", (OfTrained, base), {})


def _joins(options: Options, model: Any) -> bool:
    """Whether rows in memory together become one; StepError where they would see one another."""
    if options.padding_free == "auto":
        return _joined_is_cheap(model) and not pack.crosses(model)
    if options.padding_free and pack.crosses(model):
        raise StepError(
            "this model lets rows that are joined see one another.",
            "Leave them apart: adapt.padding_free=false",
        )
    return bool(options.padding_free)


def _joined_is_cheap(model: Any) -> bool:
    return str(model.config._attn_implementation).startswith(CHEAP_JOINED)


def _columns(rows: Any) -> Any:
    """What of the rows is trained on."""
    return rows.select_columns([name for name in COLUMNS if name in rows.column_names])


def _held_out(dataset: Dataset, options: Options) -> Any:
    """The rows held out that are looked at, if any."""
    count = len(dataset.held_out)
    if options.evaluate_rows is not None:
        count = min(count, options.evaluate_rows)
    return _columns(dataset.held_out).select(range(count)) if count else None


def _collate(rows: Any, pad: int, *, joins: bool) -> dict[str, Any]:
    """Tensors of rows that are in memory together, to a length that matrix units like."""
    if "position_ids" in rows[0]:
        return pack.collate(rows, pad, multiple_of=8)
    make = batches.joined if joins else batches.padded
    return make(rows, pad, multiple_of=8)
