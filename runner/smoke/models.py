"""A random model of two layers that has the architecture of a real one, and its tokenizer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner import products
from runner.errors import StepError
from runner.models import form, opening
from runner.smoke.families import Family

LAYERS = 2
SIZES: Mapping[str, int] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "n_embd": 128,
    "n_head": 4,
    "n_inner": 256,
    "query_pre_attn_scalar": 32,
    "sliding_window": 64,
    "max_window_layers": LAYERS,
    "moe_intermediate_size": 128,
    "shared_expert_intermediate_size": 128,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "vocab_size_per_layer_input": 256,
    "hidden_size_per_layer_input": 32,
    "mm_tokens_per_image": 4,
}
"""Multiples of 128 where weights are quantized in groups; sizes that are smaller stay."""
OWN = ("quantization_config", "_name_or_path", "transformers_version", "auto_map")
"""What a configuration says of the very files that it lies beside."""
LAYER_COUNTS = ("num_hidden_layers", "n_layer", "num_layers")


def like(folder: Path, target: Path) -> str:
    """Write a small random model like the one whose configuration a folder holds; gives its kind.

    The tokenizer is the folder's own. StepError where there is no configuration that can be read,
    or no tokenizer.
    """
    found = form.read(folder)
    if found.is_adapter:
        raise StepError(f"{folder} holds an adapter, and a smoke run makes none up.")
    config = opening.configuration(found)
    tokenizer = products.open_tokenizer(folder)
    given = small(config.to_dict())
    _write(config.model_type, given, tokenizer, target)
    return str(config.model_type)


def of_family(family: Family, target: Path) -> str:
    """Write one of a family, with a tokenizer of bytes and the family's marks."""
    from transformers import AutoConfig

    given = small(AutoConfig.for_model(family.kind).to_dict())
    tokenizer = _as_opened(_tokenizer(family), family.kind, target)
    given |= {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": None,
    }
    _write(family.kind, given, tokenizer, target)
    return family.kind


def _as_opened(tokenizer: Any, kind: str, folder: Path) -> Any:
    """The tokenizer as it is opened beside a model of that kind: some add tokens of their own."""
    from transformers import AutoConfig

    AutoConfig.for_model(kind).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return products.open_tokenizer(folder)


def small(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with its sizes made small, those of its parts (text, vision) too."""
    count = next((config[name] for name in LAYER_COUNTS if config.get(name)), None)
    found = {name: _small(name, value, count) for name, value in config.items() if name not in OWN}
    if config.get("num_key_value_heads") == config.get("num_attention_heads"):
        found |= {"num_key_value_heads": found.get("num_attention_heads")}
    return {name: value for name, value in found.items() if value is not None or name in config}


def _small(name: str, value: Any, layers: int | None) -> Any:
    """One value; what is said of each layer is said of two, one of each sort."""
    if isinstance(value, Mapping):
        return small(value) if name.endswith("_config") else value
    if isinstance(value, list) and len(value) == layers:
        sorts = [*dict.fromkeys(value)] if all(isinstance(v, str) for v in value) else value
        return (sorts + value)[:LAYERS]
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if name in LAYER_COUNTS:
        return min(value, LAYERS)
    return min(value, SIZES[name]) if name in SIZES else value


def _write(kind: str, given: Mapping[str, Any], tokenizer: Any, target: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    described = {name: value for name, value in given.items() if name != "model_type"}
    config = AutoConfig.for_model(kind, **described)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).to(_dtype(given))
    products.write_model(model, tokenizer, target)


def _dtype(given: Mapping[str, Any]) -> Any:
    """The number format of the real one's weights; bfloat16 where it does not say."""
    import torch

    said = str(given.get("dtype") or given.get("torch_dtype") or "bfloat16")
    found = getattr(torch, said.removeprefix("torch."), torch.bfloat16)
    return found if found.is_floating_point else torch.bfloat16


def _tokenizer(family: Family) -> Any:
    """A token for each byte, and one for each mark."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={text: at for at, text in enumerate(alphabet)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token=family.begins,
        eos_token=family.ends,
        additional_special_tokens=list(family.marks),
    )
    tokenizer.chat_template = family.template
    return tokenizer
