"""What a folder's file system can do, tried out in a folder that is taken away again."""

import errno
import fcntl
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

FICLONE = 0x40049409
"""The request of ioctl_ficlonerange(2) that makes a copy share the original's blocks."""


def abilities(folder: Path) -> dict[str, bool]:
    """By name, whether the file system has each of ABILITIES; OSError where it takes no file."""
    with TemporaryDirectory(prefix=".doctor-", dir=folder) as place:
        found = {}
        for name, (ability, _) in ABILITIES.items():
            inner = Path(place) / name.replace(" ", "-")
            inner.mkdir()
            (inner / "file").write_bytes(b"x" * 4096)
            found[name] = _can(ability, inner)
        return found


def _can(ability: Callable[[Path], bool], folder: Path) -> bool:
    try:
        return ability(folder)
    except OSError:
        return False


def _links(folder: Path) -> bool:
    os.link(folder / "file", folder / "link")
    return (folder / "link").samefile(folder / "file")


def _symbolic_links(folder: Path) -> bool:
    (folder / "link").symlink_to("file")
    return (folder / "link").samefile(folder / "file")


def _locks(folder: Path) -> bool:
    """A lock that is held keeps others out."""
    with open(folder / "file") as mine, open(folder / "file") as theirs:
        fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno in (errno.EWOULDBLOCK, errno.EACCES)
    return False


def _renames(folder: Path) -> bool:
    """A folder gets the name of another one only where that is empty: so a commit is decided."""
    for name in ("first", "second", "taken"):
        (folder / name).mkdir()
    (folder / "taken" / "file").touch()
    os.rename(folder / "first", folder / "second")
    try:
        os.rename(folder / "second", folder / "taken")
    except OSError as error:
        return error.errno in (errno.ENOTEMPTY, errno.EEXIST)
    return False


def _reflinks(folder: Path) -> bool:
    with open(folder / "file", "rb") as source, open(folder / "copy", "wb") as target:
        fcntl.ioctl(target, FICLONE, source.fileno())
    return (folder / "copy").read_bytes() == (folder / "file").read_bytes()


ABILITIES: Mapping[str, tuple[Callable[[Path], bool], str]] = {
    "renaming": (_renames, "results cannot be kept safely; put the store elsewhere"),
    "locks": (_locks, "several runs at once may do the same work twice; the results stay right"),
    "hard links": (_links, "files are copied, which takes room and time"),
    "symbolic links": (_symbolic_links, "runs' folders have no links to what was made"),
    "reflinks": (_reflinks, ""),
}
"""How each is tried, and what it means where it is not there; nothing where that costs nothing."""
NEEDED = ("renaming",)
