"""Answers on disk: each as soon as it is there, and all of them in the end."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runner import products
from runner.products import Row

PLACE = "n"
"""What a kept line has beside its row: the place of the row in the product."""


class Journal:
    """The rows that are there, by their place; what a kill has torn at the end is cut off."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows: dict[int, Row] = {}
        if path.exists():
            os.truncate(path, self._read(path.read_bytes()))

    def add(self, rows: Mapping[int, Row]) -> None:
        """Keep the rows of one batch."""
        with open(self._path, "a", encoding="utf-8") as file:
            for place, row in rows.items():
                file.write(json.dumps({PLACE: place, **row}, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.rows.update(rows)

    def _read(self, text: bytes) -> int:
        """Take the whole lines, and say how many bytes they are."""
        size = 0
        for line in text.splitlines(keepends=True):
            try:
                row = json.loads(line)
            except ValueError:
                break
            if not line.endswith(b"\n"):
                break
            self.rows[row.pop(PLACE)] = row
            size += len(line)
        return size


def save(product: Sequence[Row], folder: Path) -> None:
    """Write rows as JSON lines, and as one parquet table of the same columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    products.save_rows(product, folder)
    schema = pa.schema([(name, kind(pa)) for name, kind in KINDS.items() if name in product[0]])
    pq.write_table(pa.Table.from_pylist(list(product), schema), folder / "rows.parquet")


KINDS: Mapping[str, Any] = {
    "id": lambda pa: pa.string(),
    "prompt": lambda pa: pa.string(),
    "sample": lambda pa: pa.int32(),
    "expected": lambda pa: pa.string(),
    "answer": lambda pa: pa.string(),
    "finish": lambda pa: pa.string(),
    "reason": lambda pa: pa.string(),
    "prompt_tokens": lambda pa: pa.int32(),
    "answer_tokens": lambda pa: pa.int32(),
    "logprobs": lambda pa: pa.list_(pa.float32()),
}
"""The columns of a row: `finish` is stop, length or error, and `reason` says why it is an error;
`answer_tokens` counts what ended the answer too; `logprobs` has one number for each of them."""
