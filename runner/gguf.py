"""A GGUF model as a folder of safetensors that transformers loads in a second."""

from pathlib import Path
from typing import Any

from runner.products import write_model

TOKENS = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding"}


def convert(source: Path, folder: Path) -> None:
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
