"""Read rows from data files of every common format, each row with the place where it stands."""

import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from runner.errors import StepError, did_you_mean, listing

Row = dict[str, Any]

JSON_LIMIT = 1 << 30
"""Bytes of a .json file that are read whole; what is larger must be JSON lines."""

BATCH = 128
"""Rows of a Parquet or Arrow file that are held as Python objects at a time."""

PACKED = (".gz", ".zst")
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Place:
    """Where a row stands: a file of the source, and its line, or its row where it has no lines."""

    file: str
    number: int

    def __str__(self) -> str:
        return f"{self.file}:{self.number}"


class BadRow(Exception):  # noqa: N818  a finding about the data, which may be skipped
    """A row that cannot be read, or that has no right shape."""

    def __init__(self, fact: str, guess: str = "") -> None:
        super().__init__(fact, guess)
        self.fact, self.guess = fact, guess

    def __str__(self) -> str:
        return f"{self.fact} {self.guess}".rstrip()


Numbered = Iterator[tuple[int, Row | BadRow]]


def read(path: Path, root: Path, begin: int = 0) -> Iterator[tuple[Place, Row | BadRow]]:
    """The rows of one file, in order, without the first `begin` ones.

    A row that cannot be read comes as a BadRow, counts like any other, and the reading goes on.
    A StepError says what makes the whole file unreadable.
    """
    name = path.relative_to(root).as_posix()
    reader = FORMATS.get(format_of(path))
    if reader is None:
        raise StepError(f"{name}: is no data file.", f"Data files end in {listing(list(FORMATS))}.")
    for number, row in reader(path, name, begin):
        yield Place(name, number), row


def format_of(path: Path) -> str:
    """The ending that says a file's format, without that of its compression."""
    packed, plain = path.suffix.lower(), Path(path.stem).suffix.lower()
    if packed in PACKED:
        return "" if plain in WHOLE else plain
    return packed


def count_hint(path: Path) -> int | None:
    """How many rows there are, where the format says so without being read."""
    if format_of(path) == ".parquet":
        import pyarrow.parquet as pq

        with _arrow_errors(path.name):
            return int(pq.read_metadata(path).num_rows)
    if FORMATS.get(format_of(path)) is _arrow:
        with _arrow_errors(path.name):
            return sum(int(batch.num_rows) for batch in _batches(path))
    return None


# Bytes and lines


def _opened(path: Path) -> IO[bytes]:
    """The file as plain bytes."""
    if path.suffix.lower() == ".gz":
        import gzip

        return io.BufferedReader(gzip.open(path))
    if path.suffix.lower() == ".zst":
        import pyarrow as pa

        return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"))
    return open(path, "rb")


@contextmanager
def _bytes(path: Path, name: str) -> Iterator[tuple[IO[bytes], str]]:
    """The plain bytes and their encoding; compression that breaks is an error."""
    import zlib

    try:
        with _opened(path) as stream:
            yield stream, _encoding(stream.peek(4)[:4], name)  # type: ignore[attr-defined]
    except (EOFError, OSError, zlib.error) as error:
        raise StepError(f"{name}: is cut off or damaged ({error}).", "Fetch it again.") from error


