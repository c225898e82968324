"""Rows of JSON files: lines of objects, a list of them, or an object that holds one list."""

import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from runner.data.reading.lines import (
    BOM,
    BadRow,
    Numbered,
    Row,
    filled,
    not_utf8,
    numbered_lines,
    plain_bytes,
    repeated,
)
from runner.errors import StepError

JSON_LIMIT = 1 << 30
"""Bytes of a .json file that are read whole; what is larger must be JSON lines."""


def _unique(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise BadRow(f"has {repeated(name for name, _ in pairs)}.")
    return row


# NaN is how pandas and Python write a value that is missing; JSON itself has no such word.
_constants = {"NaN": None, "Infinity": float("inf"), "-Infinity": float("-inf")}
_decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_constants.__getitem__)
_half_character = re.compile(r"\\u[dD][89a-fA-F]")


def read_json_lines(path: Path, name: str, begin: int) -> Numbered:
    """One object in each line; empty lines are none."""
    for number, line in islice(filled(numbered_lines(path, name)), begin, None):
        yield number, line if isinstance(line, BadRow) else _object(line)


def read_json(path: Path, name: str, begin: int) -> Numbered:
    """A list of objects, an object that holds one list, or lines of objects in spite of the name.

    All but the lines is held whole in memory as text, though not as objects.
    """
    if _holds_lines(path, name):
        yield from read_json_lines(path, name, begin)
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


def _holds_lines(path: Path, name: str) -> bool:
    """Whether the first line is an object by itself and another line follows."""
    with plain_bytes(path, name) as (stream, encoding):
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
    with plain_bytes(path, name) as (stream, encoding):
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
        raise StepError(f"{name}:{line}: {not_utf8(within)}") from None


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
