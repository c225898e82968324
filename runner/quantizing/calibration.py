"""The rows that a method sees the model at work on."""

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from runner.errors import Finding, Problem, Severity, StepError
from runner.products import COLUMNS, Dataset
from runner.quantizing.settings import Calibration

USUAL_ROWS, USUAL_TOKENS = 128, 32_768
"""Below these a result begins to depend on which rows were drawn; papers take 128 of 2,048."""


def rows(dataset: Dataset, wanted: Calibration, note: Callable[[str], None]) -> list[list[int]]:
    """Token ids of rows to train on, drawn by the seed, each cut to `max_length`.

    They are as `process` rendered them with the model's own template. StepError where there are
    none.
    """
    found = drawn(dataset, wanted.rows, wanted.max_length, wanted.seed)
    if not found:
        raise StepError("there is no row to calibrate with.")
    _warn(found, note)
    return found


def drawn(dataset: Dataset, count: int, max_length: int, seed: int) -> list[list[int]]:
    """Token ids of at most so many rows to train on, in the order that they were drawn in."""
    columns = [name for name in COLUMNS[dataset.kind] if name not in ("labels", "label")]
    total = len(dataset.train)
    numbers = random.Random(seed).sample(range(total), min(count, total))  # noqa: S311
    chosen = dataset.train.select_columns(columns).select(numbers)
    cut = (_ids(row)[:max_length] for row in chosen)
    return [ids for ids in cut if len(ids) > 1]


def _ids(row: Mapping[str, Any]) -> list[int]:
    """A row as one text: of preferences the wanted answer after its prompt."""
    if "input_ids" in row:
        return list(row["input_ids"])
    return [*row["prompt_ids"], *row.get("chosen_ids", row.get("completion_ids", ()))]


def hints(wanted: Calibration, dataset: Mapping[str, Any]) -> Iterator[Finding]:
    """What can be known of the calibration before there are rows; `dataset` as far as is known."""
    rows = min(wanted.rows, dataset.get("counts", {}).get("rows", wanted.rows))
    most = rows * min(wanted.max_length, dataset.get("max_length", wanted.max_length))
    if rows < USUAL_ROWS or most < USUAL_TOKENS:
        fact = (
            f"calibrates with at most {rows} rows of {most:,} tokens in all; usual are at least"
            f" {USUAL_ROWS} rows and {USUAL_TOKENS:,} tokens."
        )
        change = "See calibration.rows and calibration.max_length: runner show quantize"
        yield Finding(Severity.WARNING, Problem("", fact, command=change))


def _warn(found: list[list[int]], note: Callable[[str], None]) -> None:
    tokens = sum(map(len, found))
    if len(found) < USUAL_ROWS or tokens < USUAL_TOKENS:
        note(
            f"calibrated with {len(found)} rows of {tokens:,} tokens in all; usual are at least"
            f" {USUAL_ROWS} rows and {USUAL_TOKENS:,} tokens"
        )
