"""Rows packed into sequences of one length: none is split, and none sees another.

A model keeps the rows of a pack apart by their positions, which restart at 0 with each row:
transformers builds a block-diagonal mask from them where it is given no attention mask and keeps no
cache (`masking_utils.find_packed_sequence_indices`). `crosses` asks a model whether it does.
"""

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from typing import Any

from runner.products import IGNORED

Row = dict[str, Any]


def pack(lengths: Sequence[int], max_length: int) -> list[list[int]]:
    """Bins of row numbers, each at most `max_length` long: best-fit decreasing.

    The longest row comes first, into the fullest bin that it fits; the same lengths always give the
    same bins. Raises ValueError for a row that is empty or longer than a bin.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])  # stable: earlier rows first
    if order and (lengths[order[0]] > max_length or lengths[order[-1]] < 1):
        raise ValueError(f"rows must have 1 to {max_length} tokens to be packed")
    bins: list[list[int]] = []
    spaces: list[int] = []  # the sizes of free space that some bin has, in rising order
    having: dict[int, list[int]] = {}  # the bins with that much free space
    for row in order:
        length = lengths[row]
        index = bisect_left(spaces, length)
        if index == len(spaces):
            number, space = len(bins), max_length
            bins.append([])
        else:
            space = spaces[index]
            number = having[space].pop()
            if not having[space]:
                del spaces[index], having[space]
        bins[number].append(row)
        if left := space - length:
            if left not in having:
                having[left] = []
                insort(spaces, left)
            having[left].append(number)
    return bins


def efficiency(lengths: Sequence[int], bins: Sequence[Sequence[int]], max_length: int) -> float:
    """The share of the packs' places that hold a token."""
    return sum(lengths) / (len(bins) * max_length) if bins else 1.0


def packed(rows: Any, sizes: Sequence[int]) -> Any:
    """The rows of an Arrow table as packs: each is the next `sizes[n]` rows, joined.

    Its columns are input_ids, labels and position_ids, weights where the rows have them, and
    `lengths`, those of the rows inside. No row's first token is predicted from the row before.
    """
    import numpy as np
    import pyarrow as pa

    lengths = rows["input_ids"].combine_chunks().value_lengths().to_numpy()
    edges = np.concatenate([[0], np.cumsum(lengths)])
    firsts = np.concatenate([[0], np.cumsum(sizes)])
    later = edges[np.setdiff1d(np.arange(len(lengths)), firsts)]
    values = {name: _flat(rows[name]) for name in ("input_ids", "labels")}
    if "weights" in rows.column_names:
        values["weights"] = _weights(rows["weights"], lengths, values["labels"] != IGNORED)
        values["weights"][later] = 0.0
    values["labels"][later] = IGNORED
    values["position_ids"] = np.arange(edges[-1], dtype=np.int32)
    values["position_ids"] -= np.repeat(edges[:-1], lengths).astype(np.int32)
    borders = pa.array(edges[firsts], pa.int32())
    columns = {name: pa.ListArray.from_arrays(borders, each) for name, each in values.items()}
    columns["lengths"] = pa.ListArray.from_arrays(pa.array(firsts, pa.int32()), lengths)
    return pa.table(columns)


def _flat(column: Any) -> Any:
    """The values of all lists of an Arrow column, as numbers of one's own."""
    return column.combine_chunks().flatten().to_numpy().copy()


def _weights(column: Any, lengths: Any, trained: Any) -> Any:
    """How much each token counts; in a row without weights, all that are trained count alike."""
    import numpy as np

    weights = trained.astype(np.float32)
    weights[np.repeat(column.is_valid().to_numpy(), lengths)] = _flat(column)
    return weights


def collate(packs: Sequence[Mapping[str, Any]], pad: int, multiple_of: int = 1) -> dict[str, Any]:
    """A batch of packs as tensors, padded on the right, for a Trainer's data_collator.

    There is no attention mask: it would switch the model's own mask off. A padding token has the
    position 0, so it counts as a row by itself, that sees nothing else and that nothing else sees.
    """
    import torch

    longest = max(len(one["input_ids"]) for one in packs)
    longest = -(-longest // multiple_of) * multiple_of
    fills = {"input_ids": pad, "labels": IGNORED, "position_ids": 0, "weights": 0.0}
    batch: dict[str, Any] = {
        name: torch.tensor([list(one[name]) + [fill] * (longest - len(one[name])) for one in packs])
        for name, fill in fills.items()
        if name in packs[0]
    }
    return batch | {"use_cache": False}  # with a cache the model makes no mask from positions


def crosses(model: Any, batch_size: int = 1) -> bool:
    """Whether a model lets a packed row see the row before it; it must not be trained on packs.

    Two rows are packed; then another first row must leave what the model says of the second alone.
    """
    import torch

    labels = [IGNORED] * 4
    second = {"input_ids": [4, 3, 2, 1], "labels": labels}
    firsts = [{"input_ids": ids, "labels": labels} for ids in ([1, 2, 3, 4], [4, 4, 1, 1])]
    was_training = model.training
    model.eval()
    said = []
    with torch.no_grad():
        for first in firsts:
            batch = collate([joined([first, second])] * batch_size, pad=0)
            del batch["labels"]
            on_device = {
                name: value.to(model.device) if torch.is_tensor(value) else value
                for name, value in batch.items()
            }
            said.append(model(**on_device).logits[:, 4:].float())
    model.train(was_training)
    return not torch.allclose(said[0], said[1], atol=1e-4, rtol=1e-3)


def joined(rows: Sequence[Mapping[str, Any]]) -> Row:
    """Rows as one pack."""
    import pyarrow as pa

    names = [name for name in ("input_ids", "labels", "weights") if name in rows[0]]
    table = pa.Table.from_pylist([{name: row[name] for name in names} for row in rows])
    pack: Row = packed(table, [len(rows)]).to_pylist()[0]
    return pack
