"""What makes a saved folder count: digests found beside the work, and all of it on the disk."""

import os
from pathlib import Path

import pytest

from runner import files
from runner.saving.formats import MARK
from runner.saving.sealing import LARGE, Sealing


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "made"
    (made / "inner").mkdir(parents=True)
    (made / "weights").write_bytes(os.urandom(3 * LARGE + 7))
    (made / "inner" / "empty").touch()
    return made


def test_every_file_is_listed_with_the_digest_that_it_has(folder):
    with Sealing() as sealing:
        sealing.begin(folder)
        (folder / "card").write_text("later")
        found = sealing.end(folder)
    assert found == files.manifest(folder)
    assert {*found} == {"weights", "inner/empty", "card", MARK}
    assert files.read_json(folder / MARK)["files"] == {n: found[n] for n in found if n != MARK}


def test_a_file_that_changes_after_it_was_taken_for_whole_is_digested_again(folder):
    with Sealing() as sealing:
        sealing.begin(folder)
        (folder / "weights").unlink()
        (folder / "weights").write_bytes(b"torn")
        found = sealing.end(folder)
    assert found["weights"] == files.file_facts(folder / "weights")
    assert found["weights"]["size"] == 4


def test_all_is_on_the_disk_in_the_end(folder, monkeypatch):
    synced: dict[str, int] = {}

    def fsync(fd: int) -> None:
        synced[os.readlink(f"/proc/self/fd/{fd}")] = os.fstat(fd).st_size

    monkeypatch.setattr(os, "fsync", fsync)
    with Sealing() as sealing:
        sealing.begin(folder)
        (folder / "card").write_text("later")
        found = sealing.end(folder)
    sizes = {str(folder / name): each["size"] for name, each in found.items()}
    assert synced.items() >= sizes.items()
    assert {str(folder), str(folder / "inner")} <= {*synced}


def test_what_the_disk_says_it_lost_ends_the_sealing(folder, monkeypatch):
    told: list[int] = []

    def fsync(fd: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}").endswith("weights") and not told:
            told.append(fd)
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    with Sealing() as sealing:
        sealing.begin(folder)
        with pytest.raises(OSError, match="Input/output error"):
            sealing.end(folder)
