"""What makes a saved folder count: all of it on the disk, every file listed with its digest."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from runner import files
from runner.files import Manifest
from runner.saving.formats import MARK

LARGE = 1 << 20
"""Bytes from which a file is worth a thread. Each small one would make the large ones wait."""

MOMENT = 0.002
"""Seconds in which threads begin, before something else holds the interpreter (tokenizers do)."""


class Sealing:
    """Digests and syncs weights beside the work that comes after them; used in a `with`."""

    def __init__(self) -> None:
        self._beside = ThreadPoolExecutor(2)  # one is at the disk, one computes
        self._synced: list[Future[None]] = []
        self._begun: dict[Path, tuple[tuple[int, ...] | None, Future[dict[str, Any]]]] = {}

    def __enter__(self) -> "Sealing":
        return self

    def __exit__(self, *_: object) -> None:
        self._beside.shutdown(cancel_futures=True)

    def begin(self, folder: Path) -> None:
        """Take what lies in a folder by now for whole; small files are left to the end.

        From here on a large one may be replaced, but not cut short: it is mapped into memory.
        """
        large = (each for each in files.walk(folder) if each.stat().st_size >= LARGE)
        for path in large:
            self._begun[path] = files.seen(path), self._beside.submit(files.file_facts, path)
            self._synced.append(self._beside.submit(files.sync, path))
        time.sleep(MOMENT)

    def end(self, folder: Path) -> Manifest:
        """Size and digest of every file, listed in one more; all of it is on the disk by then."""
        found = {
            path.relative_to(folder).as_posix(): self._facts(path) for path in files.walk(folder)
        }
        files.write_json(folder / MARK, {"files": found}, synced=False)
        files.sync_tree(folder)
        for each in self._synced:  # a disk says only once that it lost something
            each.result()
        return {**found, MARK: files.file_facts(folder / MARK)}

    def _facts(self, path: Path) -> dict[str, Any]:
        """As they were found beside the work, unless the file is another one since."""
        before, facts = self._begun.get(path, (None, None))
        if facts is None or files.seen(path) != before:
            return files.file_facts(path)
        return facts.result()
