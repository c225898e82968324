"""Local files and folders: known by their bytes, and copied."""

import shutil
from pathlib import Path

from runner import files, memo
from runner.errors import StepError


def digest_of(path: Path) -> str:
    """One digest for a file, or for all files of a folder, by their names and bytes."""
    return files.digest_json({name: memo.file_facts(each) for name, each in _files(path).items()})


def copy(source: Path, target: Path, digest: str | None) -> None:
    """Copy, so that what later steps read is what was digested."""
    if target.resolve().is_relative_to(source.resolve()):
        raise StepError(f"{source} holds the store itself; take the folder with the data alone.")
    for name, path in _files(source).items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target / name)
    copied = target if source.is_dir() else target / source.name
    if digest_of(copied) != digest:
        raise StepError(f"{source} changed while it was read; run again.")


def _files(path: Path) -> dict[str, Path]:
    """The regular files by name, those behind links too; a link to a folder is refused."""
    if not path.is_dir():
        return {path.name: path}
    found = {}
    for each in sorted(path.rglob("*")):
        if each.is_symlink() and each.is_dir():
            raise StepError(f"{each} is a link to a folder; take that folder itself.")
        if each.is_file():
            found[each.relative_to(path).as_posix()] = each
    return found
