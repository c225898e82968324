"""Numbered states of a step's unfinished work, kept in its draft across crashes.

A checkpoint is a folder that is complete or not there: its files are synced, then a manifest with
their sizes and digests, then one rename gives it its name. Reading takes the highest number whose
every byte is as the manifest says and passes over the rest, aloud. Since a draft belongs to one
key, a changed recipe can never load another recipe's checkpoint.
"""

import os
from collections.abc import Callable
from pathlib import Path

from runner import files
from runner.errors import writing

MANIFEST = ".checkpoint.json"


class Checkpoints:
    """The checkpoints of one draft; `keep` of them stay (two: one may turn out damaged)."""

    def __init__(self, folder: Path, note: Callable[[str], None], keep: int = 2) -> None:
        self.folder, self.note, self.keep = folder, note, keep

    def save(self, number: int, filled: Path) -> None:
        """Take the files of the folder `filled` (it is moved) as checkpoint `number`."""
        with writing(self.folder):
            files.make_folder(self.folder)
            files.write_json(filled / MANIFEST, files.manifest(filled))
            files.sync_tree(filled)
            target = self.folder / f"{number:09d}"
            files.remove(target)  # an earlier try at the same number has the same state
            os.rename(filled, target)
            files.sync(self.folder)
        for path in self._numbered()[self.keep :]:
            files.remove(path)

    def newest(self) -> tuple[int, Path] | None:
        """Number and folder of the newest valid checkpoint, or None."""
        for path in self._numbered():
            expected = files.read_json(path / MANIFEST)
            fault = (
                "its manifest is missing"
                if expected is None
                else files.damage(path, expected, bytes_too=True)
            )
            if fault is None:
                return int(path.name), path
            self.note(f"checkpoint {int(path.name)} is damaged ({fault}); taking the one before")
        return None

    def _numbered(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted((p for p in self.folder.iterdir() if p.name.isdigit()), reverse=True)
