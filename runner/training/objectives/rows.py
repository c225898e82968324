"""The kinds of tokenized rows that an objective can learn from, told by their columns."""

from typing import Any

from runner.products import COLUMNS, Dataset, Kind
from runner.training.settings import Options

TOKENS: Kind = "sft"
PAIRS: Kind = "preference"
UNPAIRED: Kind = "unpaired"
WORDS = {
    TOKENS: "answers",
    PAIRS: "pairs of a better and a worse answer",
    UNPAIRED: "answers that are marked good or bad",
}
SHAPES = {TOKENS: "messages", PAIRS: "preference", UNPAIRED: "unpaired"}
"""The shape of a process step that makes them; one of several for answers."""


def made_by(shape: str) -> Kind | None:
    """The kind that a shape of a process step makes; None where only its rows tell."""
    if shape == "auto":
        return None
    known: dict[str, Kind] = {"preference": PAIRS, "unpaired": UNPAIRED}
    return known.get(shape, TOKENS)


def sets(options: Options, dataset: Dataset, kind: Kind) -> dict[str, Any]:
    """A Trainer's datasets: the rows to train on, and those held out that are looked at."""
    columns = list(COLUMNS[kind])
    looked_at = options.evaluate_rows
    count = len(dataset.held_out) if looked_at is None else min(looked_at, len(dataset.held_out))
    held_out = dataset.held_out.select(range(count)).select_columns(columns) if count else None
    return {"train_dataset": dataset.train.select_columns(columns), "eval_dataset": held_out}
