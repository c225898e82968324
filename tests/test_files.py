"""Digests, durable writes, and what a folder holds."""

import os
from pathlib import Path

import pytest
from fakes import spoil

from runner import files


def test_a_digest_depends_on_the_bytes_alone(tmp_path: Path):
    (tmp_path / "one").write_bytes(b"abc" * 100_000)
    (tmp_path / "two").write_bytes(b"abc" * 100_000)
    (tmp_path / "three").write_bytes(b"abc" * 99_999 + b"abd")
    assert files.digest(tmp_path / "one") == files.digest(tmp_path / "two")
    assert files.digest(tmp_path / "one") != files.digest(tmp_path / "three")


def test_the_digest_of_an_empty_file_is_blake3_of_nothing(tmp_path: Path):
    (tmp_path / "empty").touch()
    known = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    assert files.digest(tmp_path / "empty") == known


def test_the_digest_of_a_mapping_does_not_depend_on_its_order():
    assert files.digest_json({"a": 1, "b": [2]}) == files.digest_json({"b": [2], "a": 1})
    assert files.digest_json({"a": 1}) != files.digest_json({"a": "1"})
    assert files.digest_json(1) != files.digest_json(1.0)


def test_a_figure_that_json_cannot_hold_has_no_digest():
    with pytest.raises(ValueError, match="JSON"):
        files.digest_json({"rate": float("nan")})


def test_a_manifest_names_every_file_below_a_folder_with_its_size(tmp_path: Path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "file").write_bytes(b"12345")
    (tmp_path / ".hidden").write_bytes(b"")
    (tmp_path / "äöü").write_bytes(b"1")
    found = files.manifest(tmp_path)
    assert {name: facts["size"] for name, facts in found.items()} == {
        ".hidden": 0,
        "deep/er/file": 5,
        "äöü": 1,
    }
    assert found["deep/er/file"]["blake3"] == files.digest(tmp_path / "deep" / "er" / "file")
    assert list(found) == sorted(found)


def test_a_link_in_a_product_is_refused(tmp_path: Path):
    (tmp_path / "outside").write_text("text")
    (tmp_path / "product").mkdir()
    (tmp_path / "product" / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(ValueError, match="link"):
        files.manifest(tmp_path / "product")


@pytest.mark.parametrize(
    ("how", "bytes_too", "said"),
    [
        ("truncate", False, "a has 4 bytes instead of 5"),
        ("delete", False, "a is missing"),
        ("flip", True, "a has other bytes than were written"),
    ],
)
def test_damage_is_said_in_words(tmp_path: Path, how: str, bytes_too: bool, said: str):
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "b").write_bytes(b"12345")
    expected = files.manifest(tmp_path)
    assert files.damage(tmp_path, expected, bytes_too=True) is None
    spoil(tmp_path / "a", how)
    assert files.damage(tmp_path, expected, bytes_too=bytes_too) == said


def test_a_flipped_bit_is_not_looked_for_where_only_sizes_are_asked(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"12345")
    expected = files.manifest(tmp_path)
    spoil(tmp_path / "a", "flip")
    assert files.damage(tmp_path, expected, bytes_too=False) is None


def test_json_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path: Path):
    path = tmp_path / "value.json"
    files.write_json(path, {"old": "ä"})
    files.write_json(path, {"new": "ä"})
    assert files.read_json(path) == {"new": "ä"}
    assert [each.name for each in tmp_path.iterdir()] == ["value.json"]


def test_a_write_that_fails_leaves_the_old_json(tmp_path: Path):
    path = tmp_path / "value.json"
    files.write_json(path, {"old": 1})
    with pytest.raises(TypeError):
        files.write_json(path, {"new": object()})
    assert files.read_json(path) == {"old": 1}


@pytest.mark.parametrize("text", [b"", b'{"a": ', b"\xff\xfe"])
def test_json_that_is_not_whole_reads_as_nothing(tmp_path: Path, text: bytes):
    path = tmp_path / "value.json"
    path.write_bytes(text)
    assert files.read_json(path) is None
    assert files.read_json(tmp_path / "absent.json") is None


def test_a_folder_of_read_only_files_can_be_removed_twice(tmp_path: Path):
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").touch(mode=0o444)
    files.remove(folder)
    assert not folder.exists()
    files.remove(folder)


@pytest.mark.parametrize("name", ["../out", "/etc/hosts", "a/../../out", "link/file"])
def test_a_name_that_leads_out_of_a_folder_is_refused(tmp_path: Path, name: str):
    folder = tmp_path / "folder"
    folder.mkdir()
    os.symlink(tmp_path, folder / "link")
    with pytest.raises(ValueError, match="lead out"):
        files.inside(folder, name)
    assert files.inside(folder, "a/b") == folder / "a" / "b"


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (269_060_552, "269.1 MB"), (2e15, "2000.0 TB")],
)
def test_sizes_are_said_for_people(count: float, said: str):
    assert files.human_bytes(count) == said
