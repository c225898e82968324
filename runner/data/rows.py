"""Rows of any source in one form, in shards on disk: read once, gone on with after a crash.

Each shard is a file of JSON lines, `{"place": "rows.jsonl:3", "example": {...}}`, and beside it
stands the state behind its last row, from which the next one goes on. `about.json` comes last.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from runner import files
from runner.data.cleaning.clean import Filters
from runner.data.cleaning.filters import Filter
from runner.data.mixing import Mixture, Position, Source, Strategy, in_order
from runner.data.reading.lines import BadRow, Place
from runner.data.shapes.table import KINDS, SHAPES, convert, detect, kind_of_example
from runner.errors import StepError, did_you_mean, listing
from runner.stage import Context

SHARD = 5000
"""Rows in a shard: the most that a kill loses."""
PLACES_SHOWN = 3
ABOUT = "about.json"

Example = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What decides which rows there are; `roots` are the folders of the sources by their names."""

    roots: Mapping[str, Path]
    weights: Mapping[str, float]
    strategy: Strategy
    split: str | None
    shape: str
    columns: Mapping[str, str]
    first: int | None
    skips: bool
    filters: Sequence[Filter]
    seed: int


@dataclass
class State:
    """How far the reading is."""

    sources: dict[str, Position] = field(default_factory=dict)
    drawn: int = 0
    read: int = 0
    kept: int = 0
    kind: str = ""
    kind_seen: str = ""
    shapes: dict[str, str] = field(default_factory=dict)
    bad: dict[str, int] = field(default_factory=dict)
    bad_places: list[str] = field(default_factory=list)

    @classmethod
    def restored(cls, plain: Mapping[str, Any]) -> "State":
        """The state that `dataclasses.asdict` made plain."""
        positions = {name: Position(**each) for name, each in plain["sources"].items()}
        return cls(**{**plain, "sources": positions})


def write(reading: Reading, folder: Path, context: Context) -> None:
    """Fill a folder with shards, from where an earlier process left it."""
    if (folder / ABOUT).exists():
        return
    state, filters = State(), Filters(reading.filters, reading.seed)
    done = [files.read_json(path) for path in sorted(folder.glob("*.state.json"))]
    if done:
        state = State.restored(done[-1]["state"])
        filters.restore(*(each["filters"] for each in done))
    kept = filters.apply(_Examples(reading, state, context))
    for number in range(len(done), 10**9):
        count = _write_shard(folder / f"{number:05d}.jsonl", islice(kept, SHARD))
        state.kept += count
        if count < SHARD:
            break
        told = {"state": asdict(state), "filters": filters.state(new=True)}
        files.write_json(folder / f"{number:05d}.state.json", told)
        context.progress(state.kept, state.kept, "rows")
        context.stop_here()
    about = asdict(state) | {"filters": filters.counts, "dropped": filters.dropped_examples}
    files.write_json(folder / ABOUT, about)
    for path in folder.glob("*.state.json"):
        path.unlink()


def shards(folder: Path) -> list[Path]:
    """The files of rows, in order."""
    return sorted(folder.glob("*.jsonl"))


def rows_of(shard: Path) -> Iterator[tuple[str, Example]]:
    """The place and the example of every row of a shard."""
    with open(shard, encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            yield row["place"], row["example"]


def _write_shard(path: Path, rows: Iterator[tuple[Place, Example]]) -> int:
    """Write one shard whole, and give the number of its rows; an empty one is not written."""
    count, temporary = 0, path.with_suffix(".new")
    with open(temporary, "w", encoding="utf-8") as file:
        for place, example in rows:
            row = {"place": str(place), "example": example}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    if count:
        os.replace(temporary, path)
    else:
        temporary.unlink()
    return count


def _shapeless(row: Mapping[str, Any]) -> BadRow:
    """No shape fits a row: say the nearest column that one has, or which shapes there are."""
    needed = [name for shape in SHAPES.values() for name in shape.needs]
    near = next(filter(None, (did_you_mean(name, needed) for name in row)), "")
    guess = near or f"Name your columns by process.columns; the shapes are {listing([*SHAPES])}."
    return BadRow(f"no shape has the columns {listing(sorted(row))}.", guess)


class _Examples:
    """The rows of all sources as examples, with the state always that behind the last one given."""

    def __init__(self, reading: Reading, state: State, context: Context) -> None:
        self.reading, self.state, self.context = reading, state, context
        self.several = len(reading.roots) > 1
        self.sources = [
            Source(
                root,
                reading.split,
                state.sources.setdefault(name, Position()),
                name if self.several else "",
            )
            for name, root in reading.roots.items()
        ]

    def __iter__(self) -> Iterator[tuple[Place, Example]]:
        """Each row that can be read and has the right shape; one for every turn of a source."""
        order = self._order()
        while not self._enough() and (source := next(order, None)):
            while source.left and not self._enough():
                place, row = source.take()
                self.state.read += 1
                example = self._example(place, row)
                if example is not None:
                    yield place, example
                    break

    def _order(self) -> Iterator[Source]:
        """The source of each next row."""
        if not (self.several and self.reading.weights):
            yield from in_order(self.sources)
            return
        how = self.reading
        mixture = Mixture(how.weights, how.strategy, how.seed, self.state.drawn)
        for source in mixture.order(self.sources):
            self.state.drawn = mixture.drawn
            yield source

    def _enough(self) -> bool:
        return self.reading.first is not None and self.state.read >= self.reading.first

    def _example(self, place: Place, row: Any) -> Example | None:
        try:
            if isinstance(row, BadRow):
                raise row
            columns = self._columns(row)
            example = convert(self._shape(place, row, columns), row, columns)
        except BadRow as bad:
            if not self.reading.skips:
                skip = "Leave such rows out: process.on_bad_row=skip"
                raise StepError(f"{place}: {bad}", skip) from None
            self.state.bad = dict(Counter(self.state.bad) + Counter([bad.fact]))
            if len(self.state.bad_places) < PLACES_SHOWN:
                self.state.bad_places.append(f"{place}: {bad.fact}")
            return None
        self._check_kind(place, example)
        return example

    def _columns(self, row: Mapping[str, Any]) -> Mapping[str, str]:
        """The user's names of columns; of several sources, each has its own."""
        columns = self.reading.columns
        return {new: old for new, old in columns.items() if old in row} if self.several else columns

    def _shape(self, place: Place, row: Mapping[str, Any], columns: Mapping[str, str]) -> str:
        """The shape of the file's rows: the one named, or told by the first row and said aloud."""
        if self.reading.shape != "auto":
            return self.reading.shape
        if place.file not in self.state.shapes:
            renamed = {new: row[old] for new, old in columns.items() if old in row}
            found = detect([*row, *renamed], {**row, **renamed})
            if found is None:
                raise _shapeless(row)
            self.state.shapes[place.file] = found.name
            self.context.note(f"{place.file}: read as {found.name}")
        return self.state.shapes[place.file]

    def _check_kind(self, place: Place, example: Example) -> None:
        """One way of training takes one kind of rows."""
        state, kind = self.state, kind_of_example(example)
        if not state.kind:
            state.kind, state.kind_seen = kind, str(place)
        elif kind != state.kind:
            raise StepError(
                f"{place}: is {KINDS[kind]}, and {state.kind_seen} is {KINDS[state.kind]}.",
                "Train on each in a step of its own.",
            )
