"""bitsandbytes: a model's weights in 4 or 8 bits, read as such or squeezed where they lie."""

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from runner.errors import StepError

COMPUTES = ("bfloat16", "float16", "float32")
"""The number formats in which 4-bit weights are computed with."""


def lacking(method: str) -> str | None:
    """A sentence with the pip line where bitsandbytes is not installed."""
    if find_spec("bitsandbytes") is not None:
        return None
    return (
        f"{method} needs bitsandbytes, which is not installed: python -m pip install bitsandbytes"
    )


def config(method: str, double_quantization: bool, dtype: str) -> Any:
    """The `BitsAndBytesConfig` of nf4, fp4 (arXiv:2305.14314) or int8 (arXiv:2208.07339).

    `dtype` is the number format in which is computed. StepError where 4 bits cannot have it.
    """
    from transformers import BitsAndBytesConfig

    if method == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    name = dtype.removeprefix("torch.")
    if name not in COMPUTES:
        raise StepError(f"{method} takes a model in bfloat16, float16 or float32.")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=method,
        bnb_4bit_use_double_quant=double_quantization,
        bnb_4bit_compute_dtype=name,
    )


def description(model: Any) -> Mapping[str, Any] | None:
    """How bitsandbytes holds a model's weights: method and double_quantization; None if it doesn't.

    StepError where another library has quantized them.
    """
    if not getattr(model, "is_quantized", False):
        return None
    found = model.config.quantization_config
    if getattr(found, "quant_method", None) != "bitsandbytes":
        method = getattr(found, "quant_method", "unknown")
        return {"method": str(getattr(method, "value", method))}
    if found.load_in_8bit:
        return {"method": "int8", "double_quantization": False}
    double = bool(found.bnb_4bit_use_double_quant)
    return {"method": found.bnb_4bit_quant_type, "double_quantization": double}


def keep_layout(model: Any) -> None:
    """Keep libraries from changing how weights are held, or computed with, at their first use.

    bitsandbytes 0.50 repacks 4-bit weights in place on the CPU: what is saved, merged or trained
    after that is garbage. gptqmodel 7.6 has a compiler build what unpacks weights, and fails where
    there is none.
    """
    method = getattr(model, "quantization_method", None)
    if method == "gptq":
        for module in model.modules():
            vars(module).pop("dequantize_weight", None)  # the compiled one hid the class's own
    if method != "bitsandbytes":
        return
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def unpack(model: Any) -> None:
    """Unpack weights that compressed-tensors would unpack at the first forward pass.

    Until then its layers have no `weight` that an adapter could sit on.
    """
    if hasattr(model, "ct_decompress_hook"):
        model.hf_quantizer.compressor.decompress_model(model)


def unteachable(model: Any) -> str | None:
    """Why no adapter learns on a model's layers; None where one does."""
    schemes = (getattr(module, "quantization_scheme", None) for module in model.modules())
    if any(scheme is not None and scheme.input_activations is not None for scheme in schemes):
        return (
            "the model rounds its activations too (W8A8, FP8), and no gradient comes through that."
        )
    return None


def quantize(model: Any, method: str, double_quantization: bool) -> Any:
    """Squeeze the linear layers of a model in place, one after the other, as transformers reads it.

    Beside the model there is never more than one layer in both forms. The output layer and
    embeddings keep their number format.
    """
    from transformers.quantizers.auto import AutoHfQuantizer

    said = config(method, double_quantization, str(model.dtype))
    quantizer = AutoHfQuantizer.from_config(said, pre_quantized=False)
    names = list(_names(model, quantizer))
    if not names:
        raise StepError(f"bitsandbytes knows no layer of {type(model).__name__} to quantize.")
    for name in names:
        squeezed = _squeezed(model.get_submodule(name), said)
        model.set_submodule(name, squeezed)
    model.hf_quantizer, model.is_quantized = quantizer, True
    model.quantization_method = said.quant_method
    quantizer.postprocess_model(model)
    keep_layout(model)
    return model


def _names(model: Any, quantizer: Any) -> Iterator[str]:
    """The layers that transformers would quantize; of subclasses of Linear it knows nothing."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D
    from transformers.quantizers.quantizers_utils import should_convert_module

    kept = quantizer.get_modules_to_not_convert(model, None, model._keep_in_fp32_modules)
    for name, module in model.named_modules():
        is_linear = type(module) is Linear or isinstance(module, Conv1D)
        if is_linear and should_convert_module(name, kept):
            yield name


def _squeezed(layer: Any, said: Any) -> Any:
    """A linear layer (or Conv1D, whose weight lies the other way round) quantized."""
    import torch
    from bitsandbytes import nn
    from transformers.pytorch_utils import Conv1D

    weight = layer.weight.data
    weight = weight.T.contiguous() if isinstance(layer, Conv1D) else weight
    size = (weight.shape[1], weight.shape[0], layer.bias is not None)
    with torch.device("meta"):
        if said.load_in_8bit:
            made = nn.Linear8bitLt(*size, has_fp16_weights=False, threshold=said.llm_int8_threshold)
        else:
            made = nn.Linear4bit(
                *size,
                said.bnb_4bit_compute_dtype,
                compress_statistics=said.bnb_4bit_use_double_quant,
                quant_type=said.bnb_4bit_quant_type,
                quant_storage=said.bnb_4bit_quant_storage,
            )
    settings = {**made.weight.__dict__}
    settings.pop("SCB", None)
    form = nn.Int8Params if said.load_in_8bit else nn.Params4bit
    source = weight.to("cpu") if said.load_in_8bit else weight
    made.weight = form(source, requires_grad=False, **settings).to(weight.device)
    made.bias, made.source_cls = layer.bias, type(layer)
    return made.requires_grad_(False).train(layer.training)
