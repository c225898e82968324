"""What is in a store, whether it is whole, and what may go. Nothing goes unless asked for."""

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from runner import files
from runner.errors import StoreError, writing
from runner.lease import is_held, is_mine, lease
from runner.store import RECENT_KEYS, Entry, Store

OLD = 3600.0
"""Seconds after which nobody is still writing a half-written file."""
LARGE = 32 << 20
"""Bytes from which dropping a result is worth making it again."""


@dataclass(frozen=True)
class Garbage:
    """What a collection takes away."""

    entries: tuple[Entry, ...]
    damaged: tuple[str, ...]
    drafts: tuple[Path, ...]
    remains: tuple[Path, ...]
    size: int


def entries(store: Store) -> Iterator[Entry]:
    """Every finished step whose record can be read."""
    for key in _keys(store):
        if entry := store.entry(key):
            yield entry


def size_of(entry: Entry) -> int:
    """Bytes of an entry's product."""
    return files.total_size(entry.record["files"])


def find(store: Store, beginning: str) -> Entry:
    """The one entry whose key begins so; StoreError where there is none or more."""
    keys = [key for key in _keys(store) if key.startswith(beginning)]
    if not keys:
        raise StoreError(
            f'no result has a key that begins with "{beginning}".\n  See: runner store ls'
        )
    if len(keys) > 1:
        raise StoreError(f'{len(keys)} results have keys that begin with "{beginning}".')
    entry = store.entry(keys[0])
    if entry is None:
        raise StoreError(f"{keys[0]} is damaged: {store.look(keys[0])}")
    return entry


def keys_of_run(folder: str) -> list[str]:
    """The keys of a run's steps; none where the folder is no run's."""
    record = files.read_json(Path(folder) / "record.json") or {}
    return [str(step["key"]) for step in record.get("steps", {}).values()]


def verify(store: Store) -> Iterator[tuple[str, str | None]]:
    """Each key with what is wrong with it, every byte read; None where all is well."""
    for key in _keys(store):
        try:
            found = store.look(key)
            if found is not None:
                yield key, found if isinstance(found, str) else found.damage()
        except StoreError as error:
            yield key, str(error)


def garbage(store: Store, keep: int, *, drafts: bool) -> Garbage:
    """What no recipe's last `keep` results, no pin and no living run needs.

    `drafts` counts unfinished work in, where nobody is at it. Damaged entries always go, and what
    is known of dropped results, and the marks of runs that are dead.
    """
    needed = roots(store, keep)
    loose = tuple(entry for entry in entries(store) if entry.key not in needed)
    damaged = tuple(key for key in _keys(store) if isinstance(store.look(key), str))
    left = [
        path
        for path in sorted(store.drafts.glob("*"))
        if path.name.startswith("discarded.")
        or (drafts and not store.in_work(path.name.partition(".")[0]))
    ]
    remains = [path for path in sorted(store.dropped.glob("*")) if path.name not in needed]
    remains += _marks_of_the_dead(store)
    size = sum(map(size_of, loose)) + sum(map(files.size_below, left))
    return Garbage(loose, damaged, tuple(left), tuple(remains), size)


def delete(store: Store, found: Garbage) -> None:
    """Take garbage away, but for what a run has begun to use in the meantime."""
    needed = in_use(store)
    for key in [*(entry.key for entry in found.entries), *found.damaged]:
        if key not in needed and not store.in_work(key):
            store.discard(key)
    for path in found.drafts:
        files.remove(path)
    for path in found.remains:
        if path.name not in needed:
            files.remove(path)


def remove(store: Store, key: str) -> None:
    """Delete one entry; StoreError where a living run needs it."""
    if key in in_use(store) or store.in_work(key):
        raise StoreError(f"{key} is used by a run that is going on.")
    store.discard(key)


def roots(store: Store, keep: int) -> set[str]:
    """The keys that stay: of recent runs, pins, lock files, living runs and what is being made."""
    made = {key for key in _keys(store) if store.in_work(key)}
    return _recent(store, keep) | _pinned(store) | _locked(store) | made | in_use(store)


def _recent(store: Store, keep: int, apart_from: str = "") -> set[str]:
    return {
        row["key"]
        for path in (store.root / "recent").glob("*/*.json")
        for row in store.recent(path.parent.name, path.stem)[:keep]
        if path.parent.name != apart_from
    }


def _locked(store: Store) -> set[str]:
    rows = [files.read_json(path) or {} for path in (store.root / "locked").glob("*.json")]
    return {key for row in rows if row and Path(row["lock"]).exists() for key in row["keys"]}


def _pinned(store: Store) -> set[str]:
    return {path.name for path in (store.root / "pins").glob("*")}


def spare(store: Store, recipe: str, key: str) -> Entry | None:
    """The entry, if its files are large and no pin, other recipe or other run needs them."""
    entry = store.entry(key)
    if entry is None or size_of(entry) < LARGE or entry.record["recipe"] != recipe:
        return None
    elsewhere = _recent(store, RECENT_KEYS, apart_from=recipe)
    needed = elsewhere | _pinned(store) | in_use(store, by_others=True)
    return None if key in needed else entry


def pin(store: Store, key: str) -> None:
    """Keep an entry whatever happens."""
    with writing(store.root):
        files.make_folder(store.root / "pins")
        (store.root / "pins" / key).touch()


def keep_for_lock(store: Store, lock: Path, keys: Collection[str]) -> None:
    """Keep the entries of a recipe that has a lock file, for as long as that file is there."""
    path = store.root / "locked" / f"{files.digest_json(str(lock.resolve()))[:16]}.json"
    row = {"lock": str(lock.resolve()), "keys": sorted(keys)}
    if files.read_json(path) == row:
        return
    with writing(store.root):
        files.make_folder(path.parent)
        files.write_json(path, row)


def unpin(store: Store, key: str) -> None:
    """Let a pinned entry go again."""
    with suppress(FileNotFoundError):
        (store.root / "pins" / key).unlink()


@contextmanager
def using(store: Store, keys: Collection[str]) -> Iterator[None]:
    """Say that this process needs these keys while the block runs."""
    folder = store.root / "uses"
    path = folder / f"{time.time_ns()}-{files.digest_json(sorted(keys))[:16]}.json"
    with writing(store.root):
        files.make_folder(folder)
    with lease(path.with_suffix(".lease"), lambda _: None):
        with writing(store.root):
            files.write_json(path, sorted(keys))
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def in_use(store: Store, *, by_others: bool = False) -> set[str]:
    """The keys that living runs (but for this process's own) have said they need."""
    needed: set[str] = set()
    for path in (store.root / "uses").glob("*.json"):
        owner = path.with_suffix(".lease")
        if is_held(owner) and not (by_others and is_mine(owner)):
            needed |= set(files.read_json(path) or ())
    return needed


def _marks_of_the_dead(store: Store) -> list[Path]:
    """What killed runs have left: said to be used by nobody alive, or half-written and old."""
    uses = (store.root / "uses").glob("*.json")
    dead = [path for path in uses if not is_held(path.with_suffix(".lease"))]
    places = [*(store.root / "recent").glob("*/.*"), *(store.root / "leases").glob(".*.*")]
    torn = [path for path in places if _is_old(path)]
    return [*dead, *(path.with_suffix(".lease") for path in dead), *torn]


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > OLD
    except FileNotFoundError:  # it was being written, and is done
        return False


def _keys(store: Store) -> list[str]:
    return sorted(path.name for path in store.entries.glob("*"))
