"""Large files in Xet: hf_xet's content store, kept in a folder instead of behind a service."""

import os
import shutil
import struct
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

from hub.repository import Blob

# in processes of their own: hf_xet starts threads that stay, and writes a log below HF_HOME
UPLOAD = """
import sys, hf_xet
address, path, sha256 = sys.argv[1:]
with hf_xet.XetSession().new_upload_commit(endpoint=address) as commit:
    handle = commit.start_upload_file(path, sha256=sha256)
print(handle.result().xet_info.hash)
"""
DOWNLOAD = """
import sys, hf_xet
address, path, hash, size = sys.argv[1:]
with hf_xet.XetSession().new_file_download_group(endpoint=address) as group:
    group.start_download_file(hf_xet.XetFileInfo(hash, int(size)), path)
"""
ENTRY = 48  # bytes: the header of a shard, and each entry in it


class Xet:
    """The store, and a copy for each client: a process keeps the folder it opens locked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._hashes: dict[str, str] = {}  # by sha256

    def hash(self, blob: Blob) -> str:
        """The hash by which the store knows the content, which is put there when first asked."""
        with self._lock:
            if blob.digest not in self._hashes:
                path = blob.source if isinstance(blob.source, Path) else self._folder / "content"
                if isinstance(blob.source, bytes):
                    path.write_bytes(blob.source)
                made = self._run(UPLOAD, "store", str(path.absolute()), blob.digest)
                self._hashes[blob.digest] = made
            return self._hashes[blob.digest]

    def for_reading(self) -> str:
        """The address of what is in the store now."""
        with self._lock:
            return self._address(self._copy("store"))

    def for_writing(self) -> str:
        """The address of a place to put files."""
        return self._address(f"put-{uuid.uuid4().hex}")

    def file(self, sha256: str, size: int) -> Path | None:
        """The content that a client has put in its place, copied to a file."""
        for shard in self._folder.glob("put-*/xet/xorbs/shards/*.mdb"):
            found = dict(_files(shard.read_bytes())).get(sha256)
            if found is not None:
                path = self._folder / sha256
                self._run(DOWNLOAD, self._copy(shard.parents[3].name), str(path), found, str(size))
                return path
        return None

    def _address(self, name: str) -> str:
        return f"local://{self._folder / name}"

    def _copy(self, name: str) -> str:
        """Another folder with the same content; only the index is ever written to again."""
        copy = f"copy-{uuid.uuid4().hex}"
        if (self._folder / name).exists():
            shutil.copytree(
                self._folder / name,
                self._folder / copy,
                copy_function=_link,
                ignore=shutil.ignore_patterns("shard-*"),  # of a process that runs
            )
        return copy

    def _run(self, code: str, name: str, *values: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, self._address(name), *values],
            env={**os.environ, "HF_HOME": str(self._folder)},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout.strip()


def _link(source: str, target: str) -> None:
    if source.endswith(".redb"):
        shutil.copy2(source, target)
    else:
        os.link(source, target)


def _files(shard: bytes) -> Iterator[tuple[str, str]]:
    """Sha256 and hash of each file that a shard tells of, where the sha256 is told.

    After a header, each file has an entry with its hash, flags and the number of its segments,
    then so many entries, as many again to verify them, and one with the sha256; the last hash is
    all ones. https://huggingface.co/docs/xet/shard
    """
    place = ENTRY
    while (made := shard[place : place + 32]) != b"\xff" * 32:
        flags, segments = struct.unpack_from("<II", shard, place + 32)
        place += ENTRY * (1 + segments * (2 if flags & 1 << 31 else 1))
        if flags & 1 << 30:
            yield _hex(shard[place : place + 32]), _hex(made)
            place += ENTRY


def _hex(stored: bytes) -> str:
    """A digest is stored as four little-endian numbers."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", stored))
