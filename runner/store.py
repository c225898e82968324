"""The store: finished steps by key, and the drafts of unfinished ones.

    entries/<key>/   record.json and product/: complete or absent; metrics.jsonl, what was measured
    drafts/<key>.<owner>.<token>/   unfinished work; the next run of the same key takes it over
    leases/<key>     who is making what (lease.py)
    dropped/<key>/   record.json alone: what a result was whose files its recipe did not keep
    recent/<recipe>/<step>.json   the last keys of a step, only to say why it runs

What is promised. *A process is killed*: an entry is there whole or not at all, for it gets its
name by one rename after all its bytes; the draft keeps the checkpoints. *The machine goes down*:
every file, the record and the folders are synced before and after that rename. *The disk is full*:
the write fails, the draft is left, nothing half-made gets a name. *Leases don't work*, or two
machines share the folder: both may do the work, one rename wins and the other result is dropped.
*Bytes rot*: sizes are compared whenever an entry is planned on, every byte when it is read; a
damaged entry is as good as absent and is made again. Files in entries are read-only.
"""

import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner import files, metrics
from runner.checkpoint import Checkpoints
from runner.errors import StoreError, reading, writing
from runner.lease import Watch, clear, is_held, lease, lives_beside, signature, watch

RECORD_SCHEMA = 1
RECORDED = ("id", "key", "digest", "files", "facts", "recipe", "step")
"""What every record says, whoever wrote it."""
RECENT_KEYS = 8
DRAFTED = ("work", "checkpoints", "entry")


