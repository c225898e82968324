"""Kahneman-Tversky optimization (arXiv:2402.01306): answers that are good or bad, not paired."""

from collections.abc import Mapping
from typing import Any

from runner.options import Fault
from runner.training.objectives import bare, dpo, rows
from runner.training.objectives.given import Given
from runner.training.settings import Options
from runner.training.watch import watched

ROWS = rows.UNPAIRED
LOSSES = ("kto", "apo_zero_unpaired")  # the second: arXiv:2408.06266
OPTIONS: Mapping[str, Any] = {
    "loss": "kto",
    "beta": 0.1,
    "desirable_weight": 1.0,
    "undesirable_weight": 1.0,
}


def check(options: Options) -> list[Fault]:
    """A loss that there is, and batches of more than one row."""
    faults = dpo.wrong_loss("kto", options.loss or OPTIONS["loss"], LOSSES)
    faults += dpo.wrong_dropout(options)
    if options.effective_batch_size < 2:
        fact = "kto compares an answer with those of other rows in its batch."
        faults.append(Fault(("effective_batch_size",), fact, "Set at least 2."))
    if options.micro_batch_size not in (None, options.effective_batch_size):
        fact = "kto compares the rows that are in memory at once, so these must be the whole batch."
        faults.append(Fault(("micro_batch_size",), fact, "Leave it out."))
    if options.beta == 0:
        faults.append(Fault(("beta",), "with a beta of 0, kto learns nothing."))
    return faults


def trainer(given: Given) -> Any:
    """trl's KTOTrainer on our tokens.

    trl pairs each prompt with an unrelated answer by the fixed order of rows in batches, and so
    forbids to shuffle. Here a row's unrelated answer is drawn once by the seed, and rows are
    shuffled as everywhere else: neither depends on the size of a batch.
    """
    from trl import KTOConfig

    config = KTOConfig(
        **bare.NEUTRAL | dict(given.arguments) | {"train_sampling_strategy": "sequential"},
        loss_type=given.options.loss,
        beta=given.options.beta,
        desirable_weight=given.options.desirable_weight,
        undesirable_weight=given.options.undesirable_weight,
        precompute_ref_log_probs=not hasattr(given.model, "peft_config"),
        max_length=None,
        pad_to_multiple_of=8,
    )
    sets = rows.sets(given.options, given.dataset, ROWS)
    settings = {
        "model": given.model,
        "args": config,
        **{name: each and unrelated(each, given.options.seed) for name, each in sets.items()},
        "processing_class": given.tokenizer,
        "callbacks": list(given.callbacks),
    }
    made = bare.build(watched(_kind()), settings)
    made.args.train_sampling_strategy = given.arguments.get("train_sampling_strategy", "random")
    return made


def unrelated(rows: Any, seed: int) -> Any:
    """The rows, each with the answer of another one, drawn by the seed, as `KL_completion_ids`."""
    import random

    import pyarrow

    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)  # noqa: S311  a draw that can be repeated
    others = [0] * len(order)
    for row, other in zip(order, order[1:] + order[:1], strict=True):
        others[row] = other
    answers = rows.with_format("arrow")[:]["completion_ids"]
    return rows.add_column("KL_completion_ids", answers.take(pyarrow.array(others)))


def _kind() -> type:
    from trl import KTOTrainer

    from runner.training.objectives.reference import Referred

    class Trainer(bare.Bare, Referred, KTOTrainer):  # type: ignore[misc]  # trl is untyped
        REFERENCE = ("ref_logps", "ref_KL_logps")

    return Trainer
