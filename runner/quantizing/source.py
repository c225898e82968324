"""The model as it is before it is quantized, whole and on disk, for processes to read."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from runner import files, hardware, merging, products
from runner.errors import StepError
from runner.models import form
from runner.products import Model
from runner.quantizing.whole import KEPT

MARK = "complete"
"""Beside the folder once all of it is written."""


def check(model: Mapping[str, Any]) -> None:
    """StepError where what is known of a model by now says that it is quantized already."""
    if model.get("adapted"):
        merging.check_base(model)
    elif how := form.quantized_by(model.get("config") or {}):
        raise _quantized(how)


def write(folder: Path, model: Callable[[], Model], note: Callable[[str], None]) -> None:
    """Fill a folder with the model, its adapter merged into unquantized weights, and the tokenizer.

    What is there whole already is left, also over a crash. The model in memory is spent: its
    weights are let go, for the processes that read the folder need the memory.
    """
    mark = folder.with_name(f"{folder.name}.{MARK}")
    if not mark.exists():
        files.remove(folder)
        _write(folder, model(), note)
        files.sync_tree(folder)
        files.write_text(mark, "")


def forget(folder: Path) -> None:
    """Remove what `write` wrote."""
    folder.with_name(f"{folder.name}.{MARK}").unlink(missing_ok=True)
    files.remove(folder)


def _write(folder: Path, source: Model, note: Callable[[str], None]) -> None:
    """Link what lies on disk already; write what is only in memory."""
    _check(source.model)
    tokenizer = products.untouched(source.tokenizer)
    if source.folder is not None:
        folder.mkdir()
        for path in (path for pattern in KEPT for path in source.folder.glob(pattern)):
            (folder / path.name).symlink_to(path.resolve())
        products.write_tokenizer(tokenizer, folder)
    else:
        products.write_model(merging.merged(source.model, note), tokenizer, folder)
    _let_go(source.model)


def _let_go(model: Any) -> None:
    """Give back the memory of a model's weights."""
    import torch

    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    hardware.release_memory()


def _check(model: Any) -> None:
    """Weights that somebody quantized before are not quantized again."""
    if getattr(model, "is_quantized", False) and not hasattr(model, "peft_config"):
        how = getattr(model, "quantization_method", "another library")
        raise _quantized(getattr(how, "value", how))


def _quantized(how: str) -> StepError:
    return StepError(
        f"the model is quantized already, with {how}.",
        "Take the repository of the unquantized model, or leave quantize out.",
    )
