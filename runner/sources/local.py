"""Local files and folders: known by their bytes, and copied."""

import shutil
from pathlib import Path

from runner import files, memo
from runner.errors import StepError


def digest_of(path: Path) -> str:
    """One digest for a file, or for all files of a folder, by their names and bytes."""
    found = memo.manifest(path) if path.is_dir() else {path.name: memo.file_facts(path)}
    return files.digest_json(found)


def copy(source: Path, target: Path, digest: str | None) -> None:
    """Copy, so that what later steps read is what was digested."""
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, target / source.name)
    copied = target if source.is_dir() else target / source.name
    if digest_of(copied) != digest:
        raise StepError(f"{source} changed while it was read; run again.")
