"""Remembered digests: believed only where the file cannot have changed."""

import os
from pathlib import Path

import pytest

from runner import files, memo


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Which files were read through."""
    seen: list[Path] = []
    digest = files.digest
    monkeypatch.setattr(files, "digest", lambda path: (seen.append(path), digest(path))[1])
    return seen


def write(path: Path, byte: bytes, *, age: float = 10) -> Path:
    """A large file, last changed so many seconds ago."""
    path.write_bytes(byte * memo.LARGE)
    then = path.stat().st_mtime_ns - int(age * 1e9)
    os.utime(path, ns=(then, then))
    return path


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time has gone by since the files were changed."""
    now = memo.time.time_ns
    monkeypatch.setattr(memo.time, "time_ns", lambda: now() + 10_000_000_000)


def test_a_large_file_is_read_once(tmp_path, reads, settled):
    path = write(tmp_path / "a.bin", b"a")
    assert memo.file_facts(path) == memo.file_facts(path)
    assert reads == [path]


def test_a_changed_file_is_read_again(tmp_path, reads, settled):
    first = memo.file_facts(write(tmp_path / "a.bin", b"a"))
    second = memo.file_facts(write(tmp_path / "a.bin", b"b"))
    assert first["blake3"] != second["blake3"]
    assert len(reads) == 2


def test_a_file_replaced_by_one_with_the_same_size_and_time_is_read_again(tmp_path, reads, settled):
    path = write(tmp_path / "a.bin", b"a")
    memo.file_facts(path)
    status = path.stat()
    other = write(tmp_path / "b.bin", b"b")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(other, path)
    assert memo.file_facts(path)["blake3"] == files.digest(path)
    assert len(reads) == 3


def test_a_file_that_has_just_changed_is_not_remembered(tmp_path, reads):
    path = write(tmp_path / "a.bin", b"a", age=0)
    memo.file_facts(path)
    memo.file_facts(path)
    assert len(reads) == 2


def test_a_memory_that_cannot_be_read_or_written_only_costs_time(
    tmp_path, reads, settled, own_store
):
    path = write(tmp_path / "a.bin", b"a")
    (own_store / "digests.json").write_text("[")
    assert memo.file_facts(path)["blake3"] == files.digest(path)
    (own_store / "digests.json").unlink()
    (own_store / "digests.json").mkdir()
    assert memo.file_facts(path)["size"] == memo.LARGE
