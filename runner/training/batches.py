"""Which rows each step learns from, and how some of them become one batch of tensors."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.products import IGNORED

Row = Mapping[str, Any]
GROUP = 50
"""Batches among whose rows those of similar length are put together."""


@dataclass(frozen=True)
class Batch:
    """The rows of one step (of this process's share of it) and their numbers in the dataset.

    A process for which no row is left of a small batch has the first one, and learns nothing of it:
    the others wait for its gradients.
    """

    numbers: Sequence[int]
    rows: Sequence[Row]
    idle: bool = False


@dataclass(frozen=True)
class Order:
    """In which order rows are learned from; every epoch has its own, by the seed alone.

    `lengths` are the rows' numbers of tokens. Of `shares` processes, each takes every so-manieth
    row of a batch, the longest first, so that all have about as much to do.
    """

    lengths: Sequence[int]
    batch_size: int
    seed: int
    by_length: bool = False
    share: int = 0
    shares: int = 1

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def epoch(self, number: int) -> list[list[int]]:
        """The rows of each step of an epoch: every row once, the last batch may be smaller."""
        import numpy as np

        random = np.random.Generator(np.random.Philox([self.seed, number]))
        rows = random.permutation(len(self.lengths)).tolist()
        if self.by_length:
            rows = self._grouped(rows)
        size = self.batch_size
        batches = [rows[begin : begin + size] for begin in range(0, len(rows), size)]
        if self.by_length:
            batches = [batches[at] for at in random.permutation(len(batches))]
        return [sorted(batch, key=lambda row: -self.lengths[row]) for batch in batches]

    def steps_for(self, tokens: int) -> int:
        """The steps after which at least so many tokens were seen."""
        steps = epoch = seen = 0
        while True:
            for batch in self.epoch(epoch):
                steps, seen = steps + 1, seen + sum(self.lengths[row] for row in batch)
                if seen >= tokens:
                    return steps
            epoch += 1

    def shared(self, batch: Sequence[int]) -> list[int]:
        """The share of a batch that falls to us; where none is left, the first row as -1 - row."""
        return list(batch[self.share :: self.shares]) or [-1 - batch[0]]

    def _grouped(self, rows: list[int]) -> list[int]:
        wide = GROUP * self.batch_size
        groups = [rows[begin : begin + wide] for begin in range(0, len(rows), wide)]
        return [r for group in groups for r in sorted(group, key=lambda row: -self.lengths[row])]


class Sampler:
    """The numbers of the rows of each step of the epoch in which training stands."""

    def __init__(self, order: Order, step: Callable[[], int]) -> None:
        self.order, self.step = order, step

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.order.epoch(self.step() // len(self.order)):
            yield self.order.shared(batch)


class Numbered:
    """A dataset whose rows come with their numbers."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, numbers: list[int]) -> list[tuple[int, Row]]:
        there = [number if number >= 0 else -1 - number for number in numbers]
        return list(zip(numbers, self.rows.__getitems__(there), strict=True))


def loader(rows: Any, order: Order, step: Callable[[], int]) -> Any:
    """A DataLoader of Batches, from the step on at which training stands.

    What it draws of random numbers is its own, so that nothing else depends on when it began.
    """
    import torch

    numbered: Any = Numbered(rows)
    return torch.utils.data.DataLoader(
        numbered,
        batch_sampler=Sampler(order, step),
        collate_fn=_batch,
        generator=torch.Generator(),
    )


def _batch(pairs: Sequence[tuple[int, Row]]) -> Batch:
    numbers = [number for number, _ in pairs]
    return Batch(numbers, [row for _, row in pairs], idle=numbers[0] < 0)


def lengths(rows: Any) -> list[int]:
    """How many tokens each row of a dataset has, all its columns of ids together; reads no row."""
    import pyarrow.compute as pc

    names = [name for name in rows.column_names if name.endswith("_ids") and name != "position_ids"]
    total: list[int] = [0] * len(rows)
    for name in names:
        counts = pc.list_value_length(rows.data.column(name)).to_pylist()
        if rows._indices is not None:  # rows chosen among those that lie there
            counts = [counts[at] for at in rows._indices.column(0).to_pylist()]
        total = [a + b for a, b in zip(total, counts, strict=True)]
    return total


def tokens(rows: Sequence[Row]) -> int:
    """How many tokens rows have."""
    return sum(
        len(value)
        for row in rows
        for name, value in row.items()
        if name.endswith("_ids") and name != "position_ids"
    )


def items(rows: Sequence[Row]) -> float:
    """What a loss over rows is divided by: the trained tokens by their weights, else the rows.

    The first label of a row is never predicted.
    """
    if not rows or "labels" not in rows[0]:
        return float(len(rows))
    return sum(map(_trained, rows))


def _trained(row: Row) -> float:
    labels = row["labels"][1:]
    if "weights" not in row:
        return float(len(labels) - labels.count(IGNORED))
    pairs = zip(labels, _weights(row)[1:], strict=True)
    return float(sum(weight for label, weight in pairs if label != IGNORED))


def _weights(row: Row) -> Sequence[float]:
    """How much each token counts; all that are trained alike where the row does not say."""
    given: Sequence[float] | None = row["weights"]
    return [float(label != IGNORED) for label in row["labels"]] if given is None else given


def padded(rows: Sequence[Row], pad: int, multiple_of: int = 1) -> dict[str, Any]:
    """A batch as tensors, one row each, padded on the right to one length."""
    import torch

    fills = {"input_ids": pad, "labels": IGNORED, "attention_mask": 0, "weights": 0.0}
    whole = [{**row, "attention_mask": [1] * len(row["input_ids"])} for row in rows]
    if "weights" in whole[0]:
        whole = [{**row, "weights": _weights(row)} for row in whole]
    longest = max(len(row["input_ids"]) for row in rows)
    longest = -(-longest // multiple_of) * multiple_of
    return {
        name: torch.tensor([list(row[name]) + [fill] * (longest - len(row[name])) for row in whole])
        for name, fill in fills.items()
        if name in whole[0]
    }


def joined(rows: Sequence[Row], pad: int, multiple_of: int = 1) -> dict[str, Any]:
    """A batch as tensors in which all rows are one, kept apart by their positions alone."""
    from runner.data import pack

    return pack.collate([pack.joined(rows)], pad, multiple_of)