def _encoding(head: bytes, name: str) -> str:
    """UTF-8 or UTF-16, from a file's first bytes."""
    if head.startswith((b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")):
        raise _encoded(name, "UTF-32")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    for encoding, zeros in (("UTF-16LE", head[1::2]), ("UTF-16BE", head[::2])):
        if zeros == b"\x00\x00":
            raise _encoded(name, encoding)
    return "utf-8"


def _encoded(name: str, encoding: str) -> StepError:
    fact = f"{name}:1: byte 1: is not UTF-8; it looks like {encoding}."
    return StepError(fact, f"Convert it: iconv -f {encoding} -t UTF-8 {name}")


def _lines(path: Path, name: str) -> Iterator[tuple[int, str | BadRow]]:
    """Lines with their numbers, ends kept; only a line feed ends one, as JSON lines wants."""
    with _bytes(path, name) as (stream, encoding):
        if encoding != "utf-8":
            yield from _wide_lines(stream, encoding, name)
            return
        for number, line in enumerate(stream, start=1):
            try:
                yield number, str(line.removeprefix(BOM) if number == 1 else line, "utf-8")
            except UnicodeDecodeError as error:
                yield number, _not_utf8(error)


def _wide_lines(stream: IO[bytes], encoding: str, name: str) -> Iterator[tuple[int, str]]:
    number, text = 0, io.TextIOWrapper(stream, encoding, newline="\n")
    try:
        for number, line in enumerate(text, start=1):
            yield number, line
    except UnicodeDecodeError as error:
        raise StepError(f"{name}:{number + 1}: is no right UTF-16 ({error.reason}).") from None
    finally:
        text.detach()  # whoever opened the stream closes it


def _not_utf8(error: UnicodeDecodeError) -> BadRow:
    byte = error.object[error.start]
    return BadRow(
        f"byte {error.start + 1} of the line, 0x{byte:02x}, is not UTF-8.",
        "Is the file in an older encoding? Convert it: iconv -f WINDOWS-1252 -t UTF-8",
    )


def _filled(lines: Iterable[tuple[int, str | BadRow]]) -> Iterator[tuple[int, str | BadRow]]:
    return ((n, line) for n, line in lines if isinstance(line, BadRow) or not line.isspace())


# JSON


def _unique(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise BadRow(f"has {_twice(name for name, _ in pairs)}.")
    return row


def _twice(names: Iterable[str]) -> str:
    """The names that stand there more than once, for a message; empty where none does."""
    found = [f'"{name}"' for name, count in Counter(names).items() if count > 1]
    return f"more than one column {listing(found)}" if found else ""


# NaN is how pandas and Python write a value that is missing; JSON itself has no such word.
_constants = {"NaN": None, "Infinity": float("inf"), "-Infinity": float("-inf")}
_decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_constants.__getitem__)
_half_character = re.compile(r"\\u[dD][89a-fA-F]")


def _object(text: str) -> Row | BadRow:
    """One JSON object, or what is wrong with it."""
    try:
        return _checked(_decoder.decode(text), text)
    except BadRow as bad:
        return bad
    except json.JSONDecodeError as error:
        return BadRow(f"is not valid JSON: {error.msg} at character {error.pos + 1}.", _guess(text))
    except (ValueError, RecursionError) as error:
        return BadRow(f"is not valid JSON: {error}.")


def _guess(text: str) -> str:
    """What a line that is no JSON object probably is."""
    if text.lstrip().startswith("["):
        return "A file that is one list of objects must be called .json."
    return "JSON takes double quotes." if text.lstrip().startswith("{'") else ""


def _checked(row: Any, text: str) -> Row | BadRow:
    if not isinstance(row, dict):
        fact = f"is a JSON {type(row).__name__}, not an object with columns."
        return BadRow(fact, _guess(text))
    if _half_character.search(text):
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return BadRow("has half a character: a surrogate such as \\ud83d without its pair.")
    return row


def _jsonl(path: Path, name: str, begin: int) -> Numbered:
    for number, line in islice(_filled(_lines(path, name)), begin, None):
        yield number, line if isinstance(line, BadRow) else _object(line)


def _json(path: Path, name: str, begin: int) -> Numbered:
    """A list of objects, an object that holds one list, or lines of objects in spite of the name.

    All but the lines is held whole in memory as text, though not as objects.
    """
    if _holds_lines(path, name):
        yield from _jsonl(path, name, begin)
        return
    text = _whole(path, name)
    try:
        yield from islice(enumerate(_items(text), start=1), begin, None)
    except json.JSONDecodeError as error:
        raise StepError(
            f"{name}:{error.lineno}: is not valid JSON: {error.msg} at column {error.colno}.",
            "If each line is an object of its own, call the file .jsonl.",
        ) from None
    except (BadRow, ValueError, RecursionError) as error:
        raise StepError(f"{name}: is not valid JSON: {error}") from None


def _holds_lines(path: Path, name: str) -> bool:
    """Whether the first line is an object by itself and another line follows."""
    with _bytes(path, name) as (stream, encoding):
        lines = (line for line in iter(lambda: stream.readline(JSON_LIMIT), b"") if line.strip())
        first = next(lines, b"").removeprefix(BOM).lstrip()
        if encoding != "utf-8" or not first.startswith(b"{"):
            return False
        one = _object(str(first, "utf-8", "replace"))
        return isinstance(one, dict) and next(lines, None) is not None


def _whole(path: Path, name: str) -> str:
    """The text of a .json file that is small enough."""
    if not path.stat().st_size:
        raise StepError(f"{name}: is empty.")
    with _bytes(path, name) as (stream, encoding):
        data = stream.read(JSON_LIMIT + 1)
    if len(data) > JSON_LIMIT:
        raise StepError(
            f"{name}: is larger than {JSON_LIMIT / 2**30:g} GiB, and a .json file is read whole.",
            f"Make it JSON lines: jq -c '.[]' {name} > {name.split('.')[0]}.jsonl",
        )
    try:
        return str(data, encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        start = data.rfind(b"\n", 0, error.start) + 1
        within = UnicodeDecodeError(encoding, data[start:], error.start - start, error.end, "")
        line = data.count(b"\n", 0, error.start) + 1
        raise StepError(f"{name}:{line}: {_not_utf8(within)}") from None


_space = re.compile(r"[ \t\n\r]*")


def _items(text: str) -> Iterator[Row | BadRow]:
    at = _after(text, 0)
    if text[at : at + 1] != "[":
        half = _half_character.search(text)
        yield from _held(_decoder.decode(text), half.group() if half else "")
        return
    at = _after(text, at + 1)
    while text[at : at + 1] != "]":
        row, end = _item(text, at)
        yield row
        at = _after(text, end)
        if text[at : at + 1] == ",":
            at = _after(text, at + 1)
        elif text[at : at + 1] != "]":
            raise json.JSONDecodeError("Expecting ',' or ']'", text, at)
    if (end := _after(text, at + 1)) < len(text):
        raise json.JSONDecodeError("Extra data", text, end)


def _item(text: str, at: int) -> tuple[Row | BadRow, int]:
    """One item of the list, and where it ends."""
    try:
        value, end = _decoder.raw_decode(text, at)
    except BadRow as bad:
        return bad, json.JSONDecoder().raw_decode(text, at)[1]
    row = _checked(value, text[at:end])
    return (BadRow(row.fact) if isinstance(row, BadRow) else row), end


def _after(text: str, at: int) -> int:
    match = _space.match(text, at)
    return match.end() if match else at


def _held(value: Any, text: str) -> Iterable[Row | BadRow]:
    """The rows of the one list that an object holds, or the object as the one row it is."""
    if not isinstance(value, dict):
        return [_checked(value, text)]
    lists = [items for items in value.values() if _is_table(items)]
    return [_checked(row, text) for row in (lists[0] if len(lists) == 1 else [value])]


def _is_table(items: Any) -> bool:
    """A list of rows, which is not the list of messages that one row has."""
    return (
        isinstance(items, list)
        and bool(items)
        and all(isinstance(item, dict) and not {"role", "from"} & item.keys() for item in items)
    )


# Text and separated values


def _text(path: Path, name: str, begin: int) -> Numbered:
    for number, line in islice(_filled(_lines(path, name)), begin, None):
        yield number, line if isinstance(line, BadRow) else {"text": line.rstrip("\r\n")}


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


def _csv(path: Path, name: str, begin: int) -> Numbered:
    """Values stay texts, and an empty one is an empty text."""
    records = _records(path, name)
    place, columns = next(records, (1, []))
    if isinstance(columns, BadRow):
        raise StepError(f"{name}:{place}: {columns}")
    if twice := _twice(columns):
        raise StepError(f"{name}:{place}: has {twice}.", "Rename all but one of them.")
    for number, values in islice(records, begin, None):
        if isinstance(values, BadRow):
            yield number, values
        elif len(values) != len(columns):
            yield number, BadRow(f"has {len(values)} values for {len(columns)} columns.")
        else:
            yield number, dict(zip(columns, values, strict=True))


def _records(path: Path, name: str) -> Iterator[tuple[int, list[str] | BadRow]]:
    """Each record with the line it begins on; a quoted text may hold line ends."""
    import csv

    feed = _Feed(_lines(path, name))
    csv.field_size_limit(JSON_LIMIT)  # it is 128 KiB otherwise
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
    lines = islice(_filled(_lines(path, name)), 1)
    first = [line for _, line in lines if isinstance(line, str)]
    marks = (own, ",", ";", "\t")
    try:
        parts = {mark: sum(map(len, csv.reader(first, delimiter=mark))) for mark in marks}
    except csv.Error:  # the reading itself says what is wrong, and where
        return own
    return own if parts[own] > 1 else max(marks, key=lambda mark: parts[mark])


# Columns: Parquet and Arrow


@contextmanager
def _arrow_errors(name: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        fact = f"{name}: cannot be read ({str(error).splitlines()[0]})."
        raise StepError(fact, "Is it whole? Fetch or write it again.") from error


def _parquet(path: Path, name: str, begin: int) -> Numbered:
    import pyarrow.parquet as pq

    with _arrow_errors(name), pq.ParquetFile(path) as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        group, before = 0, 0
        while group < len(sizes) and before + sizes[group] <= begin:
            before += sizes[group]
            group += 1
        groups = list(range(group, len(sizes)))
        batches = file.iter_batches(BATCH, row_groups=groups) if groups else ()
        yield from _rows(batches, before, begin, name)


def _arrow(path: Path, name: str, begin: int) -> Numbered:
    with _arrow_errors(name):
        yield from _rows(_batches(path), 0, begin, name)


def _batches(path: Path) -> Iterator[Any]:
    """Record batches of an Arrow file or stream, mapped into memory."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        if source.read(6) == b"ARROW1":
            reader = pa.ipc.open_file(source)
            batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            source.seek(0)
            batches = pa.ipc.open_stream(source)
        yield from batches


def _rows(batches: Iterable[Any], before: int, begin: int, name: str) -> Numbered:
    """Rows of batches, few at a time; the first batch starts at row `before`, from 0."""
    features = None
    for batch in batches:
        if features is None:
            features = _features(batch.schema, name)
        for start in range(max(0, begin - before), batch.num_rows, BATCH):
            part = batch.slice(start, BATCH).to_pylist()
            if features:
                part = [_parsed(row, features) for row in part]
            yield from enumerate(part, start=before + start + 1)
        before += batch.num_rows


def _features(schema: Any, name: str) -> Any:
    """What the datasets library noted of the columns, where it wrote some values as JSON texts."""
    if twice := _twice(schema.names):
        raise StepError(f"{name}: has {twice}.", "Rename all but one of them.")
    note = (schema.metadata or {}).get(b"huggingface", b"")
    return json.loads(note)["info"]["features"] if b'"_type": "Json"' in note else {}


def _parsed(value: Any, feature: Any) -> Any:
    """A value with its JSON texts parsed."""
    if value is None or not isinstance(feature, dict):
        return value
    if feature.get("_type") == "Json":
        return json.loads(value)
    if isinstance(value, list):
        return [_parsed(item, feature.get("feature")) for item in value]
    if isinstance(value, dict):
        return {key: _parsed(item, feature.get(key)) for key, item in value.items()}
    return value


FORMATS: Mapping[str, Callable[[Path, str, int], Numbered]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".feather": _arrow,
    ".txt": _text,
}
WHOLE = (".parquet", ".arrow", ".feather")
"""Formats with a compression of their own, never inside another."""


# Which files of a folder

NOT_DATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_shard = re.compile(r"(?P<split>[\w-]+?)-\d{5}-of-\d{5}\b")
_part_words = {"data", "part", "shard", "file", "output"}

Splits = dict[str, list[Path]]


def files_of(folder: Path, split: str | None = None, config: str | None = None) -> list[Path]:
    """The data files of one split, in a stable order.

    The first of these that the folder has says which files are which split: `save_to_disk`, the
    `configs` in the README of a Hub dataset (`config` names one of several), the files' names.
    A file whose name says no split is training data. Where no split is asked for it is `train`,
    or the only one there is.
    """
    splits = _saved(folder) or _configured(folder, config) or _by_name(folder)
    wanted = _wanted(splits, split)
    if not splits[wanted]:
        raise StepError(
            f'the files that README.md names for the split "{wanted}" are not there.',
            "Does the fetch step leave them out? See its include and exclude.",
        )
    return splits[wanted]


def _wanted(splits: Splits, asked: str | None) -> str:
    """The split to take: the one asked for, under any of its usual names, or the obvious one."""
    if asked is None and "train" not in splits and len(splits) > 1:
        raise StepError(
            f"the data has the splits {listing(sorted(splits))}, and none is called train.",
            f"Choose one: process.split={min(splits)}",
        )
    if asked is None:
        return "train" if "train" in splits else next(iter(splits))
    usual = [name for name, words in SPLIT_WORDS.items() if asked in words]
    for name in (asked, *usual):
        if name in splits:
            return name
    guess = did_you_mean(asked, splits) or f"It has: {listing(sorted(splits))}."
    raise StepError(f'the data has no split "{asked}". {guess}')


def _saved(folder: Path) -> Splits:
    """The splits of what `save_to_disk` of the datasets library wrote."""
    if (folder / "dataset_dict.json").is_file():
        names = _facts(folder / "dataset_dict.json").get("splits", [])
        return {name: _shards(folder / name) for name in names}
    if (folder / "state.json").is_file():
        return {"train": _shards(folder)}
    return {}


def _shards(folder: Path) -> list[Path]:
    names = [str(each["filename"]) for each in _facts(folder / "state.json")["_data_files"]]
    for name in names:
        if not (folder / name).is_file():
            raise StepError(f"state.json names {name}, which is not there.", "Fetch it again.")
    return [folder / name for name in names]


def _facts(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise StepError(f"{path.name}: cannot be read ({error}).", "Fetch it again.") from None


def _configured(folder: Path, wanted: str | None) -> Splits:
    """The splits that a Hub dataset's README.md names."""
    configs = {str(each.get("config_name", "default")): each for each in _configs(folder)}
    if wanted is None and not configs:
        return {}
    config = configs[_config_name(configs, wanted)]
    base = _below(folder, str(config.get("data_dir") or "."))
    named = _patterns(config.get("data_files"))
    if not named:
        return _by_name(base)
    return {split: _matching(base, patterns) for split, patterns in named.items()}


def _config_name(configs: Mapping[str, Any], wanted: str | None) -> str:
    if wanted in configs:
        return str(wanted)
    if wanted is not None:
        guess = did_you_mean(wanted, configs) or f"It has: {listing(list(configs))}."
        raise StepError(f'the data has no configuration "{wanted}". {guess}')
    marked = [name for name, each in configs.items() if each.get("default") or name == "default"]
    if not marked and len(configs) > 1:
        raise StepError(
            f"the data has the configurations {listing(list(configs))}, and no default.",
            f"Choose one: process.config={next(iter(configs))}",
        )
    return (marked or list(configs))[0]


def _configs(folder: Path) -> list[dict[str, Any]]:
    """What the head of README.md says about data files."""
    import yaml

    try:
        text = (folder / "README.md").read_text(encoding="utf-8-sig")
        head = yaml.safe_load(text.split("---", 2)[1]) if text.startswith("---") else {}
    except (OSError, ValueError, IndexError, yaml.YAMLError):
        return []  # a README is for people first: one that says nothing here is no error
    configs = head.get("configs") if isinstance(head, dict) else None
    items = configs if isinstance(configs, list) else []
    named = [each for each in items if isinstance(each, dict)]
    return [each for each in named if "data_files" in each or "data_dir" in each]


def _patterns(data_files: Any) -> dict[str, list[str]]:
    """Patterns by split, from each of the forms in which a README may give them."""
    items = data_files if isinstance(data_files, list) else [data_files] if data_files else []
    found: dict[str, list[str]] = {}
    for item in items:
        if isinstance(item, dict) and "path" in item:
            item = {str(item.get("split", "train")): item["path"]}
        for split, paths in (item if isinstance(item, dict) else {"train": item}).items():
            several = paths if isinstance(paths, list) else [paths]
            found.setdefault(str(split), []).extend(map(str, several))
    return found


def _matching(base: Path, patterns: list[str]) -> list[Path]:
    found: dict[Path, None] = {}
    for pattern in patterns:
        _below(base, pattern)
        plain = pattern.removeprefix("./").removesuffix("/")
        for path in sorted([*base.glob(plain), *base.glob(f"{plain}/**/*")]):
            if path.is_file() and format_of(path) in FORMATS:
                found.setdefault(path)
    return list(found)


def _below(folder: Path, name: str) -> Path:
    """A path that the README names, which must stay inside the folder."""
    if "://" in name or name.startswith("/") or ".." in Path(name).parts:
        raise StepError(f"README.md names data outside of its folder: {name}")
    return folder / name


def _by_name(folder: Path) -> Splits:
    """Splits by the words in the files' names; texts count where there is nothing else."""
    paths = [path for path in sorted(folder.rglob("*")) if _is_data(path, folder)]
    tables = [path for path in paths if format_of(path) != ".txt"]
    splits: Splits = {}
    for path in tables or paths:
        splits.setdefault(_split_of(path.relative_to(folder)), []).append(path)
    if not splits:
        names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        shown = [*names[:8], *(["..."] if len(names) > 8 else [])]
        raise StepError(
            f"there is no data file; the folder holds {listing(shown)}.",
            f"Data files end in {listing(list(FORMATS))} (and .gz or .zst after a text format).",
        )
    _refuse_copies(tables)
    return splits


def _is_data(path: Path, folder: Path) -> bool:
    within = path.relative_to(folder)
    hidden = any(part.startswith((".", "__")) for part in within.parts)
    return (
        format_of(path) in FORMATS and path.name not in NOT_DATA and not hidden and path.is_file()
    )


def _split_of(path: Path) -> str:
    """The split that a file's name says, or else its folders' from the inmost out."""
    for word in (path.name.lower(), *reversed([part.lower() for part in path.parts[:-1]])):
        if (match := _shard.match(word)) and match["split"] not in _part_words:
            return match["split"]
        parts = set(re.split(r"[-._ 0-9]+", word))
        for split, words in SPLIT_WORDS.items():
            if parts & set(words):
                return split
    return "train"


def _refuse_copies(paths: Sequence[Path]) -> None:
    """The same name in two formats is most likely the same rows twice."""
    stems: dict[Path, Path] = {}
    for path in paths:
        other = stems.setdefault(path.parent / path.name.split(".")[0], path)
        if format_of(other) != format_of(path):
            raise StepError(
                f"{other.name} and {path.name} look like the same rows in two formats.",
                f'Keep one, or leave one out where the data is fetched: exclude: ["{path.name}"]',
            )
