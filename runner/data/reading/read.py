"""Read rows from data files of every common format, each row with the place where it stands."""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from runner.data.reading.columnar import read_arrow, read_parquet
from runner.data.reading.csv_rows import read_csv
from runner.data.reading.json_rows import read_json, read_json_lines
from runner.data.reading.lines import (
    BadRow,
    Numbered,
    Place,
    Row,
    filled,
    format_of,
    numbered_lines,
)
from runner.errors import StepError, listing


def read(
    path: Path, root: Path, begin: int = 0, prefix: str = ""
) -> Iterator[tuple[Place, Row | BadRow]]:
    """The rows of one file, in order, without the first `begin` ones.

    Places name the file from `root` on, behind the `prefix`. A row that cannot be read comes as a
    BadRow, counts like any other, and the reading goes on. A StepError says what makes the whole
    file unreadable.
    """
    name = prefix + path.relative_to(root).as_posix()
    reader = FORMATS.get(format_of(path))
    if reader is None:
        raise StepError(f"{name}: is no data file.", f"Data files end in {listing(list(FORMATS))}.")
    for number, row in reader(path, name, begin):
        yield Place(name, number), row


def _read_text(path: Path, name: str, begin: int) -> Numbered:
    for number, line in islice(filled(numbered_lines(path, name)), begin, None):
        yield number, line if isinstance(line, BadRow) else {"text": line.rstrip("\r\n")}


FORMATS: Mapping[str, Callable[[Path, str, int], Numbered]] = {
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".feather": read_arrow,
    ".txt": _read_text,
}
