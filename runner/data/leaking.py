"""Rows to train on that ask what rows held out ask, found by their tokens, few at a time."""

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from runner.products import IGNORED

if TYPE_CHECKING:
    import numpy as np

    Numbers = np.ndarray[Any, Any]

BATCH = 1000
"""Rows that are looked at together."""


def leaked(train: Any, held_out: Any) -> int:
    """How many rows to train on have the very tokens of what precedes an answer held out."""
    import numpy as np

    asked = {digest for question in _questions(held_out) for digest in question.digests()}
    if not asked:
        return 0
    known = np.unique(np.concatenate([each.hashes() for each in _questions(held_out)]))
    return sum(
        digest in asked
        for question in _questions(train)
        for digest in question.digests(np.isin(question.hashes(), known))
    )


class _Questions:
    """What precedes the answers of some rows: tokens, with the first and last place of each."""

    def __init__(self, ids: "Numbers", begins: "Numbers", ends: "Numbers") -> None:
        self.ids, self.begins, self.ends = ids, begins, ends

    def digests(self, chosen: "Numbers | None" = None) -> Iterator[bytes]:
        """16 bytes for each of the rows, or of those chosen."""
        pairs = zip(self.begins, self.ends, strict=True)
        for number, (begin, end) in enumerate(pairs):
            if chosen is None or chosen[number]:
                asked = self.ids[begin:end].tobytes()
                yield hashlib.blake2b(asked, digest_size=16).digest()

    def hashes(self) -> "Numbers":
        """A number for each row: where two are different, so are the rows."""
        import numpy as np

        lengths = self.ends - self.begins
        places = np.arange(len(self.ids), dtype=np.uint64) - np.repeat(
            self.begins, np.diff(self.begins, append=len(self.ids))
        ).astype(np.uint64)
        mixed = (self.ids.astype(np.uint64) << np.uint64(32)) + places
        mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15)
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed ^ (mixed >> np.uint64(29)))])
        hashed: Numbers = sums[self.ends] - sums[self.begins] + lengths.astype(np.uint64)
        return hashed


def _questions(rows: Any) -> Iterator[_Questions]:
    """The questions of all rows, in batches."""
    paired = "prompt_ids" in rows.column_names
    columns = ["prompt_ids"] if paired else ["input_ids", "labels"]
    for table in rows.select_columns(columns).with_format("arrow").iter(BATCH):
        ids, borders = _values(table[columns[0]])
        begins, ends = borders[:-1], borders[1:]
        if not paired:
            ends = _before_answers(_values(table["labels"])[0], begins, ends)
        yield _Questions(ids, begins, ends)


def _before_answers(labels: "Numbers", begins: "Numbers", ends: "Numbers") -> "Numbers":
    """The first place that is trained in each row; where that is its first, the row's end."""
    import numpy as np

    trained = np.append(np.flatnonzero(labels != IGNORED), len(labels))
    firsts = np.minimum(trained[np.searchsorted(trained, begins)], ends)
    return np.where(firsts == begins, ends, firsts)


def _values(column: Any) -> "tuple[Numbers, Numbers]":
    """The values of all lists, and the places where each list begins and the last one ends."""
    import numpy as np

    lists = column.combine_chunks()
    borders = lists.offsets.to_numpy().astype(np.int64)
    return lists.values.to_numpy()[borders[0] : borders[-1]], borders - borders[0]
