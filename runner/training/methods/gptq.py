"""GPTQ weights under what is trained: held by the one kernel of gptqmodel that passes gradients."""

import warnings
from pathlib import Path
from typing import Any

from runner import products, quantized
from runner.errors import StepError
from runner.training.methods import adapters

KERNEL = "TorchLinear"
SITS_ON_IT = ("lora", "rslora", "qlora", "prompt", "prefix")
"""The methods whose adapters peft puts onto such weights, or that touch none."""


def passing_gradients(model: Any, method: str) -> Any:
    """The model, read again from disk where its kernel would pass no gradient.

    Other models are given back as they are. StepError where this method cannot train it.
    """
    found = quantized.description(adapters.base_of(model))
    name = found["method"] if found else ""
    if name == "awq":
        raise StepError("AWQ weights pass no gradients on.", "Train the unquantized model.")
    if name != "gptq":
        return model
    if method not in SITS_ON_IT:
        raise StepError(f"{method} cannot train what GPTQ has quantized.", "Take adapt.method=lora")
    if any(type(module).__name__ == KERNEL for module in model.modules()):
        return model
    folder = Path(model.config._name_or_path or "-")
    if hasattr(model, "peft_config") or not (folder / "config.json").exists():
        raise StepError(
            "these GPTQ weights were read to be used, and pass no gradients on.",
            "Load them without an adapter, and name it in adapt: adapter: fetch.NAME",
        )
    return _again(model, folder)


def _again(model: Any, folder: Path) -> Any:
    from transformers import GPTQConfig

    bits, dtype = model.config.quantization_config.bits, model.dtype
    attention = model.config._attn_implementation
    with warnings.catch_warnings():  # all but the backend is the checkpoint's own: as it is meant
        warnings.filterwarnings("ignore", "You passed `quantization_config`")
        return products.open_weights(
            folder,
            dtype=dtype,
            attn_implementation=attention,
            quantization_config=GPTQConfig(bits=bits, backend="gptq_torch"),
        )
