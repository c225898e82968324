"""A repository as the Hub keeps it: commits on branches, small files in git, large ones in LFS."""

import hashlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO

CHUNK = 1 << 20  # bytes read at a time: a file may be larger than the memory
LARGE = 1 << 20  # bytes from which on a file is kept in LFS
LARGE_SUFFIXES = (".safetensors", ".bin", ".gguf", ".parquet", ".pt")  # in LFS at any size
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n"


@dataclass(frozen=True)
class Blob:
    """The content of a file: its bytes, or the path of the file on disk that holds them."""

    source: bytes | Path
    size: int
    large: bool
    digest: str
    """What the Hub calls the ETag: sha256 of a large file, git's sha1 of another."""

    @property
    def pointer(self) -> bytes:
        """What git keeps in the place of a large file."""
        return POINTER.format(self.digest, self.size).encode()

    @property
    def oid(self) -> str:
        """Git's sha1 of what git keeps: the file, or the pointer to a large one."""
        return _git_sha1([self.pointer], len(self.pointer)) if self.large else self.digest

    def open(self) -> BinaryIO:
        """The content, to be read in pieces."""
        return _open(self.source)

    def read(self) -> bytes:
        """The content, whole."""
        with self.open() as file:
            return file.read()


def blob(source: bytes | Path, large: bool) -> Blob:
    """Measure a content once; it must not change afterwards."""
    size = _size(source)
    with _open(source) as file:
        chunks = iter(lambda: file.read(CHUNK), b"")
        return Blob(source, size, large, _sha256(chunks) if large else _git_sha1(chunks, size))


@dataclass(frozen=True)
class Commit:
    """The files of a repository at one time."""

    sha: str
    files: Mapping[str, Blob]
    title: str
    date: str
    parent: "Commit | None"

    def history(self) -> list["Commit"]:
        """This commit and those before it, newest first."""
        return [self, *(self.parent.history() if self.parent else [])]

    def folders(self) -> set[str]:
        """Every folder that holds a file, at any depth."""
        parents = set()
        for path in self.files:
            parts = path.split("/")
            parents |= {"/".join(parts[:depth]) for depth in range(1, len(parts))}
        return parents - {""}

    def folder_oid(self, folder: str) -> str:
        """A digest of what is in a folder."""
        files = self.files.items()
        inside = [(path, kept.oid) for path, kept in files if path.startswith(f"{folder}/")]
        return hashlib.sha1(repr(inside).encode()).hexdigest()


@dataclass
class Repo:
    """One repository. A path in its files is listed as it is written, even one such as ../x."""

    id: str
    type: str = "model"  # or dataset, space
    files: Mapping[str, bytes | Path] = field(default_factory=dict)  # of the first commit
    private: bool = False
    gated: bool = False
    xet: bool = False  # large files are also offered through Xet
    large: int = LARGE
    branches: dict[str, Commit] = field(default_factory=dict)
    tags: dict[str, Commit] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.commit(self.files, "initial commit")

    @classmethod
    def of(cls, id: str, folder: Path, **more: object) -> "Repo":  # noqa: A002  the Hub's word
        """A repository with the files of a folder, which are left on disk."""
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        files = {path.relative_to(folder).as_posix(): path for path in paths}
        return cls(id, files=files, **more)  # type: ignore[arg-type]

    @property
    def prefix(self) -> str:
        """What comes before the id in the address of a file."""
        return "" if self.type == "model" else f"{self.type}s/"

    def commit(
        self,
        changes: Mapping[str, Blob | bytes | Path | None],
        title: str = "a change",
        branch: str = "main",
    ) -> str:
        """Add, replace or (None) remove files; gives the new commit's sha."""
        parent = self.branches.get(branch)
        files = dict(parent.files) if parent else {}
        for path, source in changes.items():
            files.pop(path, None)
            if isinstance(source, bytes | Path):
                files[path] = blob(source, self.is_large(path, _size(source)))
            elif source is not None:
                files[path] = source
        made = _commit(self.id, files, title, parent, len(self.commits))
        self.commits[made.sha] = self.branches[branch] = made
        return made.sha

    def is_large(self, path: str, size: int) -> bool:
        """Whether a file of this size is kept in LFS."""
        return size >= self.large or path.endswith(LARGE_SUFFIXES)

    def at(self, revision: str) -> Commit | None:
        """The commit that a branch, a tag or a sha names."""
        name = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        named = self.branches.get(name) or self.tags.get(name)
        return named or self.commits.get(revision)


def _commit(
    repo: str, files: dict[str, Blob], title: str, parent: Commit | None, number: int
) -> Commit:
    kept = sorted((path, kept.oid) for path, kept in files.items())
    about = (repo, kept, title, parent and parent.sha, number)
    sha = hashlib.sha1(repr(about).encode()).hexdigest()
    date = datetime(2026, 1, 1) + timedelta(hours=number)
    return Commit(sha, dict(sorted(files.items())), title, f"{date.isoformat()}.000Z", parent)


def _open(source: bytes | Path) -> BinaryIO:
    return source.open("rb") if isinstance(source, Path) else io.BytesIO(source)


def _size(source: bytes | Path) -> int:
    return source.stat().st_size if isinstance(source, Path) else len(source)


def _git_sha1(chunks: Iterable[bytes], size: int) -> str:
    digest = hashlib.sha1(b"blob %d\0" % size)
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def _sha256(chunks: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()
