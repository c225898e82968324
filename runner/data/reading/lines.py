"""Where a row stands, what is wrong with a bad one, and the lines of a file, packed or not."""

import io
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from runner.errors import StepError, listing

Row = dict[str, Any]

PACKED = (".gz", ".zst")
WHOLE = (".parquet", ".arrow", ".feather")
"""Formats with a compression of their own, never inside another."""
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


def format_of(path: Path) -> str:
    """The ending that says a file's format, without that of its compression."""
    packed, plain = path.suffix.lower(), Path(path.stem).suffix.lower()
    if packed in PACKED:
        return "" if plain in WHOLE else plain
    return packed


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
def plain_bytes(path: Path, name: str) -> Iterator[tuple[IO[bytes], str]]:
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


def numbered_lines(path: Path, name: str) -> Iterator[tuple[int, str | BadRow]]:
    """Lines with their numbers, ends kept; only a line feed ends one, as JSON lines wants."""
    with plain_bytes(path, name) as (stream, encoding):
        if encoding != "utf-8":
            yield from _wide_lines(stream, encoding, name)
            return
        for number, line in enumerate(stream, start=1):
            try:
                yield number, str(line.removeprefix(BOM) if number == 1 else line, "utf-8")
            except UnicodeDecodeError as error:
                yield number, not_utf8(error)


def _wide_lines(stream: IO[bytes], encoding: str, name: str) -> Iterator[tuple[int, str]]:
    number, text = 0, io.TextIOWrapper(stream, encoding, newline="\n")
    try:
        for number, line in enumerate(text, start=1):
            yield number, line
    except UnicodeDecodeError as error:
        raise StepError(f"{name}:{number + 1}: is no right UTF-16 ({error.reason}).") from None
    finally:
        text.detach()  # whoever opened the stream closes it


def not_utf8(error: UnicodeDecodeError) -> BadRow:
    """What is wrong with a line that cannot be decoded."""
    byte = error.object[error.start]
    return BadRow(
        f"byte {error.start + 1} of the line, 0x{byte:02x}, is not UTF-8.",
        "Is the file in an older encoding? Convert it: iconv -f WINDOWS-1252 -t UTF-8",
    )


def filled(lines: Iterable[tuple[int, str | BadRow]]) -> Iterator[tuple[int, str | BadRow]]:
    """The lines that hold something, or cannot be read."""
    return ((n, line) for n, line in lines if isinstance(line, BadRow) or not line.isspace())


def repeated(names: Iterable[str]) -> str:
    """The names that stand there more than once, for a message; empty where none does."""
    found = [f'"{name}"' for name, count in Counter(names).items() if count > 1]
    return f"more than one column {listing(found)}" if found else ""
