"""One file from the Hub: taken up where it was left, hashed as it comes, kept when it is right."""

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial as bound
from typing import Any

from runner.errors import StepError
from runner.sources.hub import cache as hub_cache
from runner.sources.hub import errors as hub_errors
from runner.sources.hub import xet as hub_xet
from runner.sources.hub.cache import Cache
from runner.sources.hub.errors import explained, refusals
from runner.sources.hub.repo import File, Source
from runner.sources.hub.workers import Workers

CHUNK = 1 << 20
LONG = 10.0
"""Seconds of waiting that are worth a line."""
SYNC_EVERY = 64 << 20
"""Bytes after which what was written is sent to the disk, while the next bytes come."""


class Partial:
    """A file's bytes so far, on disk, and their digest."""

    def __init__(self, file: File, cache: Cache) -> None:
        self.file, self.size, self.hasher = file, 0, file.hasher()
        self.path = cache.partial(file)
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._synced, self._syncing = 0, Future[None]()
        self._syncing.set_result(None)
        self._disk = ThreadPoolExecutor(1, "sync")

    def take_up(self, workers: Workers) -> None:
        """Go on after the bytes that an earlier process brought; they are hashed first."""
        while chunk := os.pread(self._fd, CHUNK, self.size):
            workers.halt_here()
            self._add(chunk)
        if self.size > self.file.size:
            self.restart()
        workers.count(self.size, received=False)

    def restart(self) -> None:
        """Forget all bytes."""
        os.ftruncate(self._fd, 0)
        self.size, self.hasher, self._synced = 0, self.file.hasher(), 0

    def write(self, chunk: bytes) -> None:
        """Add bytes at their own place, where a second writer would put the same ones."""
        view = memoryview(chunk)
        while view:
            view = view[os.pwrite(self._fd, view, self.size + len(chunk) - len(view)) :]
        self._add(chunk)
        if self.size - self._synced >= SYNC_EVERY and self._syncing.done():
            self._syncing.result()  # an error of the disk is told only once
            self._synced = self.size
            self._syncing = self._disk.submit(os.fdatasync, self._fd)

    def is_right(self) -> bool:
        """Whether the bytes are those that the repository lists; then they are on the disk."""
        if self.size != self.file.size or self.hasher.hexdigest() != self.file.digest:
            return False
        self._syncing.result()
        os.fsync(self._fd)
        return os.fstat(self._fd).st_size == self.size

    def close(self) -> None:
        """Let go of the file on disk."""
        self._disk.shutdown()
        os.close(self._fd)

    def _add(self, chunk: bytes) -> None:
        self.hasher.update(chunk)
        self.size += len(chunk)


class Transfer:
    """The download of a repository's files into its cache."""

    def __init__(self, source: Source, cache: Cache, workers: Workers) -> None:
        self.source, self.cache, self.workers = source, cache, workers
        self.xet = hub_xet.Xet.of(source)
        self._awaited = set[File]()

    def bring(self, file: File) -> None:
        """Bring one file, unless another process has just done so."""
        with explained(self.source), self.cache.alone(file, bound(self._await, file)):
            if self._is_there(file):
                self.workers.count(file.size, received=False)
                return
            for last in (False, True):
                with closing(Partial(file, self.cache)) as partial:
                    partial.take_up(self.workers)
                    self._complete(partial)
                    if partial.is_right():
                        self.cache.keep(file)
                        return
                    self._discard(partial, last)

    def _await(self, file: File) -> None:
        """Wait for another process, which is said once."""
        if file not in self._awaited:
            self._awaited.add(file)
            self.workers.note(f"another process is fetching {file.path}; waiting for it")
        self.workers.halt_here()

    def _is_there(self, file: File) -> bool:
        path = self.cache.find(file, self.source.commit)
        if path is None and self.cache.borrow(file):
            path = self.cache.blob(file)
        return path is not None and hub_cache.is_right(path, file, self.workers.halt_here)

    def _complete(self, partial: Partial) -> None:
        """Bring what is missing; a connection that breaks off is taken up where it did."""
        idle = 0
        while partial.size < partial.file.size:
            before = partial.size
            try:
                for chunk in self._rest(partial):
                    self.workers.halt_here()
                    partial.write(chunk)
                    self.workers.count(len(chunk))
                if partial.size < partial.file.size:
                    raise ConnectionError("it ended early")
            except refusals() as error:
                idle = 1 if partial.size > before else idle + 1
                seconds = hub_errors.pause(error, idle)
                if seconds is None or idle >= hub_errors.TRIES:
                    raise
                if seconds > LONG:
                    self.workers.note(f"the Hub asks to wait {seconds:.0f} s")
                self.workers.sleep(seconds)

    def _rest(self, partial: Partial) -> Iterator[bytes]:
        """The bytes that are missing, by Xet where that works."""
        if self.xet and partial.file.xet:
            try:
                yield from self.xet.chunks(partial.file, partial.size)
                return
            except Exception as error:  # of a native library: it may be anything
                if hub_errors.status(error) in (401, 403):
                    raise
                if self.xet:
                    self.workers.note("Xet storage cannot be read; fetching over plain HTTP")
                self.xet = None
        yield from self._over_http(partial)

    def _over_http(self, partial: Partial) -> Iterator[bytes]:
        from huggingface_hub import constants, hf_hub_url
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        url = hf_hub_url(
            self.source.repo,
            partial.file.path,
            repo_type=self.source.type,
            revision=self.source.commit,
        )
        headers: dict[str, Any] = {**build_hf_headers(), "Accept-Encoding": "identity"}
        if partial.size:
            headers["Range"] = f"bytes={partial.size}-"
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with get_session().stream("GET", url, headers=headers, timeout=timeout) as answer:
            hf_raise_for_status(answer)
            if partial.size and answer.status_code != 206:
                self._restart(partial)
            for chunk in answer.iter_bytes():
                left = partial.file.size - partial.size
                yield chunk[:left]
                if len(chunk) > left:
                    return

    def _restart(self, partial: Partial) -> None:
        self.workers.count(-partial.size, received=False)
        partial.restart()

    def _discard(self, partial: Partial, last: bool) -> None:
        """Throw away bytes that are not the repository's; say so, and once fetch them again."""
        name = partial.file.path
        self._restart(partial)
        partial.path.unlink(missing_ok=True)
        if last:
            raise StepError(
                f"{name} of {self.source.repo} came twice with other bytes than the repository "
                "lists. Does something between here and the Hub change them?"
            )
        self.workers.note(f"{name} came with other bytes than the repository lists; once more")
