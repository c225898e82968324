"""Put the finished model where `from_pretrained` and people find it."""

import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner import files, merging, products
from runner.errors import StepError
from runner.options import Fault, option
from runner.products import Files, Model
from runner.recipe import Step
from runner.stage import Context, Facts, Need, Room, pins_nothing, resolves_nothing

NEEDS: Mapping[str, Need] = {"model": Need(kind="model", consumes=True)}
GIVES = "files"
VERSION = 1
PARTS = False
HOLDS = False

REFERENCE = "saved.json"
MARK = "runner.json"
"""A file in the saved folder that names every other with its digest."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where to."""

    to: Path = option(help="The folder to write", from_cwd=True)
    overwrite: bool = option(False, "Replace a folder that holds something else", keyed=False)


resolve = resolves_nothing
pins = pins_nothing


def check(options: Options, inputs: Mapping[str, tuple[Step, ...]]) -> list[Fault]:
    """The target may be a new folder or one to replace, never a file."""
    if options.to.exists() and not options.to.is_dir():
        return [Fault(("to",), f"{options.to} is a file; save writes a folder.")]
    return []


def room(options: Options, inputs: Mapping[str, Facts]) -> Room:
    """The whole model, where it is to be. StepError where its adapter cannot be merged."""
    if inputs["model"].get("adapted"):
        merging.check_base(inputs["model"])
    whole = inputs["model"].get("bytes", 0)
    return Room(outside=(options.to, whole), gives={"bytes": whole})


def run(options: Options, inputs: Mapping[str, Any], context: Context) -> Files:
    """Write beside the target and move it there whole."""
    model: Model = inputs["model"]
    options.to.parent.mkdir(parents=True, exist_ok=True)
    staged = options.to.with_name(f".{options.to.name}.{uuid.uuid4().hex}")
    try:
        _write(model, staged, context.note)
        files.write_json(staged / MARK, {"files": files.manifest(staged)})
        written = files.manifest(staged)
        files.sync_tree(staged)
        _move(staged, options, written)
    finally:
        files.remove(staged)
    context.facts |= {
        "to": str(options.to),
        "bytes": files.total_size(written),
        "quantized": getattr(model.model, "is_quantized", False),
    }
    return Files(options.to)


def save(product: Files, folder: Path) -> None:
    """Keep what was written where; the bytes themselves are the target's."""
    found = files.manifest(product.folder)
    files.write_json(folder / REFERENCE, {"to": str(product.folder), "files": found})


def restore(folder: Path, inputs: Mapping[str, Any]) -> Files:
    """The saved folder."""
    return Files(Path(files.read_json(folder / REFERENCE)["to"]))


def stale(options: Options, folder: Path, facts: Facts) -> str | None:
    """The target may have been deleted or written over."""
    try:
        expected = dict(files.read_json(folder / REFERENCE)["files"])
        mark = {MARK: expected[MARK]}
    except (KeyError, TypeError, ValueError):
        return "what was saved cannot be read"
    fault = files.damage(options.to, expected, bytes_too=False)
    fault = fault or files.damage(options.to, mark, bytes_too=True)
    return f"in {options.to} {fault}" if fault else None


def _write(model: Model, folder: Path, note: Callable[[str], None]) -> None:
    """Copy a model that lies whole on disk; merge, in place, and write one that does not.

    A trained prompt is part of no weight: it is written alone, as peft opens it on its base.
    """
    if model.folder is not None:
        import shutil

        from runner.models import autogptq, form

        with autogptq.renamed(model.folder, form.read(model.folder).config) as whole:
            shutil.copytree(whole, folder, copy_function=shutil.copyfile)
        return
    tokenizer = products.untouched(model.tokenizer)
    if hasattr(model.model, "peft_config") and not merging.is_mergeable(model.model):
        from runner.training import methods

        methods.write(model.model, folder, model.reference)
        products.write_tokenizer(tokenizer, folder)
        return
    products.write_model(merging.merged(model.model, note), tokenizer, folder)


def _move(staged: Path, options: Options, written: files.Manifest) -> None:
    """Give the new folder the target's name; what stood there goes away only after that."""
    if not options.to.exists():
        os.rename(staged, options.to)
        return
    if files.manifest(options.to) == written:
        return
    if any(options.to.iterdir()) and not options.overwrite:
        raise StepError(
            f"{options.to} holds something else and is left alone; the store keeps the result.",
            "Take another folder with save.to=..., or allow it: save.overwrite=true",
        )
    aside = options.to.with_name(f".{options.to.name}.{uuid.uuid4().hex}.old")
    os.rename(options.to, aside)
    os.rename(staged, options.to)
    files.remove(aside)
