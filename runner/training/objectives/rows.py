"""The kinds of tokenized rows that an objective can learn from, told by their columns."""

from typing import Any

from runner.products import Dataset
from runner.training.settings import Options

TOKENS, PAIRS, UNPAIRED = "tokens", "pairs", "unpaired"
COLUMNS = {
    PAIRS: ("prompt_ids", "chosen_ids", "rejected_ids"),
    UNPAIRED: ("prompt_ids", "completion_ids", "label"),
    TOKENS: ("input_ids", "labels"),
}
WORDS = {
    TOKENS: "answers",
    PAIRS: "pairs of a better and a worse answer",
    UNPAIRED: "answers that are marked good or bad",
}
SHAPES = {TOKENS: "messages", PAIRS: "preference", UNPAIRED: "unpaired"}
"""The shape of a process step that makes them; one of several for answers."""


def kind(dataset: Dataset) -> str:
    """Which kind a dataset's rows are."""
    names = set(dataset.train.column_names)
    return next((kind for kind, columns in COLUMNS.items() if names >= set(columns)), TOKENS)


def made_by(shape: str) -> str | None:
    """The kind that a shape of a process step makes; None where only its rows tell."""
    if shape == "auto":
        return None
    return {"preference": PAIRS, "unpaired": UNPAIRED}.get(shape, TOKENS)


def sets(options: Options, dataset: Dataset, kind: str) -> dict[str, Any]:
    """A Trainer's datasets: the rows to train on, and those held out that are looked at."""
    columns = list(COLUMNS[kind])
    looked_at = getattr(options, "evaluate_rows", 0)
    count = len(dataset.held_out) if looked_at is None else min(looked_at, len(dataset.held_out))
    held_out = dataset.held_out.select(range(count)).select_columns(columns) if count else None
    return {"train_dataset": dataset.train.select_columns(columns), "eval_dataset": held_out}
