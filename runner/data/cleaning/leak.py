"""Rows that also stand among the rows held out, found by the runs of words that they share."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from runner.data.cleaning.text import exchanged, shingles, words

COMMON = 10
"""A run of words in more held-out rows than this is a set phrase (arXiv:2005.14165, C)."""


class Leaks:
    """The n-grams of the rows held out. System prompts don't count: many rows share them."""

    def __init__(self, held_out: Iterable[Mapping[str, Any]], ngram: int, share: float) -> None:
        self.ngram, self.share = ngram, share
        self._whole: set[bytes] = set()
        self._rows: dict[int, tuple[int, ...]] = {}
        self._sizes: Counter[int] = Counter()
        for row, example in enumerate(held_out):
            self._add(row, words(exchanged(example)))
        self._common = {gram for gram, rows in self._rows.items() if len(rows) > COMMON}
        for gram, rows in self._rows.items():
            if gram not in self._common:
                self._sizes.update(rows)

    def overlap(self, example: Mapping[str, Any]) -> float:
        """The share of the row that stands in held-out rows, or of one of those that stands in it.

        0 for nothing, 1 for all. A row with fewer words than an n-gram counts only as a whole.
        """
        said = words(exchanged(example))
        if _digest(said) in self._whole:
            return 1.0
        if len(said) < self.ngram:
            return 0.0
        grams = set(shingles(said, self.ngram).tolist()) - self._common
        found = [gram for gram in grams if gram in self._rows]
        if not found:
            return 0.0
        inside = Counter(row for gram in found for row in self._rows[gram])
        return max(len(found) / len(grams), *(n / self._sizes[row] for row, n in inside.items()))

    def leaked(self, example: Mapping[str, Any]) -> bool:
        """Whether the overlap reaches the share."""
        return self.overlap(example) >= self.share

    def _add(self, row: int, said: list[str]) -> None:
        if said:
            self._whole.add(_digest(said))
        if len(said) >= self.ngram:
            for gram in shingles(said, self.ngram).tolist():
                rows = self._rows.get(gram, ())
                if len(rows) <= COMMON:
                    self._rows[gram] = (*rows, row)


def _digest(said: list[str]) -> bytes:
    return hashlib.blake2b(" ".join(said).encode(), digest_size=16).digest()
