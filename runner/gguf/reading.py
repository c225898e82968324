"""What the readers of a GGUF file make of it, where that is less than the file says."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SETTINGS = (
    "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads "
    "num_key_value_heads head_dim hidden_act hidden_activation rms_norm_eps rope_parameters "
    "attention_bias mlp_bias tie_word_embeddings layer_types sliding_window query_pre_attn_scalar "
    "attn_logit_softcapping final_logit_softcapping"
).split()
"""Of a configuration, what changes the answers."""


def lost_in_transformers(folder: Path, file: Path) -> list[str]:
    """The settings of a folder's model that transformers reads otherwise from its GGUF file.

    transformers 5.17 takes scaled positions, biases and some sizes of Gemma and Qwen 3 to be what
    is usual, without a word. Where the list is empty, its logits are those of the folder; llama.cpp
    reads all of them. Its tokenizers differ more often: tokens that were added to a vocabulary
    are cut into pieces, and only the cuts of GPT-2, Qwen 2 and SentencePiece with merges are known.
    """
    from transformers import AutoConfig

    whole = AutoConfig.from_pretrained(folder, local_files_only=True)
    read = AutoConfig.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
    return [name for name in SETTINGS if not _same(*(_setting(c, name) for c in (whole, read)))]


def _setting(config: Any, name: str) -> Any:
    found = getattr(config, name, None)
    if name == "head_dim" and found is None:
        return config.hidden_size // config.num_attention_heads
    return found or None if name in ("attention_bias", "mlp_bias") else found


def _same(one: Any, other: Any) -> bool:
    """Equal, numbers to what float32 keeps of them."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-6)
    return bool(one == other)
