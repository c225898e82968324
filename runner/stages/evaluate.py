"""Score answers against what was expected, and measure perplexity before and after quantizing."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from runner import products
from runner.errors import StepError
from runner.options import Fault, option
from runner.products import Model, Row
from runner.recipe import Step
from runner.stage import (
    Context,
    Need,
    never_stale,
    pins_nothing,
    resolves_nothing,
    takes_little_room,
    writes_text,
)

NEEDS: Mapping[str, Need] = {
    "texts": Need(kind="text", many=True, optional=True),
    "dataset": Need(kind="dataset", optional=True),
    "reference": Need(kind="model", named=True),
    "model": Need(kind="model", optional=True),
}
GIVES = "scores"
VERSION = 1
PARTS = False
HOLDS = True


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    samples: int = option(3, "Answers shown side by side", at_least=0)
    perplexity_rows: int = option(
        64, "Rows held out to measure perplexity on; 0 is none", at_least=0
    )
    perplexity_on: Literal["answers", "all"] = option(
        "answers", "Which tokens count: those that are trained, or every one"
    )
    batch_size: int = option(8, "Rows a forward pass", keyed=False, at_least=1)


resolve = resolves_nothing
pins = pins_nothing
stale = never_stale
room = takes_little_room
save = products.save_scores
restore = products.restore_scores


def check(options: Options, inputs: Mapping[str, tuple[Step, ...]]) -> list[Fault]:
    """There must be something to score."""
    if not inputs.get("texts") and not inputs.get("model"):
        return [Fault((), "there is neither text nor a model to score before this step.")]
    return writes_text(inputs)


def run(options: Options, inputs: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """Exact match of every text, samples of all side by side, perplexity of the models."""
    texts: Mapping[str, list[Row]] = inputs.get("texts", {})
    scores: dict[str, Any] = {
        "exact_match": {name: exact_match(rows) for name, rows in texts.items()},
        "samples": _samples(texts, options.samples),
        "perplexity": {},
    }
    roles = [role for role in ("reference", "model") if role in inputs]
    if options.perplexity_rows and "dataset" in inputs:
        rows = inputs["dataset"].scored(options.perplexity_rows)
        if not rows:
            raise StepError("no rows are held out to measure perplexity on.")
        for done, role in enumerate(roles):
            report = partial(_report, context, done * len(rows), len(roles) * len(rows))
            scores["perplexity"][role] = perplexity(inputs[role], rows, options, report)
            context.stop_here()
    context.facts |= scores
    return scores


def exact_match(rows: Sequence[Row]) -> float:
    """The share of answers that are the expected text, to the letter."""
    return sum(bool(row["answer"] == row["expected"]) for row in rows) / len(rows)


def perplexity(
    model: Model, rows: Sequence[Row], options: Options, report: Callable[[int], None]
) -> float:
    """exp of the mean negative log-likelihood of the tokens that count, given those before."""
    import torch

    device, total, count = model.model.device, 0.0, 0
    column = "labels" if options.perplexity_on == "answers" else "input_ids"
    for start in range(0, len(rows), options.batch_size):
        batch = rows[start : start + options.batch_size]
        ids = _padded([row["input_ids"] for row in batch], 0, device)
        mask = _padded([[1] * len(row["input_ids"]) for row in batch], 0, device)
        targets = _padded([row[column] for row in batch], products.IGNORED, device)[:, 1:]
        with torch.inference_mode():
            output = model.model(input_ids=ids, attention_mask=mask).logits
        logits = output[:, -ids.shape[1] : -1].float()  # a trained prompt stands before the rows
        losses = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=products.IGNORED, reduction="sum"
        )
        total, count = total + losses.item(), count + int((targets != products.IGNORED).sum())
        report(start + len(batch))
    return round(math.exp(total / count), 4)


def _report(context: Context, before: int, total: int, rows: int) -> None:
    context.progress(before + rows, total, "rows")


def _padded(rows: Sequence[list[int]], filling: int, device: Any) -> Any:
    """Rows of ids as one tensor (rows x longest), filled up on the right."""
    import torch

    width = max(map(len, rows))
    return torch.tensor([row + [filling] * (width - len(row)) for row in rows], device=device)


def _samples(texts: Mapping[str, list[Row]], count: int) -> list[Row]:
    """The first rows, with the answer of every text."""
    found: dict[str, Row] = {}
    for name, rows in texts.items():
        for row in rows[:count]:
            sample = found.setdefault(
                row["prompt"], {"prompt": row["prompt"], "expected": row["expected"], "answers": {}}
            )
            sample["answers"][name] = row["answer"]
    return list(found.values())[:count]
