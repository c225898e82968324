"""A model's weights made into another form, in a process of its own, in a folder that opens."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from runner import files
from runner.options import plain
from runner.quantizing import methods, processes
from runner.quantizing.settings import Options
from runner.stage import Context

OTHERS = ("tokenizer*", "special_tokens_map.json", "vocab*", "merges.txt", "*.jinja", "*.model")
"""What a model has beside its weights and configuration: as it was, since nothing changes it."""


def make(
    whole: Path,
    folder: Path,
    rows: Sequence[Sequence[int]],
    options: Options,
    context: Context,
) -> None:
    """Fill a folder, that outlives a crash, with the quantized model and nothing else."""
    target, scratch = folder / "target", folder / "scratch"
    for left in [path for path in folder.iterdir() if path != scratch]:
        files.remove(left)
    target.mkdir()
    scratch.mkdir(exist_ok=True)
    asked = {
        "whole": str(whole.resolve()),
        "target": str(target.resolve()),
        "scratch": str(scratch.resolve()),
        "options": plain(options),
        "rows": rows,
    }
    context.facts |= processes.ask("quantize", asked, context, methods.of(options).environment)
    for path in (path for pattern in OTHERS for path in whole.glob(pattern)):
        shutil.copyfile(path, target / path.name)
    for path in target.iterdir():
        path.rename(folder / path.name)
    files.remove(target)
    files.remove(scratch)
