"""A repository's folder in the user's own Hub cache, as huggingface_hub lays it out.

blobs/<digest>                  a file's bytes, or (Xet) a link into the store of all repositories
blobs/<digest>.incomplete       what a download has brought so far
snapshots/<commit>/<path>       a link to its blob
refs/<revision>                 the commit that a branch or tag stood for
trees/<commit>.json             huggingface_hub's memory of a listing; ours is in the store
"""

import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from runner import files, memo
from runner.errors import StepError, StoreError
from runner.sources.hub import repo as hub_repo
from runner.sources.hub.repo import COMMIT, DIGEST, File, Source
from runner.store import default_root

CHUNK = 1 << 20


@dataclass(frozen=True)
class Cache:
    """The folder of one repository."""

    root: Path
    name: str

    @classmethod
    def of(cls, source: Source) -> "Cache":
        """Where the repository is cached, or would be."""
        from huggingface_hub import constants

        name = "--".join([f"{source.type}s", *source.repo.split("/")])
        return cls(Path(constants.HF_HUB_CACHE).expanduser().absolute(), name)

    @property
    def folder(self) -> Path:
        """Everything of the repository."""
        return self.root / self.name

    def snapshot(self, commit: str | None) -> Path:
        """The folder with the files of a commit."""
        return self.folder / "snapshots" / str(commit)

    def blob(self, file: File) -> Path:
        """Where the file's bytes belong."""
        return self.folder / "blobs" / file.digest

    def partial(self, file: File) -> Path:
        """Where the file's bytes gather until they are all there."""
        return self.folder / "blobs" / f"{file.digest}.incomplete"

    def prepare(self) -> None:
        """Make the folders that huggingface_hub expects in a repository's folder."""
        for name in ("blobs", "snapshots"):
            files.make_folder(self.folder / name)

    @contextmanager
    def alone(self, file: File, waiting: Callable[[], None]) -> Iterator[None]:
        """Be the only process that brings a file, huggingface_hub's own downloads included.

        The lock ends with its process. `waiting` is called each second until it is free.
        """
        from filelock import Timeout
        from huggingface_hub.utils import WeakFileLock

        path = self.root / ".locks" / self.name / f"{file.digest}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as held:
            while True:
                try:
                    held.enter_context(WeakFileLock(path, timeout=1))
                    break
                except Timeout:
                    waiting()
            yield

    def find(self, file: File, commit: str | None) -> Path | None:
        """The file's bytes in the cache, whole or damaged."""
        places = (self.blob(file), self.snapshot(commit) / file.path)
        return next((path for path in places if path.is_file()), None)

    def borrow(self, file: File) -> bool:
        """Link a Xet file that another repository has brought into the store of all."""
        try:
            from huggingface_hub.utils import _shared_blobs as shared

            return bool(
                file.xet
                and shared.shared_blobs_enabled()
                and shared.try_link_from_shared_store(
                    blob_path=str(self.blob(file)),
                    xet_hash=file.xet,
                    cache_dir=str(self.root),
                    expected_size=file.size,
                )
            )
        except (ImportError, AttributeError, TypeError):  # no part of the library's public face
            return False

    def keep(self, file: File) -> None:
        """Give a partial file that is whole its name. Its bytes are on the disk already."""
        try:
            os.replace(self.partial(file), self.blob(file))
        except FileNotFoundError:  # where locks do not work, another process has just done it
            if not self.blob(file).is_file():
                raise
        files.sync(self.blob(file).parent)

    def link(self, file: File, commit: str) -> None:
        """Put a file into a commit's folder: a relative link, or where none can be, a hard one."""
        from huggingface_hub import constants

        blob, pointer = self.blob(file), self.snapshot(commit) / file.path
        if not blob.exists() or (pointer.exists() and pointer.samefile(blob)):
            return
        pointer.parent.mkdir(parents=True, exist_ok=True)
        temporary = pointer.with_name(f".{uuid.uuid4().hex}.link")
        try:
            if constants.HF_HUB_DISABLE_SYMLINKS:
                os.link(blob.resolve(), temporary)
            else:
                os.symlink(os.path.relpath(blob, pointer.parent), temporary)
            os.replace(temporary, pointer)
        finally:
            temporary.unlink(missing_ok=True)

    def commit_of(self, revision: str) -> str | None:
        """The commit that a branch or tag stood for when it was last fetched."""
        try:
            found = self._ref(revision).read_text().strip()
        except (OSError, ValueError):
            return None
        return found if COMMIT.fullmatch(found) else None

    def keep_commit(self, revision: str, commit: str) -> None:
        """Note what a branch or tag stands for."""
        path = self._ref(revision)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        temporary.write_text(commit)
        os.replace(temporary, path)

    def revisions(self) -> list[str]:
        """The branches and tags that were fetched."""
        refs = self.folder / "refs"
        return [path.relative_to(refs).as_posix() for path in refs.rglob("*") if path.is_file()]

    def keep_listing(self, listed: Iterable[File], commit: str) -> None:
        """Remember a commit's listing; it never changes. Without it, offline work is harder."""
        with suppress(OSError, StoreError):
            files.make_folder(self._memory(commit).parent)
            files.write_json(self._memory(commit), hub_repo.to_json(listed))

    def listing(self, commit: str) -> list[File] | None:
        """A commit's listing as it is remembered."""
        for path in (self._memory(commit), self.folder / "trees" / f"{commit}.json"):
            if (found := hub_repo.from_json(files.read_json(path))) is not None:
                return found
        return None

    def seen(self, commit: str) -> list[File]:
        """The files of a commit that are linked; a link's target is named after its digest."""
        folder = self.snapshot(commit)
        return [
            File(path.relative_to(folder).as_posix(), path.stat().st_size, digest)
            for path in sorted(folder.rglob("*"))
            if path.is_symlink() and path.is_file()
            if DIGEST.fullmatch(digest := path.readlink().name)
        ]

    def _memory(self, commit: str) -> Path:
        # not in trees/: what huggingface_hub finds there must be in the snapshot, all of it
        return default_root() / "listings" / self.name / f"{commit}.json"

    def _ref(self, revision: str) -> Path:
        try:
            return files.inside(self.folder / "refs", revision)
        except ValueError:
            raise StepError(f'"{revision}" is no name of a branch, tag or commit.') from None


def repositories(source: Source) -> list[str]:
    """The repositories of the same kind that are cached."""
    root, kind = Cache.of(source).root, f"{source.type}s--"
    found = sorted(root.glob(f"{kind}*")) if root.is_dir() else []
    return [path.name.removeprefix(kind).replace("--", "/") for path in found]


def is_right(path: Path, file: File, halt_here: Callable[[], None]) -> bool:
    """Whether the bytes at a path are those that the repository lists.

    `halt_here` is called again and again and may raise.
    """
    if path.stat().st_size != file.size:
        return False
    kind = "sha256" if len(file.digest) == 64 else "git"
    return memo.digest(path, kind, lambda path: _digest(path, file, halt_here)) == file.digest


def _digest(path: Path, file: File, halt_here: Callable[[], None]) -> str:
    hasher = file.hasher()
    with open(path, "rb") as stream:
        while chunk := stream.read(CHUNK):
            halt_here()
            hasher.update(chunk)
    return str(hasher.hexdigest())
