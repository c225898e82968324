"""llm-compressor's methods without the step: `python tests/compressing.py WHOLE FOLDER METHOD`."""

import os
import sys
from pathlib import Path
from typing import Any

from runner import files
from runner.quantizing import compress, methods
from runner.quantizing.settings import Options
from runner.quantizing.work import Work

ROWS = [list(range(start, start + 20 + 3 * start)) for start in range(1, 7)]


def options(method: str, **more: Any) -> Options:
    """Of AWQ with groups that divide the tiny model's layers."""
    if method == "awq":
        more = {"group_size": 32, **more}
    return methods.resolved(Options(method=method, **more))


def quantize(whole: Path, folder: Path, chosen: Options, told: Any = print) -> list[str]:
    """Quantize into `target` of a folder, going on with what is in its `scratch`; the notes."""
    notes: list[str] = []
    files.remove(folder / "target")
    for name in ("target", "scratch"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    work = Work(
        whole=whole,
        target=folder / "target",
        scratch=folder / "scratch",
        options=chosen,
        rows=ROWS,
        progress=told,
        note=notes.append,
    )
    compress.quantize(work)
    return notes


def made(folder: Path) -> dict[str, str]:
    """The digest of each file that was written."""
    return {path.name: files.digest(path) for path in sorted((folder / "target").iterdir())}


def main() -> None:
    """Say on the first lines of stdout how far it is, for who wants to end it there."""
    whole, folder, method = sys.argv[1:]
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # where the library prints

    def told(done: float, total: float, unit: str) -> None:
        out.write(f"{done} of {total} {unit}\n")

    quantize(Path(whole), Path(folder), options(method), told)
    out.flush()


if __name__ == "__main__":
    main()
