"""Digests of large files, remembered by what the file system says of them.

A digest is taken over only for a file with the same size, inode and times. As in git's index, one
that was taken less than RACY after the file's last change is not believed: the file may have
changed again within the resolution of its clock.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runner import files
from runner.errors import StoreError
from runner.store import default_root

LARGE = 4 << 20
"""Bytes from which remembering is worth it: below, a digest takes a millisecond."""
RACY = 2_000_000_000
"""Nanoseconds: the coarsest clock of a file system in use (FAT)."""
MOST = 10_000
"""How many files' digests are remembered at most."""

_ONE_AT_A_TIME = threading.Lock()


def digest(path: Path, kind: str, take: Callable[[Path], str]) -> str:
    """The digest of a kind that `take` makes of a file, from memory where that can be trusted."""
    status = path.stat()
    if status.st_size < LARGE:
        return take(path)
    name, seen = str(path.resolve()), files.seen(path)
    row = _read().get(name)
    if isinstance(row, dict) and tuple(row.get("seen", ())) == seen and kind in row:
        return str(row[kind])
    taken = time.time_ns()
    found = take(path)
    if files.seen(path) == seen and taken - max(status.st_mtime_ns, status.st_ctime_ns) > RACY:
        _remember(name, seen, kind, found)
    return found


def file_facts(path: Path) -> dict[str, Any]:
    """Size and blake3 of one file, likewise."""
    return {"size": path.stat().st_size, "blake3": digest(path, "blake3", files.digest)}


def _place() -> Path:
    return default_root() / "digests.json"


def _read() -> dict[str, Any]:
    try:
        found = files.read_json(_place())
    except StoreError:
        return {}
    return found if isinstance(found, dict) else {}


def _remember(name: str, seen: tuple[int, ...] | None, kind: str, found: str) -> None:
    """Keep the newest; a file may have digests of several kinds."""
    with _ONE_AT_A_TIME:
        known = _read()
        row = known.pop(name, None)
        same = isinstance(row, dict) and tuple(row.get("seen", ())) == seen
        _write({**known, name: {**(row if same else {"seen": seen}), kind: found}})


def _write(known: dict[str, Any]) -> None:
    """Keep the newest; a memory that cannot be read or written only costs time."""
    try:
        files.make_folder(_place().parent)
        files.write_json(_place(), dict(list(known.items())[-MOST:]))
    except (OSError, StoreError):
        return
