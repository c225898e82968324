"""Odds ratio preference optimization (arXiv:2403.07691): pairs and no reference model."""

from collections.abc import Mapping
from typing import Any

from runner.options import Fault
from runner.training.objectives import bare, rows
from runner.training.objectives.given import Given
from runner.training.settings import Options
from runner.training.watch import watched

ROWS = rows.PAIRS
OPTIONS: Mapping[str, Any] = {"beta": 0.1}


def check(options: Options) -> list[Fault]:
    """Any beta will do; 0 is plain fine-tuning on the better answers."""
    return []


def trainer(given: Given) -> Any:
    """transformers' Trainer with the loss of the paper."""
    from transformers import TrainingArguments
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    settings = {
        "model": given.model,
        "args": TrainingArguments(
            **{"prediction_loss_only": True, **given.arguments, "remove_unused_columns": False}
        ),
        **rows.sets(given.options, given.dataset, ROWS),
        "data_collator": DataCollatorForPreference(
            given.tokenizer.pad_token_id, pad_to_multiple_of=8
        ),
        "processing_class": given.tokenizer,
        "callbacks": list(given.callbacks),
    }
    made = bare.build(watched(_kind()), settings)
    made.beta = given.options.beta
    made.label_names, made.can_return_loss = [], True  # a loss without a column of that name
    return made


def losses(logits: Any, batch: Mapping[str, Any], beta: float) -> tuple[Any, dict[str, float]]:
    """The loss of a batch, and figures of it.

    `logits` are [2n, length, vocabulary], those of n better answers before those of n worse ones;
    `batch` has `input_ids` and `completion_mask`, both [2n, length]. With p the geometric mean of
    an answer's token probabilities and odds = p / (1 - p), a pair's loss is
    -log p(better) - beta * log sigmoid(log odds(better) - log odds(worse)).
    """
    import torch
    from torch.nn import functional

    mask = batch["completion_mask"][:, 1:]
    said = -functional.cross_entropy(
        logits[:, :-1].float().transpose(1, 2), batch["input_ids"][:, 1:], reduction="none"
    )
    means = (said * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    better, worse = means.chunk(2)
    ratio = (better - worse) - (_log_not(better) - _log_not(worse))
    loss = (-better - beta * functional.logsigmoid(ratio)).mean()
    with torch.no_grad():
        found = {
            "rewards/chosen": beta * better.mean().item(),
            "rewards/rejected": beta * worse.mean().item(),
            "rewards/margins": beta * (better - worse).mean().item(),
            "rewards/accuracies": (better > worse).float().mean().item(),
            "log_odds_ratio": ratio.mean().item(),
            "nll_loss": -better.mean().item(),
        }
    return loss, found


def _log_not(log_p: Any) -> Any:
    """log(1 - p) of log p, also where p is near 1 or near 0."""
    import torch

    return torch.log(-torch.expm1(log_p.clamp(max=-1e-6)))


def _kind() -> type:
    from transformers import Trainer

    class OddsRatioTrainer(Trainer):  # type: ignore[misc]  # transformers is untyped
        beta: float
        seen: dict[str, list[dict[str, float]]]

        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.model_accepts_loss_kwargs = False  # the loss is a mean over pairs
            self.loss_is_scaled_for_ga = False  # what later versions ask instead
            self.can_return_loss, self.seen = True, {"train": [], "eval": []}

        def compute_loss(
            self,
            model: Any,
            inputs: Mapping[str, Any],
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            names = ("input_ids", "attention_mask")
            outputs = model(**{name: inputs[name] for name in names}, use_cache=False)
            loss, found = losses(outputs.logits, inputs, self.beta)
            self.seen["train" if model.training else "eval"].append(found)
            return (loss, outputs) if return_outputs else loss

        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            mode = "train" if self.model.training else "eval"
            prefix, found = ("" if mode == "train" else "eval_"), self.seen[mode]
            for name in found[0] if found else ():
                logs[prefix + name] = sum(each[name] for each in found) / len(found)
            found.clear()
            super().log(logs, start_time)

    return OddsRatioTrainer
