"""How many prompts are answered together, by what is free of memory."""

from typing import Any

from runner import hardware

MOST = {"cpu": 64, "cuda": 256}
"""Rows at once, however much memory there is."""
USABLE = 0.5
"""Of the free memory: what a batch really takes is found when it is tried, and then halved."""
SCORES = 8
"""Copies of a row's scores, in 32 bits, while they are processed and sorted."""


def rows(model: Any, width: int, longest: int, beams: int) -> int:
    """A power of two; `width` tokens of a prompt, `longest` with its answer."""
    kind = model.device.type
    free = _free(model.device)
    most = MOST.get(kind, MOST["cpu"])
    if free is None:
        return most
    found = int(USABLE * free / (beams * bytes_per_row(model, width, longest)))
    return max(1, min(most, 1 << max(0, found.bit_length() - 1)))


def bytes_per_row(model: Any, width: int, longest: int) -> int:
    """The cache of keys and values, one layer's activations of the prompt, and the scores."""
    config = model.config.get_text_config()
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    layer = width * model.dtype.itemsize * (3 * inner + 8 * config.hidden_size)
    return int(cached_bytes(model) * longest + layer + SCORES * 4 * config.vocab_size)


def cached_bytes(model: Any) -> int:
    """Bytes of the keys and values that are kept of one token."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * head * model.dtype.itemsize)


def _free(device: Any) -> int | None:
    if device.type != "cuda":
        return hardware.free_memory("cpu")
    import torch

    return int(torch.cuda.mem_get_info(device)[0])
