"""A model without its numbers: what it is made of, and what its weights take in any form."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
BLOCK, OF_BLOCKS = 64, 256
"""Weights that share a scale in bitsandbytes' 4-bit forms, and scales that share one in turn."""
UNPACKED = ("compressed-tensors",)
"""Quantized checkpoints whose weights are written out whole at the first forward pass."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """How weights are held in memory.

    dtype                the number format of what is not quantized, and of activations
    method               int8, nf4 or fp4; None where nothing is quantized by us
    double_quantization  the scales of nf4 and fp4 are quantized too
    quantized            the form of a checkpoint that was quantized already
    file_bytes           the size of its files, which is what such weights take
    """

    dtype: str
    method: str | None = None
    double_quantization: bool = False
    quantized: str | None = None
    file_bytes: int = 0


def on_meta(config: Any, dtype: str = "float32", attention: str = "sdpa", **more: Any) -> Any:
    """A model of this configuration, unquantized, on the meta device: shapes and no numbers."""
    import torch
    from transformers import AutoModelForCausalLM

    config = copy.deepcopy(config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(
            config, dtype=getattr(torch, dtype), attn_implementation=attention, **more
        )


def parameters(model: Any) -> int:
    """Numbers in a model, each tied one counted once."""
    return sum(each.numel() for each in model.parameters())


def parameters_of(model: Any) -> int:
    """Numbers in a loaded model; where they are packed, in the model that they were packed from."""
    if getattr(model, "quantization_method", None) in (None, "bitsandbytes"):
        return int(model.num_parameters())
    trust = type(model).__module__.startswith("transformers_modules.")
    return parameters(on_meta(model.config, trust_remote_code=trust))


def weights(model: Any, held: Held) -> int:
    """Bytes of a model's weights as they are held; `model` is one on the meta device."""
    if held.quantized and held.quantized not in UNPACKED:
        return held.file_bytes
    size, squeezed = BYTES[held.dtype], 0
    for layer in inner_layers(model) if held.method else ():
        squeezed += _saved(layer.weight, size, held)
    return parameters(model) * size - squeezed


def inner_layers(model: Any) -> Iterator[Any]:
    """The linear layers that are quantized and adapted: all but the last."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    for module in model.modules():
        if isinstance(module, (Linear, Conv1D)) and module is not model.get_output_embeddings():
            yield module


def held_by(model: Any) -> int:
    """Bytes that a loaded model's weights really take, scales of quantized ones counted in."""
    storages = {}
    for value in (*model.parameters(), *model.buffers()):
        for tensor in _tensors(value):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def _saved(weight: Any, size: int, held: Held) -> int:
    """Bytes by which a layer's weights shrink."""
    count = weight.numel()
    if held.method == "int8":
        return int(count * size - count - 4 * weight.shape[0])
    scales = count // BLOCK
    of_scales = scales + 4 * scales // OF_BLOCKS if held.double_quantization else 4 * scales
    return int(count * size - count // 2 - of_scales)


def _tensors(value: Any) -> Iterator[Any]:
    """A weight's own tensor, or those that a quantized one is made of."""
    if hasattr(value, "__tensor_flatten__"):
        for name in value.__tensor_flatten__()[0]:
            yield from _tensors(getattr(value, name))
        return
    yield value
    scales: list[Mapping[str, Any]] = [{"SCB": getattr(value, "SCB", None)}]
    if state := getattr(value, "quant_state", None):
        scales += [vars(state), vars(state.state2) if state.state2 else {}]
    for each in scales:
        yield from (tensor for tensor in each.values() if hasattr(tensor, "untyped_storage"))
