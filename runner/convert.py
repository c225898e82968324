"""Models in other forms, GGUF and pickle, as folders of safetensors that load in a second."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from runner import files
from runner.errors import StepError
from runner.products import write_model

TOKENS = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding"}
PICKLES = ("pytorch_model*.bin", "model*.bin", "*.pt", "*.pth", "*.ckpt")


def is_needed(folder: Path, *, gguf: bool, pickle: bool) -> bool:
    """Whether a folder holds a model in another form only; StepError where that is not allowed."""
    if any(folder.glob("*.safetensors")):
        return False
    if _first(folder, "*.gguf"):
        return gguf
    found = _first(folder, *PICKLES) if (folder / "config.json").exists() else None
    if found and not pickle:
        raise StepError(
            f"the only weights are a pickle ({found.name}), which may hold code.",
            "If you trust it, fetch.model.allow_pickle=true has it read as data alone.",
        )
    return found is not None


def to_safetensors(folder: Path, note: Callable[[str], None]) -> None:
    """Write the model of a folder as safetensors in its place."""
    if source := _first(folder, "*.gguf"):
        note(f"converting {source.name} to safetensors, once")
        _from_gguf(source, folder)
        source.unlink()
        return
    note("converting pickled weights to safetensors, once")
    _from_pickle(folder)


def _first(folder: Path, *patterns: str) -> Path | None:
    return next(iter(sorted(p for pattern in patterns for p in folder.glob(pattern))), None)


def _from_pickle(folder: Path) -> None:
    """Read as tensors and nothing else (`weights_only`), write, and take the pickles away."""
    from transformers import AutoModelForCausalLM

    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, use_safetensors=False, weights_only=True, local_files_only=True, dtype="auto"
        )
    except Exception as error:
        said = str(error).strip().splitlines()[0]
        raise StepError(f"the pickled weights cannot be read as data: {said}") from error
    model.config._name_or_path = ""
    model.save_pretrained(folder)
    for pattern in (*PICKLES, "*.bin.index.json"):
        for path in folder.glob(pattern):
            files.remove(path)


def _from_gguf(source: Path, folder: Path) -> None:
    """Write the model of a GGUF file, dequantized to bfloat16, and its tokenizer into a folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where: dict[str, Any] = {"gguf_file": source.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(source.parent, **where)
    tokenizer.add_special_tokens(_special_tokens(source, tokenizer))
    model = AutoModelForCausalLM.from_pretrained(
        source.parent, quantization_config=GgufConfig(dequantize=True), **where
    )
    write_model(model.to(torch.bfloat16), tokenizer, folder)


def _special_tokens(source: Path, tokenizer: Any) -> dict[str, str]:
    """The special tokens that the file itself names: transformers 5.17 takes bos for eos."""
    from gguf import GGUFReader

    fields = GGUFReader(source).fields
    found = {}
    for name, word in TOKENS.items():
        field = fields.get(f"tokenizer.ggml.{word}_token_id")
        if field is not None:
            found[name] = tokenizer.convert_ids_to_tokens(int(field.parts[field.data[0]][0]))
    return found
