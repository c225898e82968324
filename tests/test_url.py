"""A file behind a URL: whole, checked, gone on with after a kill, and errors in one line."""

import hashlib
import math
import os

import pytest
from hub import Repo, serve

from runner import network
from runner.checkpoint import Checkpoints
from runner.errors import StepError, Stopped
from runner.sources import url
from runner.stage import Context

BODY = os.urandom(3 << 20)
RIGHT = hashlib.sha256(BODY).hexdigest()
FILE = "big.bin"


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(url, "PAUSE", 0.01)
    with serve(Repo("acme/data", files={FILE: BODY})) as server:
        yield server


@pytest.fixture
def place(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "target").mkdir()
    return tmp_path


def address(hub):
    return f"{hub.endpoint}/acme/data/resolve/main/{FILE}"


def context(place, **settings):
    return Context(place / "work", Checkpoints(place / "c", print), **settings)


def download(hub, place, sha256=RIGHT, **settings):
    url.download(address(hub), sha256, place / "target", context(place, **settings))
    return (place / "target" / FILE).read_bytes()


def part(place):
    return place / "work" / f"{RIGHT[:16]}.part"


def test_a_file_arrives_whole_and_progress_is_told(hub, place):
    seen = []
    assert (
        download(
            hub, place, progress=lambda done, total, unit, **figures: seen.append((done, total))
        )
        == BODY
    )
    assert seen[-1] == (len(BODY), len(BODY))
    assert len(seen) == 3
    assert list((place / "work").iterdir()) == []


def test_what_a_killed_run_left_is_gone_on_with(hub, place):
    part(place).write_bytes(BODY[: 2 << 20])
    assert download(hub, place) == BODY
    assert hub.bytes_sent("GET /cdn/.*") == 1 << 20


def test_a_part_that_was_whole_is_only_checked(hub, place):
    part(place).write_bytes(BODY)
    assert download(hub, place) == BODY
    assert hub.bytes_sent("GET /cdn/.*") == 0


def test_a_stop_keeps_the_part(hub, place):
    with pytest.raises(Stopped):
        download(hub, place, stop_signal=lambda: "SIGTERM")
    assert part(place).read_bytes() == BODY[: 1 << 20]


def test_a_damaged_part_is_fetched_anew_and_said_so(hub, place):
    part(place).write_bytes(bytes(2 << 20))
    said = []
    assert download(hub, place, note=said.append) == BODY
    assert said == ["what an earlier run had left was damaged: from the start"]


def test_a_server_that_only_sends_it_all_is_taken_at_that(hub, place):
    hub.fault("GET /cdn/", ignore_range=True)
    part(place).write_bytes(BODY[: 2 << 20])
    assert download(hub, place) == BODY


def test_broken_connections_are_gone_on_with(hub, place):
    hub.fault("GET /cdn/", times=7, drop_after=1 << 18)
    assert download(hub, place) == BODY
    assert hub.bytes_sent("GET /cdn/") <= len(BODY)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_is_busy_is_asked_again(status, hub, place):
    hub.fault("GET /cdn/", times=2, status=status, headers={"Retry-After": "0"})
    assert download(hub, place) == BODY


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"status": 404}, r"big.bin: there is no such file\.$"),
        ({"status": 403}, r"big.bin: the server says 403 "),
        ({"status": 503}, r"big.bin: the server says 503 "),
        ({"hang_up": True}, r"big.bin cannot be fetched: "),
    ],
)
def test_what_cannot_be_had_is_said_in_one_line(fault, message, hub, place):
    hub.fault("GET ", times=math.inf, **fault)
    with pytest.raises(StepError, match=message) as error:
        download(hub, place)
    assert "\n" not in str(error.value)


def test_other_bytes_than_promised_are_refused_and_not_kept(hub, place):
    hub.fault("GET /cdn/", times=math.inf, flip=1_000_000)
    with pytest.raises(StepError, match=f"has sha256 [0-9a-f]{{64}} instead of {RIGHT}"):
        download(hub, place)
    assert list((place / "work").iterdir()) == list((place / "target").iterdir()) == []


def test_a_disk_that_is_too_small_is_said_before_the_first_byte(hub, place, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(StepError, match=r"needs 3\.1 MB on disk, and .* has 1\.0 kB free"):
        download(hub, place)


@pytest.mark.parametrize("begin", [0, 1 << 20])
def test_whatever_fsspec_opens_is_fetched(begin, place):
    import fsspec

    with fsspec.open("memory://folder/big.bin", "wb") as file:
        file.write(BODY)
    if begin:
        part(place).write_bytes(BODY[:begin])
    url.download("memory://folder/big.bin", RIGHT, place / "target", context(place))
    assert (place / "target" / FILE).read_bytes() == BODY
    assert url.sha256_of("memory://folder/big.bin") == RIGHT


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("memory://nothing/there", "there is no such file"),
        ("gopher://host/file", "cannot be fetched: Protocol not known: gopher"),
        ("s3://bucket/file", "cannot be fetched: .*s3fs"),
    ],
)
def test_what_fsspec_cannot_open_is_said_in_one_line(address, message, place, monkeypatch):
    monkeypatch.setattr(url, "PAUSE", 0)
    with pytest.raises(StepError, match=message):
        url.download(address, RIGHT, place / "target", context(place))


def test_nothing_is_fetched_where_the_network_may_not_be_used(hub, place, monkeypatch):
    monkeypatch.setenv("RUNNER_OFFLINE", "1")
    assert network.is_forbidden()
    with pytest.raises(StepError, match="is not here, and the network may not be used"):
        download(hub, place)
    assert hub.requests == []


def test_a_password_in_the_address_is_not_shown(place, monkeypatch):
    monkeypatch.setattr(url, "PAUSE", 0)
    with pytest.raises(StepError) as error:
        url.download("http://me:pass-word@127.0.0.1:9/x", RIGHT, place / "target", context(place))
    assert "pass-word" not in str(error.value)
