"""How far two files are from one another, number by number."""

import json
import math
from collections.abc import Callable, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

OTHER = math.inf
"""The distance of what is not the same in anything but numbers, or cannot be told."""


def of_files(before: Path, after: Path) -> float:
    """The distance of two files by what they hold; OTHER where their form is not known."""
    measure = FORMS.get(before.suffix)
    return measure(before, after) if measure else OTHER


def of_values(before: Any, after: Any) -> float:
    """The largest difference of two numbers in the same place, of the larger one or of 1.

    OTHER where a text, a name or the number of values is not the same.
    """
    if _is_number(before) and _is_number(after):
        return _of_numbers(float(before), float(after))
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        if before.keys() != after.keys():
            return OTHER
        return max((of_values(before[name], after[name]) for name in before), default=0.0)
    if isinstance(before, list) and isinstance(after, list):
        if len(before) != len(after):
            return OTHER
        return max(map(of_values, before, after), default=0.0)
    return 0.0 if before == after else OTHER


def rows_apart(before: Path, after: Path, tolerance: float) -> tuple[int, int]:
    """Of two files of JSON lines, how many rows are further apart than that, and of how many."""
    pairs = [*zip_longest(_lines(before), _lines(after))]
    return sum(of_values(*pair) > tolerance for pair in pairs), len(pairs)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _of_numbers(before: float, after: float) -> float:
    if before == after or (math.isnan(before) and math.isnan(after)):
        return 0.0
    found = abs(before - after) / max(1.0, abs(before), abs(after))
    return found if math.isfinite(found) else OTHER


def _of_tensors(before: Path, after: Path) -> float:
    """The largest difference in a tensor, of the largest number of that tensor.

    One tensor at a time is in memory. Whole numbers are codes, of which none is near another.
    """
    from safetensors import safe_open

    with safe_open(before, "pt") as first, safe_open(after, "pt") as second:
        if {*first.keys()} != {*second.keys()}:
            return OTHER
        names = first.keys()
        return max((_apart(first.get_tensor(n), second.get_tensor(n)) for n in names), default=0.0)


def _apart(before: Any, after: Any) -> float:
    if before.shape != after.shape or before.dtype != after.dtype:
        return OTHER
    if not before.is_floating_point() or not before.numel():
        return 0.0 if bool((before == after).all()) else OTHER
    before, after = before.float(), after.float()
    largest = float(before.abs().max())
    found = float((before - after).abs().max()) / (largest or 1.0)
    return found if math.isfinite(found) else OTHER


def _of_json(before: Path, after: Path) -> float:
    return of_values(*(json.loads(path.read_text(encoding="utf-8")) for path in (before, after)))


def _of_lines(before: Path, after: Path) -> float:
    return of_values(list(_lines(before)), list(_lines(after)))


def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _of_tables(before: Path, after: Path) -> float:
    import pyarrow.parquet as pq

    return of_values(*(pq.read_table(path).to_pylist() for path in (before, after)))


FORMS: Mapping[str, Callable[[Path, Path], float]] = {
    ".safetensors": _of_tensors,
    ".json": _of_json,
    ".jsonl": _of_lines,
    ".parquet": _of_tables,
}
