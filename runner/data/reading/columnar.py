"""Rows of Parquet and Arrow files, few at a time as Python objects."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runner.data.reading.lines import Numbered, repeated
from runner.errors import StepError

BATCH = 128
"""Rows of a Parquet or Arrow file that are held as Python objects at a time."""


def read_parquet(path: Path, name: str, begin: int) -> Numbered:
    """The rows behind the first `begin` ones; row groups before them are not read."""
    import pyarrow.parquet as pq

    with _arrow_errors(name), pq.ParquetFile(path) as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        group, before = 0, 0
        while group < len(sizes) and before + sizes[group] <= begin:
            before += sizes[group]
            group += 1
        groups = list(range(group, len(sizes)))
        batches = file.iter_batches(BATCH, row_groups=groups) if groups else ()
        yield from _rows(batches, before, begin, name)


def read_arrow(path: Path, name: str, begin: int) -> Numbered:
    """The rows of an Arrow file or stream behind the first `begin` ones."""
    with _arrow_errors(name):
        yield from _rows(_batches(path), 0, begin, name)


@contextmanager
def _arrow_errors(name: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        fact = f"{name}: cannot be read ({str(error).splitlines()[0]})."
        raise StepError(fact, "Is it whole? Fetch or write it again.") from error


def _batches(path: Path) -> Iterator[Any]:
    """Record batches of an Arrow file or stream, mapped into memory."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        if source.read(6) == b"ARROW1":
            reader = pa.ipc.open_file(source)
            batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            source.seek(0)
            batches = pa.ipc.open_stream(source)
        yield from batches


def _rows(batches: Iterable[Any], before: int, begin: int, name: str) -> Numbered:
    """Rows of batches, few at a time; the first batch starts at row `before`, from 0."""
    features = None
    for batch in batches:
        if features is None:
            features = _features(batch.schema, name)
        for start in range(max(0, begin - before), batch.num_rows, BATCH):
            part = batch.slice(start, BATCH).to_pylist()
            if features:
                part = [_parsed(row, features) for row in part]
            yield from enumerate(part, start=before + start + 1)
        before += batch.num_rows


def _features(schema: Any, name: str) -> Any:
    """What the datasets library noted of the columns, where it wrote some values as JSON texts."""
    if twice := repeated(schema.names):
        raise StepError(f"{name}: has {twice}.", "Rename all but one of them.")
    note = (schema.metadata or {}).get(b"huggingface", b"")
    return json.loads(note)["info"]["features"] if b'"_type": "Json"' in note else {}


def _parsed(value: Any, feature: Any) -> Any:
    """A value with its JSON texts parsed."""
    if value is None or not isinstance(feature, dict):
        return value
    if feature.get("_type") == "Json":
        return json.loads(value)
    if isinstance(value, list):
        return [_parsed(item, feature.get("feature")) for item in value]
    if isinstance(value, dict):
        return {key: _parsed(item, feature.get(key)) for key, item in value.items()}
    return value
