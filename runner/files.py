"""Files that survive a crash: digests, durable writes, and what a folder holds."""

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from blake3 import blake3

from runner.errors import reading

ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""What says that a file is not there. A disk that refuses (EIO, EMFILE, EACCES) says nothing."""

FICLONE = 0x40049409
"""The ioctl of linux/fs.h that makes a file share another's bytes until one of them changes."""

SYNCED_AT_ONCE = 8
"""Files that are on their way to the disk together."""

Manifest = dict[str, dict[str, Any]]
"""Relative path -> {"size": bytes, "blake3": hex digest}, in sorted order."""


def digest(path: Path) -> str:
    """The blake3 of a file's bytes, in hex."""
    hasher = blake3(max_threads=blake3.AUTO)
    if path.stat().st_size:
        hasher.update_mmap(path)
    return hasher.hexdigest()


def digest_json(value: Any) -> str:
    """The blake3 of a value's canonical JSON, in hex."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return blake3(text.encode()).hexdigest()


def walk(folder: Path) -> Iterator[Path]:
    """Every regular file below a folder, sorted; a link is an error, for it may lead outside."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise ValueError(f"{path} is a link; a product holds regular files only")
        if path.is_file():
            yield path


def manifest(folder: Path) -> Manifest:
    """Size and digest of every file below a folder."""
    return {path.relative_to(folder).as_posix(): file_facts(path) for path in walk(folder)}


def file_facts(path: Path) -> dict[str, Any]:
    """Size and digest of one file."""
    return {"size": path.stat().st_size, "blake3": digest(path)}


def seen(path: Path) -> tuple[int, ...] | None:
    """What the file system says of a file that would change with its bytes; None if it is gone."""
    try:
        status = path.stat()
    except ABSENT:
        return None
    return (
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_ino,
        status.st_dev,
    )


def damage(folder: Path, expected: Manifest, *, bytes_too: bool) -> str | None:
    """The first file that is not as expected (by size, or by every byte), in words."""
    try:
        listed = [
            (name, int(facts["size"]), facts.get("blake3")) for name, facts in expected.items()
        ]
    except (AttributeError, KeyError, TypeError, ValueError):
        return "the list of its files cannot be read"
    for name, expected_size, expected_digest in listed:
        path = folder / name
        with reading(path):
            try:
                size = path.stat().st_size
            except ABSENT:
                return f"{name} is missing"
            if size != expected_size:
                return f"{name} has {size} bytes instead of {expected_size}"
            if bytes_too and digest(path) != expected_digest:
                return f"{name} has other bytes than were written"
    return None


def sync(path: Path) -> None:
    """Force a file's bytes, or a folder's list of names, to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_tree(folder: Path) -> None:
    """Force everything below a folder to the disk, files first, then the folders.

    Several at once: what a journal takes together costs hardly more than one file.
    """
    below = [*folder.rglob("*")]
    folders = [folder, *(path for path in below if path.is_dir())]
    with ThreadPoolExecutor(SYNCED_AT_ONCE) as disk:
        list(disk.map(sync, (path for path in below if not path.is_dir())))
        list(disk.map(sync, reversed(folders)))


def make_folder(folder: Path) -> None:
    """Make a folder whose name, like those of the parents made on the way, outlives a crash."""
    missing = [each for each in (folder, *folder.parents) if not each.is_dir()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        sync(each.parent)


def write_json(path: Path, value: Any, *, synced: bool = True) -> None:
    """Replace a JSON file so that a crash leaves the old one or the new one, whole.

    `synced=False` is for a folder that is synced as a whole before anybody relies on it.
    """
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n", synced=synced)


def write_text(path: Path, text: str, *, synced: bool = True) -> None:
    """Replace a text file likewise."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        if synced:
            file.flush()
            os.fsync(file.fileno())
    os.replace(temporary, path)
    if synced:
        sync(path.parent)


def read_json(path: Path) -> Any:
    """A JSON file's value, or None where there is no whole one; StoreError where none can tell."""
    with reading(path):
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (*ABSENT, ValueError):
            return None


def remove(path: Path) -> None:
    """Delete a file, or a folder with its read-only files; what is gone already is no error."""
    if path.is_file():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def clone(source: Path, target: Path) -> None:
    """Make a copy that is a file of its own, whatever happens to the source.

    It takes no room and no time where the file system can share bytes (btrfs, XFS); elsewhere the
    kernel copies them.
    """
    with open(source, "rb") as given, open(target, "xb") as made:
        with suppress(OSError):
            fcntl.ioctl(made.fileno(), FICLONE, given.fileno())
            return
        left = os.fstat(given.fileno()).st_size
        with suppress(OSError):  # two file systems, or one that cannot: what is left is copied here
            while left and (count := os.copy_file_range(given.fileno(), made.fileno(), left)):
                left -= count
        shutil.copyfileobj(given, made, 1 << 20)


def inside(folder: Path, name: str) -> Path:
    """`folder/name`, refused where the name would lead out of the folder."""
    path = folder / name
    if Path(name).is_absolute() or not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f'"{name}" would lead out of {folder}')
    return path


def human_bytes(count: float) -> str:
    """A size for people: 269.1 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def size_below(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    total = path.stat().st_size if path.is_file() else 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(*ABSENT):  # of another process, and just gone
                total += os.stat(os.path.join(folder, name)).st_size
    return total


def shortage(folder: Path, wanted: int) -> str | None:
    """What to say where a folder's disk lacks the room for so many bytes; None where it does not.

    Of a folder that is still to be made, it is the disk of the first one above it that is there.
    """
    there = next(each for each in (folder, *folder.parents) if each.is_dir())
    free = shutil.disk_usage(there).free
    if wanted <= free:
        return None
    return f"needs {human_bytes(wanted)} on disk, and {folder} has {human_bytes(free)} free."


def names_in(folder: Path) -> list[str]:
    """What a folder holds, sorted; nothing where it is not there (any more)."""
    try:
        return sorted(os.listdir(folder))
    except ABSENT:
        return []


def total_size(files: Mapping[str, Mapping[str, Any]]) -> int:
    """Bytes in all of a manifest's files."""
    return sum(int(facts["size"]) for facts in files.values())
