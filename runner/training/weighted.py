"""A loss in which tokens weigh differently."""

from typing import Any

from runner.products import IGNORED


def weighted_loss(logits: Any, labels: Any, weights: Any, divisor: Any) -> Any:
    """The weighted cross-entropy of the next token: sum of weight times loss, over `divisor`.

    `logits` are (rows, length, vocabulary), `labels` and `weights` (rows, length); a label of -100
    is not predicted. `divisor` is the sum of the weights of all tokens trained in the step.
    """
    import torch

    flat = logits[:, :-1].flatten(0, 1).float()
    targets = labels[:, 1:].flatten()
    loss = torch.nn.functional.cross_entropy(flat, targets, ignore_index=IGNORED, reduction="none")
    return (loss * weights[:, 1:].flatten().to(loss)).sum() / divisor


class Weighted:
    """A Trainer's loss, by the column `weights` of its batches."""

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
        """The weighted loss of one batch of tensors."""
        rest = {name: each for name, each in inputs.items() if name not in ("labels", "weights")}
        outputs = model(**rest)
        logits = outputs.logits
        weights = inputs.get("weights", logits.new_ones(logits.shape[:2]))
        loss = weighted_loss(logits, inputs["labels"], weights, num_items_in_batch)
        processes = self.accelerator.num_processes  # type: ignore[attr-defined]
        loss = loss * processes  # gradients are averaged over processes
        return (loss, outputs) if return_outputs else loss
