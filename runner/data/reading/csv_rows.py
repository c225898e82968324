"""Rows of separated values, whose first record names the columns."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from runner.data.reading.lines import BadRow, Numbered, filled, format_of, numbered_lines, repeated
from runner.errors import StepError

VALUE_LIMIT = 1 << 30
"""Characters of one value."""


def read_csv(path: Path, name: str, begin: int) -> Numbered:
    """Values stay texts, and an empty one is an empty text."""
    records = _records(path, name)
    place, columns = next(records, (1, []))
    if isinstance(columns, BadRow):
        raise StepError(f"{name}:{place}: {columns}")
    if twice := repeated(columns):
        raise StepError(f"{name}:{place}: has {twice}.", "Rename all but one of them.")
    for number, values in islice(records, begin, None):
        if isinstance(values, BadRow):
            yield number, values
        elif len(values) != len(columns):
            yield number, BadRow(f"has {len(values)} values for {len(columns)} columns.")
        else:
            yield number, dict(zip(columns, values, strict=True))


class _Feed:
    """Lines for the csv module, which asks for them one by one; it outlives a bad line."""

    def __init__(self, lines: Iterable[tuple[int, str | BadRow]]) -> None:
        self.lines, self.number = iter(lines), 0

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        self.number, line = next(self.lines)
        if isinstance(line, BadRow):
            raise line
        return line


def _records(path: Path, name: str) -> Iterator[tuple[int, list[str] | BadRow]]:
    """Each record with the line it begins on; a quoted text may hold line ends."""
    import csv

    feed = _Feed(numbered_lines(path, name))
    csv.field_size_limit(VALUE_LIMIT)  # it is 128 KiB otherwise
    reader = csv.reader(feed, delimiter=_delimiter(path, name), strict=True)
    while True:
        begins = feed.number + 1
        try:
            if values := next(reader):
                yield begins, values
        except StopIteration:
            return
        except BadRow as bad:
            yield feed.number, bad
        except csv.Error as error:
            yield begins, _broken(str(error), name, begins, feed.number)


def _broken(error: str, name: str, begins: int, ends: int) -> BadRow:
    if "end of data" in error:
        raise StepError(
            f"{name}:{begins}: a quote opens in this row and never closes, so that the "
            f"{ends - begins + 1} lines from here to the end of the file are no rows."
        )
    lines = f" (lines {begins} to {ends})" if ends > begins else ""
    return BadRow(f"is no right row of separated values{lines}: {error}.")


def _delimiter(path: Path, name: str) -> str:
    """What separates values: of the usual characters, the one that parts the first line most."""
    import csv

    own = "\t" if format_of(path) == ".tsv" else ","
    lines = islice(filled(numbered_lines(path, name)), 1)
    first = [line for _, line in lines if isinstance(line, str)]
    marks = (own, ",", ";", "\t")
    try:
        parts = {mark: sum(map(len, csv.reader(first, delimiter=mark))) for mark in marks}
    except csv.Error:  # the reading itself says what is wrong, and where
        return own
    return own if parts[own] > 1 else max(marks, key=lambda mark: parts[mark])
