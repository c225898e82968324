"""Shards of tokens as the tables of a dataset: split, and packed, mostly left on disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runner.data import pack as packing
from runner.products import COLUMNS, Kind

BATCH = 500
"""Packs that are written together."""


def split(
    shards: Sequence[Path], size: int, held_out: Sequence[int], kind: Kind
) -> tuple[Any, Any]:
    """The rows to train on and those held out, in their order; `size` is that of a whole shard."""
    import datasets
    import numpy as np

    tables = [datasets.Dataset.from_file(str(path)) for path in shards]
    whole = datasets.concatenate_datasets(tables)
    numbers = np.concatenate(
        [n * size + table.data.column("index").to_numpy() for n, table in enumerate(tables)]
    )
    hidden = np.isin(numbers, np.asarray(held_out, dtype=np.int64))
    train, kept = (whole.select(np.flatnonzero(chosen)) for chosen in (~hidden, hidden))
    columns = [*COLUMNS[kind], *(["weights"] if kind == "sft" and _has_weights(whole) else [])]
    return train.select_columns(columns), kept.select_columns(["example", *columns])


def pack(train: Any, max_length: int, target: Path) -> tuple[Any, float]:
    """Rows packed into sequences of at most `max_length`, and the share of places that is used."""
    import datasets
    import pyarrow as pa

    rows = train.with_format("arrow")
    lengths = _lengths(rows)
    bins = packing.pack(lengths, max_length)
    kinds = {"weights": pa.float32()}
    names = [*train.column_names, "position_ids", "lengths"]
    schema = pa.schema({name: pa.list_(kinds.get(name, pa.int32())) for name in names})
    with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for begin in range(0, len(bins), BATCH):
            some = bins[begin : begin + BATCH]
            inside = rows[[row for one in some for row in one]]
            made = packing.packed(inside, [len(one) for one in some])
            writer.write_table(made.select(names).cast(schema))
    used = round(packing.efficiency(lengths, bins, max_length), 4)
    return datasets.Dataset.from_file(str(target)), used


def _lengths(rows: Any) -> list[int]:
    """Tokens of every row."""
    return [
        length
        for table in rows.iter(10_000)
        for length in table["input_ids"].combine_chunks().value_lengths().to_pylist()
    ]


def _has_weights(dataset: Any) -> bool:
    return any(
        table["weights"].null_count < len(table)
        for table in dataset.with_format("arrow").iter(10_000)
    )
