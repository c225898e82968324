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
        write_model(open_gguf(source), open_gguf_tokenizer(source), folder)
        source.unlink()
        return
    note("converting pickled weights to safetensors, once")
    _from_pickle(folder)


def gguf_of(folder: Path) -> Path | None:
    """The GGUF file of a folder that holds a model in no other form."""
    if any(folder.glob("*.safetensors")):
        return None
    return _first(folder, "*.gguf")


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


def open_gguf(source: Path) -> Any:
    """The model of a GGUF file, dequantized to bfloat16, as if it had never been anything else."""
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    return AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        local_files_only=True,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )


def open_gguf_tokenizer(source: Path, **settings: Any) -> Any:
    """The tokenizer of a GGUF file, with the special tokens that the file names."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(
        source.parent, gguf_file=source.name, local_files_only=True, **settings
    )
    tokenizer.add_special_tokens(_special_tokens(source, tokenizer))
    return tokenizer


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
