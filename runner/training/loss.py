"""The loss of the tokens that are trained, each by its weight; others never reach the output layer.

Most tokens of a chat are not trained, and for each of them the output layer would compute as many
numbers as there are words in the vocabulary: time and, mostly, memory.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from runner.products import IGNORED

IN_FRONT = ("PROMPT_TUNING", "P_TUNING")
"""The adapters of peft whose trained tokens come out of the model too."""
TAKES = "logits_to_keep"
"""What transformers calls the places for which logits are wanted."""


def trained_loss(model: Any, inputs: Mapping[str, Any], divisor: Any) -> tuple[Any, Any]:
    """The cross-entropy of the next token over a batch, and the model's outputs.

    `inputs` has `labels` (rows, length; -100 is not predicted) and may have `weights` of the same
    shape. The loss is the sum of weight times loss, over `divisor`: the sum of the weights of all
    tokens trained in the step. The outputs' logits are those of the trained places alone.
    """
    import torch

    rest = {name: each for name, each in inputs.items() if name not in ("labels", "weights")}
    targets = inputs["labels"][:, 1:]
    places = (targets != IGNORED).any(dim=0).nonzero()[:, 0]
    shifted = places + _virtual_tokens(model)
    if takes_places(model):
        outputs = model(**rest, **{TAKES: shifted})
        logits = outputs.logits
    else:
        outputs = model(**rest)
        logits = outputs.logits[:, shifted]
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(),
        targets[:, places].flatten(),
        ignore_index=IGNORED,
        reduction="none",
    )
    if "weights" in inputs:
        losses = losses * inputs["weights"][:, 1:][:, places].flatten().to(losses)
    return losses.sum() / divisor, outputs


def takes_places(model: Any) -> bool:
    """Whether the model computes logits of chosen places alone."""
    return TAKES in inspect.signature(type(_plain(model)).forward).parameters


def _plain(model: Any) -> Any:
    """The transformers model below an adapter and below what spreads it over processes."""
    model = getattr(model, "module", model)
    return model.get_base_model() if hasattr(model, "peft_config") else model


def _virtual_tokens(model: Any) -> int:
    """How many trained tokens peft puts before each row."""
    form = getattr(getattr(model, "module", model), "active_peft_config", None)
    kind = getattr(getattr(form, "peft_type", None), "value", None)
    return int(form.num_virtual_tokens) if form and kind in IN_FRONT else 0


class OfTrained:
    """To be put before a Trainer in the bases of a class: its loss is that of trained tokens."""

    @property
    def model_accepts_loss_kwargs(self) -> bool:
        """It divides by what the whole step trains."""
        return True

    @model_accepts_loss_kwargs.setter
    def model_accepts_loss_kwargs(self, said: bool) -> None:
        """What the model's own loss would do does not matter."""

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The loss of one batch of tensors, which is a part of a step."""
        loss, outputs = trained_loss(model, inputs, num_items_in_batch)
        processes = self.accelerator.num_processes  # type: ignore[attr-defined]
        loss = loss * processes  # gradients are averaged over processes
        return (loss, outputs) if return_outputs else loss
