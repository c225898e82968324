"""What the long checks share: their sizes, and the row that each of them leaves."""

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

from fakes import spoil as spoil_a_little


def size(name: str, default: int) -> int:
    """How often a check does what it does: TORTURE_<name>, or its default."""
    return int(os.environ.get(f"TORTURE_{name}", default))


def row(check: str, done: str, found: str, begun: float) -> None:
    """Add a row to the file that TORTURE_OUT names, and print it."""
    seconds = round(time.monotonic() - begun, 1)
    facts = {"check": check, "done": done, "found": found, "seconds": seconds}
    print(f"{check}: {done}: {found} ({seconds} s)")
    if target := os.environ.get("TORTURE_OUT"):
        with open(target, "a", encoding="utf-8") as file:
            file.write(json.dumps(facts) + "\n")


def first(things: Iterable[object], count: int = 3) -> str:
    """The first few of what went wrong, for a failed assertion."""
    return "\n".join(str(thing) for thing in list(things)[:count])


def files_below(folder: Path) -> list[Path]:
    """Every regular file below a folder, sorted."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def spoil(path: Path, how: str) -> None:
    """Damage a file; half of it goes, for the last byte of a record is only the end of a line."""
    if how == "truncate":
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        spoil_a_little(path, how)