def default_root() -> Path:
    """RUNNER_STORE, or ~/.cache/recipe-runner."""
    named = os.environ.get("RUNNER_STORE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "recipe-runner"


@dataclass(frozen=True)
class Entry:
    """One finished step."""

    key: str
    folder: Path
    record: Mapping[str, Any]

    @property
    def product(self) -> Path:
        """The folder with the product's files."""
        return self.folder / "product"

    @property
    def digest(self) -> str:
        """The digest of the product: of every file's name, size and bytes."""
        return str(self.record["digest"])

    @property
    def metrics(self) -> Path:
        """The file with the figures over time that its step has measured, if it did."""
        return self.folder / metrics.NAME

    def seen(self) -> Mapping[str, tuple[int, ...] | None]:
        """What the file system says of each file: the same while nobody has changed any."""
        return {name: files.seen(self.product / name) for name in self.record["files"]}

    def damage(self) -> str | None:
        """What is wrong with the product's bytes, in words; None where all is well."""
        expected = self.record["files"]
        for path in self.product.rglob("*"):
            name = path.relative_to(self.product).as_posix()
            if path.is_symlink() or (not path.is_dir() and name not in expected):
                return f"{name} is not one of its files"
        return files.damage(self.product, expected, bytes_too=True)


@dataclass(frozen=True)
class Draft:
    """The folder of one unfinished step, owned by this process."""

    key: str
    folder: Path

    @property
    def work(self) -> Path:
        """What the stage keeps while it works."""
        return self.folder / "work"

    @property
    def metrics(self) -> Path:
        """The figures over time that the step has measured so far."""
        return self.folder / metrics.NAME

    def checkpoints(self, note: Callable[[str], None], keep: int = 2) -> Checkpoints:
        """The step's checkpoints."""
        return Checkpoints(self.folder / "checkpoints", note, keep)


class Store:
    """The folder that holds finished steps by key, shared by all runs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.entries, self.drafts = root / "entries", root / "drafts"
        self.dropped = root / "dropped"

    def entry(self, key: str) -> Entry | None:
        """The finished step of that key; None where it is absent or visibly damaged."""
        found = self.look(key)
        return found if isinstance(found, Entry) else None

    def look(self, key: str) -> Entry | str | None:
        """The entry, what is wrong with it (in words), or None where there is none."""
        folder = self.entries / key
        with reading(folder):
            if not folder.is_dir():
                return None
        record = _record(folder)
        if record is None:
            return "its record cannot be read"
        fault = files.damage(folder / "product", record["files"], bytes_too=False)
        return fault or Entry(key, folder, record)

    def discard(self, key: str) -> None:
        """Take an entry away, all at once, then delete it."""
        aside = self.drafts / f"discarded.{uuid.uuid4().hex}"
        files.make_folder(self.drafts)
        with suppress(FileNotFoundError):
            os.rename(self.entries / key, aside)
        files.remove(aside)

    def remains(self, key: str) -> Entry | None:
        """What is known of a result whose files were dropped; its product is not there."""
        record = _record(self.dropped / key)
        return None if record is None else Entry(key, self.dropped / key, record)

    def drop(self, entry: Entry) -> None:
        """Keep an entry's record and let its files go."""
        with writing(self.root):
            files.make_folder(self.dropped / entry.key)
            record = {**entry.record, "seal": files.digest_json(entry.record)}
            _copy(entry.metrics, self.dropped / entry.key)
            files.write_json(self.dropped / entry.key / "record.json", record)
        self.discard(entry.key)

    def lease(
        self,
        key: str,
        on_wait: Callable[[str], None],
        stop_here: Callable[[], None] = lambda: None,
    ) -> AbstractContextManager[None]:
        """Be the one process that makes this key."""
        with writing(self.root):
            files.make_folder(self.root / "leases")
        return lease(self.root / "leases" / key, on_wait, stop_here)

    def in_work(self, key: str) -> bool:
        """Whether somebody alive holds the lease of this key."""
        return is_held(self.root / "leases" / key)

    def clear_lease(self, key: str) -> None:
        """Take away what a process has left that died between a commit and the end of its lease."""
        clear(self.root / "leases" / key)

    def watch(self, key: str) -> Watch:
        """Follow the one who makes this key now."""
        return watch(self.root / "leases" / key)

    def has_draft(self, key: str) -> bool:
        """Whether unfinished work for this key is kept."""
        kept = (left / name for left in self.drafts.glob(f"{key}.*") for name in DRAFTED)
        return any(map(files.names_in, kept))

    def draft_size(self, key: str) -> int:
        """Bytes of the unfinished work for this key."""
        return sum(files.size_below(left) for left in self.drafts.glob(f"{key}.*"))

    def draft(self, key: str) -> Draft:
        """A draft for this key: the one that an earlier process left, or a new one.

        A draft's name says whose it is. One whose owner is alive on this host is left alone (leases
        may not work). It is taken over by renaming, so that it never is without an owner, and one
        elsewhere that should be dead but is not loses its folder instead of writing into ours.
        """
        draft = Draft(key, self.drafts / f"{key}.{signature()}.{uuid.uuid4().hex[:8]}")
        with writing(self.drafts):
            files.make_folder(self.drafts)
            for left in sorted(self.drafts.glob(f"{key}.*"), key=_is_without_checkpoints):
                if lives_beside(left.name.split(".")[1]):
                    continue
                with suppress(FileNotFoundError):
                    os.rename(left, draft.folder)
                    break
            draft.work.mkdir(parents=True, exist_ok=True)
            files.sync(draft.folder)
            files.sync(self.drafts)
        return draft

    def unfinished(self, key: str) -> list[Path]:
        """The files with what unfinished work for this key has measured so far."""
        return sorted(self.drafts.glob(f"{key}.*/{metrics.NAME}"))

    def drop_draft(self, key: str) -> None:
        """Throw unfinished work for this key away."""
        for left in self.drafts.glob(f"{key}.*"):
            files.remove(left)

    def commit(
        self,
        draft: Draft,
        save: Callable[[Path], None],
        record: Mapping[str, Any],
        replaces: str | None = None,
    ) -> Entry:
        """Write the product by `save(folder)` and give it its name; the draft is used up.

        A whole entry that has the name already stays, unless `replaces` is its id.
        """
        staged = draft.folder / "entry"
        with writing(self.root):
            files.remove(staged)
            (staged / "product").mkdir(parents=True)
            save(staged / "product")
            _copy(draft.metrics, staged)
            self._seal(draft.key, staged, record)
            self._rename(draft.key, staged, replaces)
        files.remove(draft.folder)
        files.remove(self.dropped / draft.key)
        entry = self.entry(draft.key)
        if entry is None:
            raise StoreError(f"{self.entries / draft.key}: gone or changed right after its commit")
        return entry

    def remember(self, recipe: str, step: str, key: str, parts: Mapping[str, Any]) -> None:
        """Note that a step had this key, so that a later plan can say what changed."""
        path = self._recent(recipe, step)
        rows = self.recent(recipe, step)
        if rows and rows[0]["key"] == key:
            return
        rows = [{"key": key, "parts": parts}, *(row for row in rows if row["key"] != key)]
        with writing(self.root):
            files.make_folder(path.parent)
            files.write_json(path, rows[:RECENT_KEYS])

    def recent(self, recipe: str, step: str) -> list[dict[str, Any]]:
        """The last keys of a step with their parts, newest first."""
        rows = files.read_json(self._recent(recipe, step))
        return rows if isinstance(rows, list) else []

    def _recent(self, recipe: str, step: str) -> Path:
        return self.root / "recent" / recipe / f"{step}.json"

    def _seal(self, key: str, staged: Path, record: Mapping[str, Any]) -> None:
        """Make the files read-only and write the record that names them all."""
        found = files.manifest(staged / "product")
        for name in found:
            (staged / "product" / name).chmod(0o444)
        facts = {
            "schema": RECORD_SCHEMA,
            "id": uuid.uuid4().hex,
            "key": key,
            "digest": files.digest_json(found),
            **record,
            "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "host": socket.gethostname(),
            "files": found,
        }
        facts["seal"] = files.digest_json(facts)
        files.write_json(staged / "record.json", facts)
        files.sync_tree(staged)

    def _rename(self, key: str, staged: Path, replaces: str | None) -> None:
        """Give the entry its name; where a whole one has it already, that one stays."""
        files.make_folder(self.entries)
        found = self.look(key)
        if isinstance(found, str) or (found and found.record["id"] == replaces):
            self.discard(key)
        try:
            os.rename(staged, self.entries / key)
        except OSError:  # somebody else's result is there: it is as good as ours
            if self.entry(key) is None:
                raise
        files.sync(self.entries)


def _copy(path: Path, folder: Path) -> None:
    """Copy a file that may not be there."""
    with suppress(FileNotFoundError):
        shutil.copyfile(path, folder / path.name)


def _record(folder: Path) -> dict[str, Any] | None:
    """A folder's record, if it is there and as it was written."""
    record = files.read_json(folder / "record.json")
    if not isinstance(record, dict) or record.pop("seal", None) != files.digest_json(record):
        return None
    return record if {*RECORDED} <= {*record} else None


def _is_without_checkpoints(draft: Path) -> bool:
    return not files.names_in(draft / "checkpoints")
