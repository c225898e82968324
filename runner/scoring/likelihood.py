"""How likely a model finds the tokens of rows: perplexity, and what each row has to do with it."""

from collections.abc import Callable, Sequence
from typing import Any

from runner.products import IGNORED, Model, Row
from runner.scoring.intervals import Measured, perplexity


def measured(
    model: Model,
    rows: Sequence[Row],
    *,
    column: str,
    batch_size: int,
    report: Callable[[int], None] = lambda _: None,
) -> Measured:
    """Perplexity: exp of the mean negative log-likelihood of tokens, given those before.

    `column` (`labels` or `input_ids`) says which tokens count. A row's own figure is the mean
    negative log-likelihood of its tokens, in nats; of a row without any, 0.
    """
    losses: list[tuple[float, int]] = []
    for start in range(0, len(rows), batch_size):
        losses += _losses(model.model, rows[start : start + batch_size], column)
        report(len(losses))
    means = [loss / count if count else 0.0 for loss, count in losses]
    return Measured("perplexity", means, losses, perplexity)


def _losses(model: Any, rows: Sequence[Row], column: str) -> list[tuple[float, int]]:
    """For each row the sum of negative log-likelihoods, and of how many tokens."""
    import torch

    ids = _padded([row["input_ids"] for row in rows], 0, model.device)
    mask = _padded([[1] * len(row["input_ids"]) for row in rows], 0, model.device)
    targets = _padded([row[column] for row in rows], IGNORED, model.device)[:, 1:]
    with torch.inference_mode():
        output = model(input_ids=ids, attention_mask=mask).logits
    logits = output[:, -ids.shape[1] : -1].float()  # a trained prompt stands before the rows
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none"
    )
    sums = losses.view(targets.shape).double().sum(dim=1).tolist()
    counts = (targets != IGNORED).sum(dim=1).tolist()
    return list(zip(sums, counts, strict=True))


def _padded(rows: Sequence[list[int]], filling: int, device: Any) -> Any:
    """Rows of ids as one tensor (rows x longest), filled up on the right."""
    import torch

    width = max(map(len, rows))
    return torch.tensor([row + [filling] * (width - len(row)) for row in rows], device=device)
