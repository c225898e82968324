"""Write a whole model as one GGUF file."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from runner import files
from runner.errors import StepError, listing
from runner.gguf import architectures, kinds, llama, settings, tensors
from runner.gguf.kinds import KINDS, Kind
from runner.gguf.tensors import Rows, Tensor
from runner.gguf.vocabulary import read

Progress = Callable[..., None]
Note = Callable[[str], None]
WHOLE = {"F32": "f32", "F16": "f16", "BF16": "bf16"}


def write(
    folder: Path,
    target: Path,
    kind: str,
    progress: Progress,
    note: Note,
    name: str = "",
) -> None:
    """Write the model and the tokenizer of a transformers folder; the target appears whole or not.

    kind      one of `kinds.KINDS`
    progress  progress(done, total, "bytes"); what it raises ends the work
    name      what the file calls the model

    The same folder gives the same bytes. Tensors are read, converted and written a few rows at a
    time. StepError where llama.cpp would compute or cut otherwise than transformers.
    Format: GGUF 3, ggml-org/ggml `docs/gguf.md`.
    """
    if fact := kinds.problem(kind):
        raise StepError(fact)
    draft = target.with_name(f".{target.name}.draft")
    try:
        if KINDS[kind].matrices:
            _write(folder, draft, KINDS[kind], progress, note, name)
        else:
            _write_by_llama(folder, draft, KINDS[kind], progress, note, name)
        files.sync(draft)
        os.replace(draft, target)
    finally:
        files.remove(draft)


def problems(folder: Path) -> list[str]:
    """Why the model of a folder cannot be a GGUF file; nothing where it can."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    return list(architectures.problems(config))


def _write(
    folder: Path, target: Path, kind: Kind, progress: Progress, note: Note, name: str
) -> None:
    import gguf
    from transformers import AutoConfig

    if found := problems(folder):
        raise StepError(f"this model cannot be a GGUF file: {listing(found)}.")
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    known = architectures.of(config)
    writer = gguf.GGUFWriter(target, known.name)
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType[kind.file_type])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    settings.add(writer, config, known, note)
    read(folder, config.vocab_size, note).add_to(writer)
    every = list(tensors.found(folder, config, known, kind))
    tensors.check_whole(every, config)
    _tell_of_odd_rows(every, kind, note)
    try:
        _write_tensors(writer, every, progress)
    finally:
        writer.close()


def _write_tensors(writer: Any, every: Iterable[Tensor], progress: Progress) -> None:
    """All that is known of tensors first, as the format wants it, then their values."""
    import gguf
    import numpy as np

    for tensor in every:
        form = gguf.GGMLQuantizationType[tensor.form]
        writer.add_tensor_info(
            tensor.name, tensor.shape, np.dtype(np.float32), tensor.bytes(), raw_dtype=form
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    done, total = 0, sum(tensor.bytes() for tensor in every)
    for tensor in every:
        writer.write_tensor_data(Rows(tensor))
        progress(done := done + tensor.bytes(), total, "bytes")


def _tell_of_odd_rows(every: Iterable[Tensor], kind: Kind, note: Note) -> None:
    odd = [t.name for t in every if t.form == "F16" and "F16" not in (kind.matrices, kind.ends)]
    if odd:
        note(f"{len(odd)} matrices stay in 16 bits: {kind.matrices} takes rows of 32 ({odd[0]})")


def _write_by_llama(
    folder: Path, target: Path, kind: Kind, progress: Progress, note: Note, name: str
) -> None:
    """Write the numbers that the model has, and let llama.cpp make fewer bits of them."""
    whole = target.with_name(f"{target.name}.whole")
    try:
        _write(folder, whole, KINDS[WHOLE[tensors.stored_form(folder)]], progress, note, name)
        llama.quantize(whole, target, kind, progress, note)
    finally:
        files.remove(whole)
