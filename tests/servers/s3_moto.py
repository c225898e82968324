"""A file behind s3://, from moto's server through s3fs, in an environment of its own.

Checked: the digest that `runner lock` would find, a download taken up in the middle, and what is
said of a file or a bucket that is not there.
"""

import hashlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runner.checkpoint import Checkpoints
from runner.errors import StepError
from runner.sources import url
from runner.stage import Context

BODY = os.urandom(5 << 20)
RIGHT = hashlib.sha256(BODY).hexdigest()
ADDRESS = "s3://bucket/folder/rows.jsonl"


@pytest.fixture(scope="module", autouse=True)
def s3():
    """A server with one file in one bucket."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "a secret of someone",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    command = [str(Path(sys.executable).with_name("moto_server")), "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        import s3fs

        system = s3fs.S3FileSystem()
        system.mkdir("bucket")
        with system.open(ADDRESS, "wb") as file:
            file.write(BODY)
        yield
    finally:
        server.terminate()
        server.wait()


def wait_for(port: int) -> None:
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail("the server does not answer")


@pytest.fixture
def place(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "target").mkdir()
    return tmp_path


def context(place, **settings):
    return Context(place / "work", Checkpoints(place / "c", print), **settings)


def test_its_digest_is_found():
    assert url.sha256_of(ADDRESS) == RIGHT


def test_it_is_fetched(place):
    url.download(ADDRESS, RIGHT, place / "target", context(place))
    assert (place / "target" / "rows.jsonl").read_bytes() == BODY


def test_a_part_is_gone_on_with(place):
    (place / "work" / f"{RIGHT[:16]}.part").write_bytes(BODY[: 3 << 20])
    seen = []
    told = context(place, progress=lambda done, total, unit, **figures: seen.append(done))
    url.download(ADDRESS, RIGHT, place / "target", told)
    assert (place / "target" / "rows.jsonl").read_bytes() == BODY
    assert seen == [4 << 20, 5 << 20]


@pytest.mark.parametrize("address", ["s3://bucket/nothing", "s3://nothing/at-all"])
def test_what_is_not_there_is_said_in_one_line(address, place):
    with pytest.raises(StepError, match=f"^{address}: there is no such file\\.$"):
        url.download(address, RIGHT, place / "target", context(place))
