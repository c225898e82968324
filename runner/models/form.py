"""What a model's folder holds, told from its small files before any weight is read."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner import convert, extras, files
from runner.errors import StepError
from runner.models import autogptq

CONFIG, ADAPTER, TOKENIZER = "config.json", "adapter_config.json", "tokenizer_config.json"
LIBRARIES = {
    "awq": "gptq",
    "compressed-tensors": "compressed-tensors",
    "gptq": "gptq",
    "torchao": "torchao",
}
"""The extra that reads each form of quantized checkpoint; bitsandbytes is always there."""
ELSEWHERE = re.compile(r".+--")
"""How a configuration says that its code lies in another repository."""


@dataclass(frozen=True)
class Form:
    """What lies in a folder.

    `quantized` is the quant_method of a checkpoint whose weights are quantized already, `gguf` the
    file of a model in that format, `code` the classes that come with the repository.
    """

    folder: Path
    config: Mapping[str, Any]
    quantized: str | None = None
    gguf: Path | None = None
    code: tuple[str, ...] = ()
    reference: Mapping[str, Any] | None = None

    @property
    def origin(self) -> str:
        """The repository and commit, as a recipe would name them."""
        said = self.reference or {"repo": "USER/NAME", "commit": "COMMIT"}
        return f"{{repo: {said['repo']}, commit: {said['commit']}}}"

    @property
    def is_adapter(self) -> bool:
        """Whether it holds an adapter and no model."""
        return (self.folder / ADAPTER).exists() and not (self.config or self.gguf)


def read(folder: Path, reference: Mapping[str, Any] | None = None) -> Form:
    """Tell what a folder holds; StepError where its configuration cannot be read.

    `reference` says which repository it is, at which commit.
    """
    config = autogptq.settings(folder, _mapping(folder / CONFIG))
    return Form(
        folder,
        config,
        quantized=quantized_by(config),
        gguf=convert.gguf_of(folder),
        code=(*_classes(config), *_classes(_mapping(folder / TOKENIZER))),
        reference=reference,
    )


def quantized_by(config: Mapping[str, Any]) -> str | None:
    """The method by which a checkpoint is quantized, in transformers' words; None for none."""
    said = config.get("quantization_config") or config.get("compression_config")
    if not isinstance(said, Mapping):
        return None
    if "quant_method" in said:
        return str(said["quant_method"])
    eight_or_four = said.get("load_in_8bit") or said.get("load_in_4bit")
    return "bitsandbytes" if eight_or_four else "unknown"


def lacking(method: str | None) -> str | None:
    """A sentence with the pip line where the library that reads a quantized form is missing."""
    extra = LIBRARIES.get(method or "")
    said = extras.missing(extra) if extra else None
    return f"its weights are quantized with {method}, and {said}" if said else None


def code_elsewhere(form: Form) -> str | None:
    """The first class whose code lies in another repository than the model's."""
    return next((name for name in form.code if ELSEWHERE.match(name)), None)


def _classes(config: Mapping[str, Any]) -> list[str]:
    """The classes that an auto_map names, as they are written: `module.Class`."""
    found = config.get("auto_map") or {}
    values = found.values() if isinstance(found, Mapping) else found
    nested = (each if isinstance(each, list) else [each] for each in values)
    return [str(name) for names in nested for name in names if name]


def _mapping(path: Path) -> Mapping[str, Any]:
    found = files.read_json(path) if path.exists() else {}
    if not isinstance(found, Mapping):
        raise StepError(f"{path} cannot be read as JSON.")
    return found
