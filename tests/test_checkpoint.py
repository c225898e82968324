"""Numbered states of unfinished work: complete or not there, newest valid one first."""

import os
from pathlib import Path

import pytest
from fakes import spoil

from runner import files
from runner.checkpoint import MANIFEST, Checkpoints


def keep(checkpoints: Checkpoints, number: int, text: str = "") -> Path:
    """Save a checkpoint with one file and give its folder."""
    filled = checkpoints.folder.parent / "filled"
    filled.mkdir(parents=True)
    (filled / "state").write_text(text or f"state {number}")
    checkpoints.save(number, filled)
    assert not filled.exists()
    return checkpoints.folder / f"{number:09d}"


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def checkpoints(tmp_path: Path, notes: list[str]) -> Checkpoints:
    return Checkpoints(tmp_path / "draft" / "checkpoints", notes.append)


def test_without_checkpoints_there_is_no_newest(checkpoints: Checkpoints, notes: list[str]):
    assert checkpoints.newest() is None
    assert notes == []


def test_the_newest_is_the_one_with_the_highest_number(checkpoints: Checkpoints):
    keep(checkpoints, 1)
    keep(checkpoints, 2)
    found = checkpoints.newest()
    assert found is not None
    assert found[0] == 2
    assert (found[1] / "state").read_text() == "state 2"


def test_the_order_is_by_number_and_not_by_time(checkpoints: Checkpoints):
    newer = keep(checkpoints, 10)
    older = keep(checkpoints, 9)
    os.utime(newer, (1, 1))
    os.utime(older, (10**9, 10**9))
    found = checkpoints.newest()
    assert found is not None
    assert found[0] == 10


def test_two_checkpoints_stay(checkpoints: Checkpoints):
    for number in (1, 2, 3, 4):
        keep(checkpoints, number)
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["000000003", "000000004"]


@pytest.mark.parametrize("how", ["truncate", "flip", "delete"])
@pytest.mark.parametrize("name", ["state", MANIFEST])
def test_a_damaged_one_is_passed_over_aloud(
    checkpoints: Checkpoints, notes: list[str], name: str, how: str
):
    keep(checkpoints, 1)
    file = keep(checkpoints, 2) / name
    if (name, how) == (MANIFEST, "truncate"):
        file.write_bytes(file.read_bytes()[:-9])  # more than the last line's end
    else:
        spoil(file, how)
    found = checkpoints.newest()
    assert found is not None
    assert found[0] == 1
    assert len(notes) == 1
    assert notes[0].startswith("checkpoint 2 is damaged (")
    assert notes[0].endswith("taking the one before")


@pytest.mark.parametrize("bit", [0, 3])
def test_no_flipped_bit_of_a_manifest_can_end_the_run(checkpoints: Checkpoints, bit: int):
    keep(checkpoints, 1)
    manifest = keep(checkpoints, 2) / MANIFEST
    text = manifest.read_bytes()
    for place in range(len(text)):
        manifest.write_bytes(text[:place] + bytes([text[place] ^ (1 << bit)]) + text[place + 1 :])
        assert checkpoints.newest() is not None


def test_where_all_are_damaged_there_is_none(checkpoints: Checkpoints, notes: list[str]):
    for number in (1, 2):
        spoil(keep(checkpoints, number) / "state", "flip")
    assert checkpoints.newest() is None
    assert len(notes) == 2


def test_a_half_written_one_is_no_checkpoint(checkpoints: Checkpoints, notes: list[str]):
    keep(checkpoints, 1)
    half = checkpoints.folder / f"{2:09d}"
    half.mkdir()
    (half / "state").write_text("half")
    found = checkpoints.newest()
    assert found is not None
    assert found[0] == 1
    assert "its manifest is missing" in notes[0]


def test_other_names_in_the_folder_are_no_checkpoints(checkpoints: Checkpoints, notes: list[str]):
    keep(checkpoints, 1)
    (checkpoints.folder / "filled").mkdir()
    assert checkpoints.newest() == (1, checkpoints.folder / "000000001")
    assert notes == []


def test_the_same_number_saved_again_replaces_a_damaged_one(checkpoints: Checkpoints):
    spoil(keep(checkpoints, 3) / "state", "flip")
    assert checkpoints.newest() is None
    keep(checkpoints, 3, "again")
    found = checkpoints.newest()
    assert found is not None
    assert (found[1] / "state").read_text() == "again"


def test_folders_within_a_checkpoint_are_kept_and_checked(checkpoints: Checkpoints, tmp_path: Path):
    filled = tmp_path / "filled"
    (filled / "optimizer").mkdir(parents=True)
    (filled / "optimizer" / "state").write_bytes(b"12345")
    checkpoints.save(7, filled)
    found = checkpoints.newest()
    assert found is not None
    assert "optimizer/state" in files.read_json(found[1] / MANIFEST)
    spoil(found[1] / "optimizer" / "state", "flip")
    assert checkpoints.newest() is None
