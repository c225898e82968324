"""A reward model (arXiv:2203.02155): one number for an answer, higher for the better of a pair."""

from collections.abc import Mapping
from typing import Any

from runner.errors import StepError
from runner.options import Fault
from runner.training.objectives import bare, rows
from runner.training.objectives.given import Given
from runner.training.settings import Options
from runner.training.watch import watched

ROWS = rows.PAIRS
OPTIONS: Mapping[str, Any] = {}
TASK = "SEQ_CLS"
QUANTIZED = (
    "is_quantized",
    "is_loaded_in_4bit",
    "is_loaded_in_8bit",
    "quantization_method",
    "hf_quantizer",
)
"""What transformers marks a model with whose layers are quantized."""


def check(options: Options) -> list[Fault]:
    """It has no options of its own."""
    return []


def trainer(given: Given) -> Any:
    """trl's RewardTrainer on our tokens; the model is one that `scorer` made."""
    from trl import RewardConfig, RewardTrainer
    from trl.trainer.reward_trainer import DataCollatorForPreference

    class Collator(DataCollatorForPreference):  # type: ignore[misc]  # trl is untyped
        def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
            names = ("chosen_ids", "rejected_ids")
            return dict(
                super().torch_call(
                    [{name: row["prompt_ids"] + row[name] for name in names} for row in examples]
                )
            )

    class Trainer(bare.Bare, RewardTrainer):  # type: ignore[misc]  # trl is untyped
        pass

    settings = {
        "model": given.model,
        "args": RewardConfig(
            **bare.NEUTRAL | dict(given.arguments) | {"remove_unused_columns": False},
            disable_dropout=not given.options.dropout,
            max_length=None,
        ),
        **rows.sets(given.options, given.dataset, ROWS),
        "data_collator": Collator(given.tokenizer.pad_token_id, pad_to_multiple_of=8),
        "processing_class": given.tokenizer,
        "callbacks": list(given.callbacks),
    }
    return bare.build(watched(Trainer), settings)


def scorer(model: Any, tokenizer: Any) -> Any:
    """The same layers under a new head that gives one number for a text: at its last token.

    That is the last one that is not the pad token, so which one that is belongs to the model. No
    weight but the head's is made; its values are drawn from torch's generator. StepError where
    transformers knows no such model of this architecture.
    """
    import copy

    import torch
    from transformers import AutoModelForSequenceClassification

    config = copy.deepcopy(model.config)
    for each in (config, config.get_text_config()):
        each.num_labels, each.pad_token_id = 1, tokenizer.pad_token_id
    try:
        with torch.device("meta"):
            made = AutoModelForSequenceClassification.from_config(config)
    except ValueError as error:
        raise StepError(f"a model of type {config.model_type} cannot be made to score.") from error
    setattr(made, made.base_model_prefix, model.base_model)
    for layer in (each for each in made.modules() if _is_empty(each)):
        layer.to_empty(device=model.device, recurse=False).to(model.dtype)
        torch.nn.init.normal_(layer.weight, std=getattr(config, "initializer_range", 0.02))
    vars(made).update({name: vars(model)[name] for name in QUANTIZED if name in vars(model)})
    made.name_or_path = model.name_or_path
    return made


def is_scorer(model: Any) -> bool:
    """Whether a model, with an adapter or without, is of the class that `scorer` makes."""
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    return type(inner).__name__.endswith("ForSequenceClassification")


def _is_empty(layer: Any) -> bool:
    return any(each.is_meta for each in layer.parameters(recurse=False))
