"""Two models on the same rows, each read from disk by transformers alone, as a user would."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner import hardware
from runner.products import IGNORED

LOOKED_INTO = 2
"""Rows whose hidden states are compared layer by layer."""
SHOWN = 3

Rows = Sequence[Mapping[str, Sequence[int]]]
"""`ids` of each row, and `labels`: the same ids where a token counts, and IGNORED elsewhere."""


@dataclass
class Seen:
    """What a model makes of rows: of each its likeliest next tokens, of the first few the states.

    `loss` is the sum over the tokens that count, in nats; `states` has for each row one
    tensor (layers + 1, tokens, width) in float32.
    """

    loss: float = 0.0
    tokens: int = 0
    likeliest: list[Any] = field(default_factory=list)
    states: list[Any] = field(default_factory=list)
    load_seconds: float = 0.0

    @property
    def perplexity(self) -> float:
        """exp of the mean loss; infinite where that is no number."""
        mean = self.loss / self.tokens
        return math.exp(mean) if mean < 700 else math.inf  # also what is not a number


def compare(
    whole: Path, made: Path, rows: Rows, progress: Callable[[int, int], None]
) -> dict[str, Any]:
    """Perplexity of both, how often the next token agrees, and the layers that err most.

    A layer's error is how much the hidden state's distance from the source's, relative to its
    length, grows from the layer before.
    """
    total = 2 * len(rows)
    source = look(whole, rows, lambda done: progress(done, total))
    hardware.release_memory()
    result = look(made, rows, lambda done: progress(len(rows) + done, total))
    same = sum(int((a == b).sum()) for a, b in zip(source.likeliest, result.likeliest, strict=True))
    return {
        "perplexity_before": _rounded(source.perplexity),
        "perplexity": _rounded(result.perplexity),
        "agreement": round(same / source.tokens, 4),
        "tokens": source.tokens,
        "load_seconds": round(result.load_seconds, 3),
        "largest_errors": _largest(_growth(source.states, result.states)),
    }


def look(folder: Path, rows: Rows, progress: Callable[[int], None]) -> Seen:
    """Show a model the rows, one after the other: no padding, so nothing but the row counts."""
    import torch
    from transformers import AutoModelForCausalLM

    begun = time.monotonic()
    model = AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, device_map=hardware.device()
    ).eval()
    seen = Seen(load_seconds=time.monotonic() - begun)
    for number, row in enumerate(rows):
        ids = torch.tensor([row["ids"]], device=model.device)
        with torch.inference_mode():
            output = model(input_ids=ids, output_hidden_states=number < LOOKED_INTO)
        _add(seen, torch.tensor(row["labels"], device=model.device), output)
        progress(number + 1)
    return seen


def _add(seen: Seen, labels: Any, output: Any) -> None:
    import torch

    counts = labels[1:] != IGNORED
    logits = output.logits[0, :-1][counts].float()
    loss = torch.nn.functional.cross_entropy(logits, labels[1:][counts], reduction="sum")
    seen.loss, seen.tokens = seen.loss + loss.item(), seen.tokens + int(counts.sum())
    seen.likeliest.append(logits.argmax(-1).cpu())
    if output.hidden_states is not None:
        states = torch.stack([each[0].float().cpu() for each in output.hidden_states])
        seen.states.append(states)


def _growth(before: Sequence[Any], after: Sequence[Any]) -> list[float]:
    """For each layer by how much the relative error rises in it, the mean over the rows."""
    import torch

    errors = []
    for a, b in zip(before, after, strict=True):
        errors.append((a - b).norm(dim=(1, 2)) / a.norm(dim=(1, 2)))
    mean = torch.stack(errors).mean(0)
    return [float(each) for each in mean[1:] - mean[:-1]]


def _largest(growth: Sequence[float]) -> list[list[Any]]:
    """The layers, counted from 0, that add most; what is not a number first."""
    order = sorted(range(len(growth)), key=lambda at: (math.isfinite(growth[at]), -growth[at], at))
    return [[at, _rounded(growth[at])] for at in order[:SHOWN]]


def _rounded(value: float) -> float | None:
    """Four digits behind the point; None where it is no number."""
    return round(value, 4) if math.isfinite(value) else None
