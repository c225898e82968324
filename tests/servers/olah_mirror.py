"""Fetching through a caching mirror that is not ours: olah, before the double. `make test-olah`.

What olah 0.5.4 does, as these tests and the double's log show it: it asks the Hub for the commit
and the listing much as a client would (the listing's address ends in a slash), and for a large file
in blocks of 64 MiB, which it keeps and serves with ranges (206). It passes a token on, and hands
back the refusal of a gated repository with its code. Without its Hub it answers 504 for files that
it has, unless it was started with `offline = true`, as here.
"""

import hashlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hub
import pytest
from hub import Hub, Repo, Token

pytestmark = pytest.mark.timeout(120)

PROGRAM = Path(__file__).parents[2] / ".venv-olah" / "bin" / "olah-cli"
MB = 1 << 20
LARGE = 100 * MB + 17
OUTSIDER = "hf_a_token_without_a_grant"
MODEL = {
    "config.json": b"{}",
    "tokenizer.json": b'{"a": 1}',
    "model.safetensors": random.Random(2).randbytes(3 * MB + 17),
}
ROWS = {"README.md": b"# rows\n", "data/train.jsonl": b'{"a": 1}\n' * 1000}
BOTH = {
    "model": {"repo": "acme/tiny"},
    "data": {"repo": "acme/rows", "type": "dataset"},
}


class Mirror:
    """An olah process, on a port of its own, before the Hub of an address."""

    def __init__(self, folder: Path, upstream: str, *, offline: bool) -> None:
        self.log = folder / f"olah-{time.time_ns()}.log"
        port = _free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        place = f'host = "127.0.0.1"\nport = {port}\nrepos-path = "{folder / "repos"}"'
        source = f'hf-scheme = "http"\nhf-netloc = "{upstream.removeprefix("http://")}"'
        access = f"[accessibility]\noffline = {str(offline).lower()}"
        config = folder / "olah.toml"
        config.write_text(f"[basic]\n{place}\n{source}\n{access}\n")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [PROGRAM, "--config", config, "--log-path", folder / "logs"],
                env={"PATH": os.environ["PATH"], "HOME": str(folder)},
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait(port)
        except BaseException:
            self.stop()
            raise

    def _wait(self, port: int) -> None:
        """Wait until it listens."""
        for _ in range(600):
            assert self.process.poll() is None, self.log.read_text()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.05)
        raise TimeoutError(self.log.read_text())

    def statuses(self, name: str) -> list[int]:
        """How requests for a file's bytes were answered."""
        pattern = rf'"GET \S*/{re.escape(name)} HTTP/1.1" (\d+)'
        return [int(status) for status in re.findall(pattern, self.log.read_text())]

    def stop(self) -> None:
        """End the process, whatever it does."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def mirrored(folder: Path, upstream: str, *, offline: bool = False) -> Iterator[Mirror]:
    mirror = Mirror(folder, upstream, offline=offline)
    try:
        yield mirror
    finally:
        mirror.stop()


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large"
    path.write_bytes(random.Random(3).randbytes(LARGE))
    return path


@contextmanager
def served(**more: Any) -> Iterator[Hub]:
    """The double, with a model and a dataset."""
    repos = [Repo("acme/tiny", files=MODEL), Repo("acme/rows", type="dataset", files=ROWS)]
    gated = Repo("acme/gated", files=MODEL, gated=True)
    big = Repo("acme/big", files={"config.json": b"{}", **more})
    with hub.serve(*repos, gated, big, tokens={OUTSIDER: Token()}) as server:
        yield server


class Place:
    """A working directory with a recipe that only fetches; a Hub cache and a store of its own."""

    def __init__(self, folder: Path, mirror: Mirror, fetch: dict[str, Any]) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "mine.yaml").write_text(json.dumps({"steps": ["fetch"], "fetch": fetch}))
        self.env = {
            **os.environ,
            "RUNNER_STORE": str(folder / "store"),
            "HF_HOME": str(folder / "hf"),
            "HF_ENDPOINT": mirror.endpoint,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
        }

    def start(self, **env: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "runner", "run", "mine.yaml"],
            cwd=self.folder,
            env={**self.env, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, code: int = 0, **env: str) -> str:
        process = self.start(**env)
        try:
            said, _ = process.communicate(timeout=60)
        finally:
            process.kill()
        assert process.returncode == code, said
        return said

    def partial(self) -> int:
        """Bytes of the large file so far."""
        sizes = (path.stat().st_size for path in self.folder.glob("hf/hub/*/blobs/*.incomplete"))
        return max(sizes, default=0)

    def digests(self, repo: str) -> dict[str, str]:
        """The sha256 of each file fetched of a repository."""
        (snapshot,) = self.folder.glob(f"hf/hub/{repo}/snapshots/*")
        paths = [path for path in snapshot.rglob("*") if path.is_file()]
        return {
            path.relative_to(snapshot).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in paths
        }


def digests(files: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def check(place: Place) -> None:
    """Both repositories are there, byte for byte."""
    assert place.digests("models--acme--tiny") == digests(MODEL)
    assert place.digests("datasets--acme--rows") == digests(ROWS)


def test_the_bytes_are_the_repositorys_and_a_warm_mirror_needs_no_hub(tmp_path):
    with served() as server:
        with mirrored(tmp_path, server.endpoint) as mirror:
            place = Place(tmp_path / "cold", mirror, BOTH)
            assert "2 steps run, 0 reused" in place.run()
            check(place)
        assert server.asked("GET /cdn/acme/tiny/")
    with mirrored(tmp_path, server.endpoint, offline=True) as mirror:
        place = Place(tmp_path / "warm", mirror, BOTH)
        assert "2 steps run, 0 reused" in place.run()
        check(place)


@pytest.mark.parametrize(
    ("env", "why"),
    [({}, "you are not logged in"), ({"HF_TOKEN": OUTSIDER}, "your account is not among those")],
)
def test_the_refusal_of_a_gated_repository_comes_through(tmp_path, env, why):
    with served() as server, mirrored(tmp_path, server.endpoint) as mirror:
        place = Place(tmp_path / "gated", mirror, {"model": {"repo": "acme/gated"}})
        said = place.run(1, **env)
    assert f"fetch.model: acme/gated is gated, and {why}" in said
    assert "Traceback" not in said
    assert OUTSIDER not in said


def test_a_download_that_was_killed_goes_on_through_the_mirror(tmp_path, large):
    files = {"model.safetensors": large}
    with served(**files) as server, mirrored(tmp_path, server.endpoint) as mirror:
        server.fault("GET /cdn/acme/big/", rate=30 * MB)  # slow enough to be killed in the middle
        place = Place(tmp_path / "killed", mirror, {"model": {"repo": "acme/big"}})
        process = place.start()
        try:
            while place.partial() < 10 * MB:
                assert process.poll() is None, process.communicate()[0]
                time.sleep(0.01)
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        begun = place.partial()
        assert 10 * MB <= begun < LARGE
        assert "1 steps run, 0 reused" in place.run()
    found = place.digests("models--acme--big")
    assert found["model.safetensors"] == hashlib.sha256(large.read_bytes()).hexdigest()
    assert 206 in mirror.statuses("model.safetensors")
    assert place.partial() == 0
