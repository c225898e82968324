"""Figures over time: the rows that a step measures, in a file that outlives a crash."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from runner import hardware
from runner.files import ABSENT, write_text
from runner.secrets import masked

NAME = "metrics.jsonl"

Row = Mapping[str, Any]


class Metrics:
    """The rows of one step as it works, those of its earlier attempts before its own.

    Each gets the `seconds` that the step has worked by then, in all its attempts, and the `memory`
    that the process holds, in bytes (and `gpu_memory`).
    """

    def __init__(self, path: Path) -> None:
        self.path, self.earlier = path, current(read(path))
        self.begun = time.monotonic() - max((r.get("seconds", 0) for r in self.earlier), default=0)
        if self.earlier:  # without a line that a kill has torn
            write_text(path, "".join(map(_line, self.earlier)))

    def add(self, row: Row) -> Row:
        """Keep a row, and give it as it was kept."""
        seconds = round(time.monotonic() - self.begun, 3)
        whole: Row = masked({**row, "seconds": seconds, **hardware.memory()})
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(_line(whole))
        return whole


def current(rows: Iterable[Row]) -> list[Row]:
    """The rows that count, each `step` once and in order.

    A row with an earlier step than the one before says that the work was taken up again from there:
    what was measured from that step on no longer counts. Rows of one step are joined.
    """
    found: list[Row] = []
    for row in rows:
        step = _step(row)
        while step is not None and found and (_step(found[-1]) or step) > step:
            found.pop()
        same = step is not None and found and _step(found[-1]) == step
        found.append({**found.pop(), **row} if same else row)
    return found


def read(path: Path) -> Iterator[Row]:
    """The rows of a file as they were written; lines that are torn are left out."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except ABSENT:
        return
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            yield row


def _step(row: Row) -> float | None:
    step = row.get("step")
    return step if isinstance(step, (int, float)) else None


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
