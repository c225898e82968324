"""The settings of a model as llama.cpp reads them."""

import math
from collections.abc import Callable
from typing import Any

from runner.gguf.architectures import WINDOW, Architecture, head_size, rope


def add(writer: Any, config: Any, known: Architecture, note: Callable[[str], None]) -> None:
    """Sizes, positions and windows (llama.cpp: `gguf-py/gguf/constants.py`, `Keys`)."""
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(_context(config, known, note))
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_size(config))
    writer.add_value_length(head_size(config))
    writer.add_rope_dimension_count(head_size(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    _add_rope(writer, config)
    if known.period:
        _add_windows(writer, config)


def rope_factors(config: Any) -> Any:
    """By what each frequency is divided, where Llama 3's scaling asks for it; else None.

    Shape (head size / 2), float32. Source: transformers, `_compute_llama3_parameters`.
    """
    import numpy as np

    settings = rope(config)
    if settings.get("rope_type") != "llama3":
        return None
    exponents = np.arange(0, head_size(config), 2, dtype=np.float32) / head_size(config)
    waves = 2 * math.pi * settings["rope_theta"] ** exponents
    context, factor = settings["original_max_position_embeddings"], settings["factor"]
    low, high = settings["low_freq_factor"], settings["high_freq_factor"]
    share = np.clip((context / waves - low) / (high - low), 0, 1)
    return (1 / ((1 - share) / factor + share)).astype(np.float32)


def _context(config: Any, known: Architecture, note: Callable[[str], None]) -> int:
    """Tokens for which the file computes what the model does.

    llama.cpp leaves out the window of attention that some models have in every layer: up to its
    size there is no difference.
    """
    window = getattr(config, "sliding_window", None)
    longest = int(config.max_position_embeddings)
    if known.period or not window or window >= longest:
        return longest
    note(f"llama.cpp has no window of attention here: the file says {window} tokens at most")
    return int(window)


def _add_rope(writer: Any, config: Any) -> None:
    settings = rope(config)
    writer.add_rope_freq_base(settings["rope_theta"])
    kind = settings.get("rope_type", "default")
    if kind not in ("linear", "yarn"):
        return
    import gguf

    writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
    writer.add_rope_scaling_factor(settings["factor"])
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(settings["original_max_position_embeddings"])


def _add_windows(writer: Any, config: Any) -> None:
    writer.add_sliding_window(config.sliding_window)
    local = rope(config, WINDOW)
    if local != rope(config):
        writer.add_rope_freq_base_swa(local["rope_theta"])
    for name in ("attn_logit_softcapping", "final_logit_softcapping"):
        if (cap := getattr(config, name, None)) is not None:
            getattr(writer, f"add_{name}")(cap)
