"""Finished steps by key: complete or absent, whatever happens on the way."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import spoil

from runner import files, upkeep
from runner.errors import StoreError
from runner.store import Entry, Store, default_root

KEY = "0123456789abcdef"
RECORD = {"recipe": "trial", "step": "load", "parts": {}, "facts": {}, "seconds": 1.0}


def two_files(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "weights").write_bytes(b"weights" * 100)
    (folder / "config").write_bytes(b"config")


def other_files(folder: Path) -> None:
    (folder / "config").write_bytes(b"another")


def commit(store: Store, save: Callable[[Path], None] = two_files, key: str = KEY) -> Entry:
    return store.commit(store.draft(key), save, RECORD)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_a_key_that_was_never_made_is_absent(store: Store):
    assert store.look(KEY) is None
    assert store.entry(KEY) is None
    assert not store.has_draft(KEY)


def test_a_committed_step_is_there_with_its_record(store: Store):
    commit(store)
    entry = Store(store.root).entry(KEY)
    assert entry is not None
    assert entry.damage() is None
    assert {name: entry.record[name] for name in RECORD} == RECORD
    assert entry.record["key"] == KEY


def test_the_record_names_every_file_with_size_and_digest(store: Store):
    entry = commit(store)
    assert entry.record["files"] == {
        "config": {"size": 6, "blake3": files.digest(entry.product / "config")},
        "deep/weights": {"size": 700, "blake3": files.digest(entry.product / "deep" / "weights")},
    }
    assert entry.digest == files.digest_json(entry.record["files"])


def test_the_files_of_a_product_are_read_only(store: Store):
    entry = commit(store)
    for name in entry.record["files"]:
        assert (entry.product / name).stat().st_mode & 0o777 == 0o444


def test_the_same_product_has_the_same_digest_under_another_key(store: Store):
    assert commit(store).digest == commit(store, key="another").digest
    assert commit(store).digest != commit(store, other_files, key="a third").digest


def test_a_commit_uses_its_draft_up(store: Store):
    commit(store)
    assert names(store.drafts) == []
    assert names(store.entries) == [KEY]


@pytest.mark.parametrize("how", ["truncate", "delete"])
def test_a_file_of_another_size_is_seen_by_a_look(store: Store, how: str):
    entry = commit(store)
    spoil(entry.product / "deep" / "weights", how)
    assert "deep/weights" in str(store.look(KEY))
    assert store.entry(KEY) is None


def test_a_flipped_bit_is_seen_when_the_bytes_are_read(store: Store):
    entry = commit(store)
    spoil(entry.product / "deep" / "weights", "flip")
    looked = store.entry(KEY)
    assert looked is not None
    assert looked.damage() == "deep/weights has other bytes than were written"


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"key": "of another"}'])
def test_an_entry_without_its_record_is_damaged(store: Store, text: str | None):
    record = commit(store).folder / "record.json"
    record.unlink()
    if text is not None:
        record.write_text(text)
    assert store.look(KEY) == "its record cannot be read"
    assert store.entry(KEY) is None


def test_a_record_that_lacks_its_files_is_damaged(store: Store):
    record = commit(store).folder / "record.json"
    record.write_text(record.read_text().replace('"files"', '"filed"'))
    assert isinstance(store.look(KEY), str)


def test_a_record_whose_figures_were_changed_is_damaged(store: Store):
    entry = commit(store)
    record = entry.folder / "record.json"
    record.write_text(record.read_text().replace(entry.digest, "0" * 64))
    assert isinstance(store.look(KEY), str)


def test_a_file_that_the_record_does_not_name_is_damage(store: Store):
    entry = commit(store)
    (entry.product / "another").touch()
    assert entry.damage() is not None


def test_a_whole_entry_stays_when_somebody_commits_the_same_key(store: Store):
    late = store.draft(KEY)
    kept = commit(Store(store.root))  # takes the late one's folder over, as if it were dead
    dropped = store.commit(late, other_files, RECORD)
    assert dropped.record["id"] == kept.record["id"]
    assert dropped.digest == kept.digest
    assert names(store.entries) == [KEY]
    assert names(store.drafts) == []


@pytest.mark.parametrize("damaged", ["record.json", "product/config"])
def test_a_commit_replaces_a_damaged_entry(store: Store, damaged: str):
    spoil(commit(store).folder / damaged, "delete")
    entry = commit(store, other_files)
    assert entry.damage() is None
    assert list(entry.record["files"]) == ["config"]
    assert (entry.product / "config").read_bytes() == b"another"
    assert names(store.drafts) == []


def test_an_entry_is_discarded_with_its_read_only_files(store: Store):
    commit(store)
    store.discard(KEY)
    store.discard(KEY)
    assert store.look(KEY) is None
    assert names(store.entries) == names(store.drafts) == []


def test_the_next_draft_of_a_key_is_the_one_that_was_left(store: Store):
    left = store.draft(KEY)
    (left.work / "state").write_text("half")
    filled = left.work / "filled"
    filled.mkdir()
    (filled / "state").touch()
    left.checkpoints(print).save(3, filled)
    assert store.has_draft(KEY)
    taken = Store(store.root).draft(KEY)
    assert (taken.work / "state").read_text() == "half"
    assert taken.checkpoints(print).newest()[0] == 3
    assert taken.folder != left.folder
    assert not left.folder.exists()
    assert len(names(store.drafts)) == 1


def test_a_draft_belongs_to_one_key(store: Store):
    (store.draft(KEY).work / "state").touch()
    assert not store.has_draft("another")
    assert names(store.draft("another").work) == []


def test_an_empty_draft_is_nothing_to_go_on_from(store: Store):
    store.draft(KEY)
    assert not store.has_draft(KEY)


def test_drafts_are_dropped_by_key(store: Store):
    for key in (KEY, "another"):
        (store.draft(key).work / "state").touch()
    store.drop_draft(KEY)
    assert not store.has_draft(KEY)
    assert store.has_draft("another")


def test_a_full_disk_is_said_and_nothing_half_made_gets_a_name(store: Store):
    def full(folder: Path) -> None:
        (folder / "config").write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    draft = store.draft(KEY)
    (draft.work / "state").write_text("kept")
    with pytest.raises(StoreError, match="No space left on device") as caught:
        store.commit(draft, full, RECORD)
    assert str(store.root) in str(caught.value)
    assert store.look(KEY) is None
    assert names(store.entries) == []
    assert (store.draft(KEY).work / "state").read_text() == "kept"
    assert list(commit(store, other_files).record["files"]) == ["config"]


def test_what_a_killed_commit_left_is_no_part_of_the_next(store: Store):
    left = store.draft(KEY)
    (left.folder / "entry" / "product").mkdir(parents=True)
    (left.folder / "entry" / "product" / "old").touch()
    assert list(commit(store, other_files).record["files"]) == ["config"]


@pytest.mark.parametrize(
    "act",
    [
        lambda store: store.draft(KEY),
        lambda store: store.remember("trial", "load", KEY, {}),
        lambda store: store.lease(KEY, print).__enter__(),
    ],
)
def test_a_store_that_cannot_be_written_is_a_store_error(
    tmp_path: Path, act: Callable[[Store], Any]
):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError):
        act(Store(tmp_path / "file"))


def test_a_lease_is_seen_as_work_in_progress(store: Store):
    assert not store.in_work(KEY)
    with store.lease(KEY, print):
        assert store.in_work(KEY)
        assert not store.in_work("another")
    assert not store.in_work(KEY)


def test_the_last_keys_of_a_step_are_remembered_newest_first(store: Store):
    for number in range(12):
        store.remember("trial", "load", f"key {number}", {"number": number})
    rows = store.recent("trial", "load")
    assert [row["parts"]["number"] for row in rows] == [11, 10, 9, 8, 7, 6, 5, 4]
    assert store.recent("trial", "adapt") == store.recent("another", "load") == []


def test_a_key_that_comes_back_moves_to_the_front(store: Store):
    for key in ("a", "b", "a", "a"):
        store.remember("trial", "load", key, {})
    assert [row["key"] for row in store.recent("trial", "load")] == ["a", "b"]


@pytest.mark.parametrize("text", ["", "{", "{}"])
def test_damaged_memories_are_forgotten(store: Store, text: str):
    store.remember("trial", "load", KEY, {})
    (store.root / "recent" / "trial" / "load.json").write_text(text)
    assert store.recent("trial", "load") == []
    store.remember("trial", "load", KEY, {})
    assert len(store.recent("trial", "load")) == 1


def test_the_default_store_is_named_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RUNNER_STORE", str(tmp_path / "named"))
    assert default_root() == tmp_path / "named"
    monkeypatch.delenv("RUNNER_STORE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_root() == tmp_path / "home" / ".cache" / "recipe-runner"


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EIO, errno.EACCES])
def test_a_disk_that_refuses_is_no_damage(store: Store, monkeypatch, code):
    entry = commit(store)
    real = Path.read_text

    def refuse(path: Path, *given: Any, **more: Any) -> str:
        if path.name == "record.json":
            raise OSError(code, os.strerror(code), str(path))
        return real(path, *given, **more)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", refuse)
        with pytest.raises(StoreError, match=r"record.json: cannot be read: "):
            store.look(entry.key)
        with pytest.raises(StoreError, match=r"record.json: cannot be read: "):
            upkeep.garbage(store, 0, drafts=True)
        assert [fault and "cannot be read" in fault for _, fault in upkeep.verify(store)] == [True]
    assert store.entry(entry.key)


def test_a_draft_is_left_to_its_owner_while_that_lives(store: Store, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(os, "getpid", os.getppid)
        theirs = store.draft(KEY).folder
    (theirs / "work" / "half").touch()
    assert store.draft(KEY).folder != theirs
    assert (theirs / "work" / "half").exists()
    place, pid, start = theirs.name.split(".")[1].split("-")
    dead = theirs.with_name(f"{KEY}.{place}-{pid}-{int(start) - 1}.token")
    theirs.rename(dead)
    files.remove(next(path for path in store.drafts.iterdir() if path != dead))
    assert (store.draft(KEY).work / "half").exists()
    assert not dead.exists()


def test_the_name_of_a_new_store_outlives_a_loss_of_power(tmp_path, monkeypatch):
    """Whatever makes the folder first must sync the one above it."""
    synced: list[Path] = []
    monkeypatch.setattr(files, "sync", synced.append)
    with Store(tmp_path / "new" / "store").lease(KEY, print):
        pass
    assert {tmp_path, tmp_path / "new", tmp_path / "new" / "store"} <= {*synced}
