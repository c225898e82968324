"""Several file sets as one stream of rows: one after the other, or mixed by weights."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from runner.data.reading.folder import files_of
from runner.data.reading.lines import Place
from runner.data.reading.read import read
from runner.errors import StepError

Strategy = Literal["first_exhausted", "all_exhausted", "all_exhausted_without_replacement"]
"""When a mixture ends, and what becomes of a source that has no more rows before that.

The words and the meaning are those of `datasets.interleave_datasets`.
"""
AT_ONCE = 1000
"""Draws that are made at a time."""


@dataclass
class Position:
    """How far the reading of one source is: behind `row` rows of file number `file`."""

    file: int = 0
    row: int = 0
    read: int = 0
    """Rows taken in all."""
    rounds: int = 0
    """How often it began anew."""


class Source:
    """The raw rows of one file set; its position is always that behind the last row taken."""

    def __init__(self, root: Path, split: str | None, position: Position, name: str = "") -> None:
        self.root, self.position = root, position
        self.name, self.prefix = name, f"{name}/" if name else ""
        try:
            self.files = files_of(root, split)
        except StepError as error:
            raise _of(name, error) from None
        self._rows = self._follow()
        self._ahead: tuple[int, int, Place, Any] | None = None

    @property
    def left(self) -> bool:
        """Whether another row follows."""
        if self._ahead is None:
            self._ahead = next(self._rows, None)
        return self._ahead is not None

    def take(self) -> tuple[Place, Any]:
        """The next row, where one is left."""
        assert self._ahead is not None
        at = self.position
        (at.file, at.row, place, row), self._ahead = self._ahead, None
        at.read += 1
        return place, row

    def begin_anew(self) -> None:
        """Go back to the first row."""
        at = self.position
        at.file, at.row, at.rounds = 0, 0, at.rounds + 1
        self._rows = self._follow()

    def _follow(self) -> Iterator[tuple[int, int, Place, Any]]:
        """The rows behind the position, each with the position behind it."""
        first, begin = self.position.file, self.position.row
        for number in range(first, len(self.files)):
            rows = read(self.files[number], self.root, begin, self.prefix)
            for row, (place, value) in enumerate(rows, start=begin + 1):
                yield number, row, place, value
            begin = 0


def in_order(sources: Sequence[Source]) -> Iterator[Source]:
    """For every row the source to take it from: all of the first one, then the next."""
    for source in sources:
        while source.left:
            yield source


class Mixture:
    """Draws, for every row, the source to take it from; the same for the same seed.

    It goes on behind `drawn` draws, where the sources stand at the positions that those left.
    """

    def __init__(
        self, weights: Mapping[str, float], strategy: Strategy, seed: int, drawn: int = 0
    ) -> None:
        self.weights, self.strategy, self.seed, self.drawn = weights, strategy, seed, drawn

    def order(self, sources: Sequence[Source]) -> Iterator[Source]:
        """The source of every next row."""
        for source in sources:
            if not (source.left or source.position.read):
                raise StepError(f"{source.name}: has no rows to mix in.")
        chances = draws([self.weights[one.name] for one in sources], self.seed, self.drawn)
        while not self._ended(sources):
            source = sources[next(chances)]
            self.drawn += 1
            if not source.left and self.strategy == "all_exhausted":
                source.begin_anew()
            if source.left:
                yield source

    def _ended(self, sources: Sequence[Source]) -> bool:
        if self.strategy == "first_exhausted":
            return not all(source.left for source in sources)
        return all(source.position.rounds or not source.left for source in sources)


def draws(weights: Sequence[float], seed: int, begin: int = 0) -> Iterator[int]:
    """Numbers of sources, each as often as it weighs, without the first `begin` ones.

    They are those that `datasets.interleave_datasets` draws with this seed, made from PCG64's raw
    numbers, which numpy keeps for good.
    """
    import numpy as np

    borders = np.cumsum(np.asarray(weights, dtype=np.float64))
    borders /= borders[-1]
    numbers = np.random.PCG64(seed).advance(begin)
    while True:
        chances = (numbers.random_raw(AT_ONCE) >> np.uint64(11)) * 2.0**-53
        yield from borders.searchsorted(chances, side="right").tolist()


def _of(name: str, error: StepError) -> StepError:
    """The error, with the source that it is about."""
    return StepError(f"{name}: {error.fact}", error.command) if name else error
