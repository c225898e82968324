"""What is in a store, whether it is whole, and what may go. Nothing goes unless asked for."""

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from runner import files
from runner.errors import StoreError, writing
from runner.lease import is_held, lease
from runner.store import Entry, Store


@dataclass(frozen=True)
class Garbage:
    """What a collection takes away."""

    entries: tuple[Entry, ...]
    damaged: tuple[str, ...]
    drafts: tuple[Path, ...]
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


def verify(store: Store) -> Iterator[tuple[str, str | None]]:
    """Each key with what is wrong with it, every byte read; None where all is well."""
    for key in _keys(store):
        found = store.look(key)
        if found is not None:
            yield key, found if isinstance(found, str) else found.damage()


def garbage(store: Store, keep: int, *, drafts: bool) -> Garbage:
    """What no recipe's last `keep` results, no pin and no living run needs.

    `drafts` counts unfinished work in, where nobody is at it. Damaged entries always go.
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
    size = sum(map(size_of, loose)) + sum(map(_bytes_below, left))
    return Garbage(loose, damaged, tuple(left), size)


def delete(store: Store, found: Garbage) -> None:
    """Take garbage away, but for what a run has begun to use in the meantime."""
    needed = in_use(store)
    for key in [*(entry.key for entry in found.entries), *found.damaged]:
        if key not in needed and not store.in_work(key):
            store.discard(key)
    for path in found.drafts:
        files.remove(path)


def remove(store: Store, key: str) -> None:
    """Delete one entry; StoreError where a living run needs it."""
    if key in in_use(store) or store.in_work(key):
        raise StoreError(f"{key} is used by a run that is going on.")
    store.discard(key)


def roots(store: Store, keep: int) -> set[str]:
    """The keys that stay: of recent runs, of pins, of living runs and what is being made."""
    recent = {
        row["key"]
        for path in (store.root / "recent").glob("*/*.json")
        for row in store.recent(path.parent.name, path.stem)[:keep]
    }
    pinned = {path.name for path in (store.root / "pins").glob("*")}
    made = {key for key in _keys(store) if store.in_work(key)}
    return recent | pinned | made | in_use(store)


def pin(store: Store, key: str) -> None:
    """Keep an entry whatever happens."""
    with writing(store.root):
        (store.root / "pins").mkdir(parents=True, exist_ok=True)
        (store.root / "pins" / key).touch()


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
        folder.mkdir(parents=True, exist_ok=True)
    with lease(path.with_suffix(".lease"), lambda _: None):
        with writing(store.root):
            files.write_json(path, sorted(keys))
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def in_use(store: Store) -> set[str]:
    """The keys that living runs have said they need."""
    needed: set[str] = set()
    for path in (store.root / "uses").glob("*.json"):
        if is_held(path.with_suffix(".lease")):
            needed |= set(files.read_json(path) or ())
    return needed


def _keys(store: Store) -> list[str]:
    return sorted(path.name for path in store.entries.glob("*"))


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
