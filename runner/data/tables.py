"""Shards of tokens as the tables of a dataset: split, and packed, mostly left on disk."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from runner.data import pack as packing

BATCH = 500
"""Packs that are written together."""


def split(shards: Sequence[Path], size: int, held_out: Collection[int]) -> tuple[Any, Any]:
    """The rows to train on and those held out, in their order; `size` is that of a whole shard."""
    import datasets

    tables = [datasets.Dataset.from_file(str(path)) for path in shards]
    whole, hidden = datasets.concatenate_datasets(tables), set(held_out)
    numbers = [n * size + index for n, table in enumerate(tables) for index in table["index"]]
    train = whole.select([at for at, n in enumerate(numbers) if n not in hidden])
    kept = whole.select([at for at, n in enumerate(numbers) if n in hidden])
    columns = ["input_ids", "labels", *(["weights"] if _has_weights(whole) else [])]
    return train.select_columns(columns), kept.select_columns(["example", *columns])


def pack(train: Any, max_length: int, target: Path) -> tuple[Any, float]:
    """Rows packed into sequences of at most `max_length`, and the share of places that is used."""
    import datasets
    import pyarrow as pa

    rows = _Rows(train)
    lengths = rows.lengths()
    bins = packing.pack(lengths, max_length)
    names = [*train.column_names, "position_ids", "lengths"]
    kinds = {"weights": pa.float32()}
    schema = pa.schema({name: pa.list_(kinds.get(name, pa.int32())) for name in names})
    packs = packing.packed(rows, bins)
    with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        while batch := list(islice(packs, BATCH)):
            writer.write_table(pa.Table.from_pylist(batch, schema))
    used = round(packing.efficiency(lengths, bins, max_length), 4)
    return datasets.Dataset.from_file(str(target)), used


class _Rows(Sequence[Mapping[str, Any]]):
    """Rows of lists of numbers by number, read from where they lie."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset.with_format("arrow")
        self._names = dataset.column_names

    def lengths(self) -> list[int]:
        """Tokens of every row."""
        import pyarrow.compute as pc

        return [
            length
            for table in self._dataset.iter(10_000)
            for length in pc.list_value_length(table["input_ids"]).to_pylist()
        ]

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, number: Any) -> Any:
        table = self._dataset[int(number)]
        return {name: table[name][0].as_py() for name in self._names}

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return (self[number] for number in range(len(self)))


def _has_weights(dataset: Any) -> bool:
    return any(
        table["weights"].null_count < len(table)
        for table in dataset.with_format("arrow").iter(10_000)
    )
