"""The forms in which a model is saved: one function each, in one table."""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from runner import files, merging, products
from runner.errors import StepError
from runner.models import autogptq, form
from runner.products import Model
from runner.saving import shards, tokenizers

MARK = "runner.json"
"""In a saved folder, the file that names every other with its digest."""

Note = Callable[[str], None]


@dataclass(frozen=True)
class Written:
    """What was written: the model that it is of, in memory, and how it is opened again.

    `library` is what opens it: transformers, peft or llama.cpp. `base` is where the model under an
    adapter lies on this machine. `file` is the one of the folder that holds a GGUF model, and
    `lost` what transformers does not read of it.
    """

    model: Any
    tokenizer: Callable[[], Any]
    library: str
    base: Path | None = None
    file: str | None = None
    lost: tuple[str, ...] = ()


@dataclass(frozen=True)
class How:
    """What of the options a form is written by, and a folder of the step's own to write in.

    `whole` is told of the folder when what lies there by then, the weights too, will not change.
    """

    shard_bytes: int
    hard_links: bool
    gguf: str
    name: str
    draft: Path
    progress: Callable[..., None]
    note: Note
    whole: Callable[[Path], None] = lambda _: None


def hf(model: Model, folder: Path, how: How) -> Written:
    """A whole model as transformers opens it: an adapter merged, quantized weights as they are.

    A model that lies whole on disk is copied, file by file. A trained prompt is part of no weight,
    so that it is written alone.
    """
    if model.folder is not None:
        with autogptq.renamed(model.folder, form.read(model.folder).config) as whole:
            _copy(whole, folder, hard_links=how.hard_links)
        shards.split(folder, how.shard_bytes)
        how.whole(folder)
        return Written(model.model, partial(products.open_tokenizer, folder), "transformers")
    if hasattr(model.model, "peft_config") and not merging.is_mergeable(model.model):
        how.note("a trained prompt is part of no weight: it is saved alone, as an adapter")
        return adapter(model, folder, how)
    whole = merging.merged(model.model, how.note)
    products.write_weights(whole, folder)
    shards.split(folder, how.shard_bytes)
    how.whole(folder)
    tokenizers.write(model.tokenizer, folder)
    return Written(whole, lambda: model.tokenizer, "transformers")


def adapter(model: Model, folder: Path, how: How) -> Written:  # noqa: ARG001  as all forms
    """The adapter alone, as peft opens it on its base, with the tokenizer that it was taught by."""
    from runner.training import methods

    if not hasattr(model.model, "peft_config"):
        raise StepError(
            "the model has no adapter, so there is none to save.", "Take save.format=hf"
        )
    methods.write(model.model, folder, model.reference)
    tokenizers.write(model.tokenizer, folder)
    under = Path(model.model.get_base_model().config._name_or_path or "-")
    base = under if (under / "config.json").is_file() else None
    return Written(model.model, lambda: model.tokenizer, "peft", base)


def gguf(model: Model, folder: Path, how: How) -> Written:
    """One GGUF file with the whole model and its tokenizer, for llama.cpp."""
    from runner.gguf import reading, writing

    whole = how.draft / "whole"
    files.remove(whole)
    written = hf(model, whole, replace(how, whole=lambda _: None))
    if written.library == "peft":
        raise StepError("a trained prompt is part of no weight, so no GGUF file can hold it.")
    folder.mkdir()
    file = folder / f"{how.name}-{how.gguf}.gguf"
    writing.write(whole, file, how.gguf, how.progress, how.note, how.name)
    how.whole(folder)
    lost = tuple(reading.lost_in_transformers(whole, file))
    files.remove(whole)  # with the tokenizer that was written
    return replace(
        written, tokenizer=lambda: model.tokenizer, library="llama.cpp", file=file.name, lost=lost
    )


FORMATS: Mapping[str, Callable[[Model, Path, How], Written]] = {
    "hf": hf,
    "adapter": adapter,
    "gguf": gguf,
}


def _copy(source: Path, target: Path, *, hard_links: bool) -> None:
    """A folder's files: copies that share their bytes where the file system can; or hard links."""

    def place(given: str, made: str) -> str:
        if hard_links:
            try:
                os.link(Path(given).resolve(), made)
                return made
            except OSError:  # another file system
                pass
        files.clone(Path(given), Path(made))
        return made

    shutil.copytree(source, target, copy_function=place)
