"""Direct preference optimization (arXiv:2305.18290) and its variants, with trl's DPOTrainer."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from runner.errors import did_you_mean, listing
from runner.options import Fault
from runner.training.objectives import bare, rows
from runner.training.objectives.given import Given
from runner.training.settings import Options
from runner.training.watch import watched

ROWS = rows.PAIRS
LOSSES = (
    "sigmoid",  # arXiv:2305.18290
    "hinge",  # arXiv:2309.06657
    "ipo",  # arXiv:2310.12036
    "robust",  # arXiv:2403.00409
    "exo_pair",  # arXiv:2402.00856
    "nca_pair",  # arXiv:2402.05369
    "bco_pair",  # arXiv:2404.04656
    "sppo_hard",  # arXiv:2405.00675
    "aot",  # arXiv:2406.05882
    "aot_unpaired",
    "apo_zero",  # arXiv:2408.06266
    "apo_down",
    "sigmoid_norm",  # by length, arXiv:2411.15124
)
SMOOTHED = {"robust": 0.1, "exo_pair": 1e-3, "aot": 0.0, "aot_unpaired": 0.0}
"""The losses that take label_smoothing, with what their papers take."""
OPTIONS: Mapping[str, Any] = {
    "loss": "sigmoid",
    "beta": 0.1,
    "label_smoothing": None,
    "sft_weight": 0.0,
}


def check(options: Options) -> list[Fault]:
    """A loss that there is, and a label_smoothing that it takes."""
    loss, smoothing = options.loss or OPTIONS["loss"], options.label_smoothing
    faults = wrong_loss("dpo", loss, LOSSES) + wrong_dropout(options)
    if smoothing is not None and loss not in SMOOTHED:
        fact = f"label_smoothing has no effect on the loss {loss}."
        faults.append(Fault(("label_smoothing",), fact, f"It is of: {listing(sorted(SMOOTHED))}."))
    if loss == "exo_pair" and smoothing == 0:
        faults.append(Fault(("label_smoothing",), "exo_pair needs a label_smoothing above 0."))
    if loss == "robust" and (smoothing or 0) >= 0.5:
        faults.append(Fault(("label_smoothing",), "robust needs a label_smoothing below 0.5."))
    if options.beta == 0:
        faults.append(Fault(("beta",), "with a beta of 0, dpo learns nothing."))
    return faults


def wrong_loss(objective: str, loss: str, losses: Sequence[str]) -> list[Fault]:
    """The fault of a loss that an objective does not have."""
    if loss in losses:
        return []
    guess = did_you_mean(loss, losses) or f"It has: {listing(losses)}."
    return [Fault(("loss",), f'{objective} has no loss "{loss}".', guess)]


def wrong_dropout(options: Options) -> list[Fault]:
    """The fault of dropout where the model is compared with another one."""
    if not options.dropout:
        return []
    fact = f"{options.objective} compares two models, and dropout would change one of them."
    return [Fault(("dropout",), fact, "Leave it out, or set it to 0.")]


def resolve(options: Options) -> Options:
    """With the smoothing that the loss takes where it is left out."""
    if options.objective != "dpo" or options.label_smoothing is not None:
        return options
    return replace(options, label_smoothing=SMOOTHED.get(options.loss or ""))


def trainer(given: Given) -> Any:
    """trl's DPOTrainer on our tokens."""
    from trl import DPOConfig

    config = DPOConfig(
        **bare.NEUTRAL | dict(given.arguments),
        **_losses(given.options),
        beta=given.options.beta,
        label_smoothing=given.options.label_smoothing or 0.0,
        precompute_ref_log_probs=not hasattr(given.model, "peft_config"),
        max_length=None,
        pad_to_multiple_of=8,
    )
    settings = {
        "model": given.model,
        "args": config,
        **rows.sets(given.options, given.dataset, ROWS),
        "processing_class": given.tokenizer,
        "callbacks": list(given.callbacks),
    }
    return bare.build(watched(_kind()), settings)


def _losses(options: Options) -> dict[str, Any]:
    """The loss, with the likelihood of the better answer beside it where it is to count."""
    if not options.sft_weight:
        return {"loss_type": [options.loss]}
    return {"loss_type": [options.loss, "sft"], "loss_weights": [1.0, options.sft_weight]}


def _kind() -> type:
    from trl import DPOTrainer

    from runner.training.objectives.reference import Referred

    class Trainer(bare.Bare, Referred, DPOTrainer):  # type: ignore[misc]  # trl is untyped
        REFERENCE = ("ref_chosen_logps", "ref_rejected_logps")

    return Trainer
