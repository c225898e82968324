"""Downloads killed at random moments: the next one goes on from there, and the bytes are right."""

import hashlib
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import hub
import pytest
from hub import Repo
from measure import first, row, size
from test_hub_source import start

pytestmark = pytest.mark.timeout(7200)

MB = 1 << 20
SMALL = {"config.json": b"{}", "tokenizer.json": b"{}" * MB, "README.md": b"#"}


def weights(path: Path, megabytes: int) -> Path:
    """A large file of random bytes."""
    clock = random.Random(5)
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(clock.randbytes(MB))
    return path


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_kills_of_a_download(tmp_path):
    begun, total = time.monotonic(), size("FETCH_KILLS", 100)
    large = weights(tmp_path / "large", size("FETCH_MB", 1024))
    repo = Repo("acme/tiny", files={**SMALL, "model.safetensors": large})
    expected = large.stat().st_size + sum(map(len, SMALL.values()))
    right, clock, wrong, kills, runs = sha256(large), random.Random(11), [], 0, 0
    with hub.serve(repo) as server:
        while kills < total:
            runs += 1
            cache = tmp_path / str(runs) / "hub"
            cache.mkdir(parents=True)
            while True:
                process = start(server, cache, cache.parent)
                try:
                    out, err = process.communicate(timeout=clock.uniform(0.1, 1.5))
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    process.communicate()
                    kills += 1
                    continue
                break
            if process.returncode or "note:" in out:
                wrong.append(f"run {runs}: {out}{err}")
            elif sha256(Path(out.strip()) / "model.safetensors") != right:
                wrong.append(f"run {runs}: other bytes")
            wrong += [f"run {runs}: {path} is left" for path in cache.rglob("*.incomplete")]
            shutil.rmtree(cache.parent)
        sent = server.bytes_sent("resolve|cdn")
    lost = (sent - runs * expected) / kills / MB
    row(
        f"SIGKILL of a download of {expected / MB:.0f} MiB at random times",
        f"{kills} kills, {runs} downloads",
        f"{len(wrong)} wrong, {sent / runs / expected:.3f} of the size sent, {lost:.1f} MiB a kill",
        begun,
    )
    assert not wrong, first(wrong)
    assert sent <= 1.2 * runs * expected + 16 * MB * kills


def test_kills_of_two_downloads_of_the_same_files(tmp_path):
    begun, total = time.monotonic(), size("FETCH_PAIRS", 30)
    large = weights(tmp_path / "large", size("FETCH_PAIR_MB", 256))
    repo = Repo("acme/tiny", files={**SMALL, "model.safetensors": large})
    right, clock, wrong, kills, runs = sha256(large), random.Random(12), [], 0, 0
    with hub.serve(repo) as server:
        while kills < total:
            runs += 1
            cache = tmp_path / str(runs) / "hub"
            cache.mkdir(parents=True)
            both = [start(server, cache, cache.parent) for _ in range(2)]
            while both:
                time.sleep(clock.uniform(0.1, 0.6))
                victim = both.pop(clock.randrange(len(both)))
                if clock.random() < 0.7 and victim.poll() is None:
                    victim.send_signal(signal.SIGKILL)
                    victim.communicate()
                    kills += 1
                    both.append(start(server, cache, cache.parent))
                    continue
                out, err = victim.communicate()
                if victim.returncode or "other bytes" in out:
                    wrong.append(f"run {runs}: {out}{err}")
                elif sha256(Path(out.split()[-1]) / "model.safetensors") != right:
                    wrong.append(f"run {runs}: other bytes")
            shutil.rmtree(cache.parent)
        sent = server.bytes_sent("GET /cdn/")
    row(
        "SIGKILL of one of two downloads into one cache",
        f"{kills} kills, {runs} downloads by two",
        f"{len(wrong)} wrong, {sent / runs / large.stat().st_size:.3f} of the size sent",
        begun,
    )
    assert not wrong, first(wrong)
    assert sent <= 1.2 * runs * large.stat().st_size + 16 * MB * kills
