"""The gate: what was written is read back in a new process and held against its source."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from runner import products
from runner.errors import StepError
from runner.products import IGNORED, Dataset
from runner.quantizing import calibration, methods, processes
from runner.quantizing.settings import Gate, Options
from runner.stage import Context

WARNED = 0.10
"""The rise of perplexity that is said aloud."""
Shown = Mapping[str, list[int]]
"""`ids` of a row, and `labels`: the same ids where a token counts."""
LONGEST = 4096
"""Characters of the documentation that are made tokens of for one row."""


def stand(
    whole: Path, made: Path, dataset: Dataset | None, options: Options, context: Context
) -> dict[str, Any]:
    """Measure both models, and raise StepError where the result is not worth keeping."""
    shown, what = rows(dataset, partial(products.open_tokenizer, made), options.gate)
    found = compared(whole, made, shown, options, context)
    judge(found, options.gate, context.note)
    return {**found, "measured_on": what}


def compared(
    whole: Path, made: Path, shown: list[Shown], options: Options, context: Context
) -> dict[str, Any]:
    """What `measuring.compare` finds, in a process of its own, and by how much perplexity rose."""
    asked = {"whole": str(whole.resolve()), "made": str(made.resolve()), "rows": shown}
    found = processes.ask("measure", asked, context, methods.of(options).environment)
    rise = _rise(found["perplexity_before"], found["perplexity"])
    return {**found, "perplexity_increase": rise}


def judge(found: Mapping[str, Any], gate: Gate, note: Callable[[str], None]) -> None:
    """Warn of a perplexity that rises, and fail where it rises too much."""
    before, after, rise = (
        found[name] for name in ("perplexity_before", "perplexity", "perplexity_increase")
    )
    if before is None:
        raise StepError("the model gives no numbers even before it is quantized.")
    layers = ", ".join(str(layer) for layer, _ in found["largest_errors"])
    if rise is None or rise > gate.max_perplexity_increase:
        shown = "no number" if after is None else f"{after:,.2f}"
        raise StepError(
            f"quantized, the perplexity is {shown} and was {before:,.2f}: more than"
            f" {gate.max_perplexity_increase:.0%} up. The layers that err most: {layers}.",
            "Take more bits, a smaller group_size, another method, or let those layers be:"
            " quantize.skip=[layers.N.]; quantize.gate.max_perplexity_increase allows more",
        )
    if rise > WARNED:
        note(
            f"perplexity rose by {rise:.0%}, {before:,.2f} to {after:,.2f};"
            f" the layers that err most: {layers}"
        )


def rows(
    dataset: Dataset | None, tokenizer: Callable[[], Any], gate: Gate
) -> tuple[list[Shown], str]:
    """The rows to be shown and what they are.

    Those held out, of which the tokens count that others are trained on; else rows of the dataset;
    else texts that Python brings with it.
    """
    if dataset is None:
        return _documentation(tokenizer(), gate), "Python's documentation"
    if len(dataset.held_out):
        found = (_ending(row, gate.max_length) for row in dataset.scored(gate.rows))
        return [row for row in found if any(map(_counts, row["labels"][1:]))], "rows held out"
    drawn = calibration.drawn(dataset, gate.rows, gate.max_length, seed=1)
    return [_whole(ids) for ids in drawn], "rows that are trained on, for none are held out"


def _documentation(tokenizer: Any, gate: Gate) -> list[Shown]:
    from pydoc_data.topics import topics

    texts = [topics[name][:LONGEST] for name in sorted(topics)]
    found = tokenizer(texts[: gate.rows], add_special_tokens=True)["input_ids"]
    return [_whole(ids[: gate.max_length]) for ids in found if len(ids) > 1]


def _ending(row: Mapping[str, list[int]], length: int) -> Shown:
    """The end of a row, where the answer stands."""
    return {"ids": row["input_ids"][-length:], "labels": row["labels"][-length:]}


def _whole(ids: list[int]) -> Shown:
    """A row of which every token counts."""
    return {"ids": ids, "labels": ids}


def _counts(label: int) -> bool:
    return label != IGNORED


def _rise(before: float | None, after: float | None) -> float | None:
    """The relative rise; None where there is no number."""
    if before is None or after is None:
        return None
    return round(after / before - 1, 4)
