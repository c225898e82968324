"""Real rows: the demonstration sets in the source distribution of LLaMA-Factory."""

import hashlib
import subprocess
import sys
import tarfile
from pathlib import Path

NAME = "llamafactory-0.9.5"
SHA256 = "1702c0bfb864e80577a59521d2edcacd2aab05ec6aee06188fcba335a589681f"


class UnreachableError(Exception):
    """pip cannot download it."""


def demo_sets(kept: Path) -> Path:
    """The folder of the sets, below `kept`, where a download stays for the next time."""
    archive, folder = kept / f"{NAME}.tar.gz", kept / "demos"
    if not archive.is_file():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--no-binary", "llamafactory", "--dest", str(kept), NAME.replace("-", "==")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        if done.returncode:
            raise UnreachableError(f"pip cannot download {NAME}: {done.stderr.strip()[-200:]}")
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == SHA256
    with tarfile.open(archive) as tar:
        within = [
            m for m in tar if m.isfile() and "/data/" in m.name and "_demo_data" not in m.name
        ]
        tar.extractall(folder, within, filter="data")
    return folder / NAME / "data"
