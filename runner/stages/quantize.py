"""Squeeze a model's weights to 4 or 8 bits with bitsandbytes."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from runner import files, products
from runner.errors import StepError
from runner.options import Fault, option
from runner.products import Files, Model
from runner.recipe import Step
from runner.stage import Context, Facts, Need, Room, never_stale, pins_nothing, resolves_nothing

NEEDS: Mapping[str, Need] = {"model": Need(kind="model", consumes=True)}
GIVES = "model"
VERSION = 1
PARTS = False
HOLDS = False  # the model that later steps use is the one that was written, read back


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which format, and how."""

    method: Literal["nf4", "fp4", "int8"] = option(
        "nf4", "4-bit normal float (arXiv:2305.14314), 4-bit float, or LLM.int8()"
    )
    double_quant: bool = option(
        False, "Quantize the scales of the 4-bit methods too: 0.4 bits a weight less"
    )


resolve = resolves_nothing
pins = pins_nothing
stale = never_stale
save = products.save_files


def check(options: Options, inputs: Mapping[str, tuple[Step, ...]]) -> list[Fault]:
    """Quantized weights are not quantized again."""
    faults = [
        Fault((), f"{step.name} is quantized already; quantize the model before it.")
        for step in inputs.get("model", ())
        if step.stage_name == "quantize"
    ]
    if options.double_quant and options.method == "int8":
        faults.append(Fault(("double_quant",), "int8 has no double quantization."))
    if find_spec("bitsandbytes") is None:
        fact = "needs bitsandbytes, which is not installed: python -m pip install bitsandbytes"
        faults.append(Fault((), f"{options.method} {fact}"))
    return faults


def room(options: Options, inputs: Mapping[str, Facts]) -> Room:
    """The whole model while it is read as quantized, and at least its weights at their bits."""
    whole = inputs["model"].get("bytes", 0)
    squeezed = whole * (8 if options.method == "int8" else 4) // 16
    return Room(kept=squeezed, work=whole, gives={"bytes": squeezed})


def run(options: Options, inputs: Mapping[str, Any], context: Context) -> Files:
    """Merge the adapter into unquantized weights, write them, and read them as quantized."""
    source: Model = inputs["model"]
    whole, squeezed = context.draft / "whole", context.draft / "squeezed"
    files.remove(whole)
    files.remove(squeezed)
    model = source.model
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload(safe_merge=True)
    products.write_model(model, products.untouched(source.tokenizer), whole)
    context.progress(1, 3, "phases")
    opened = _open(whole, quantization_config=_config(options, str(model.dtype)))
    context.progress(2, 3, "phases")
    products.write_model(opened.model, opened.tokenizer, squeezed)  # before any forward pass
    context.progress(3, 3, "phases")
    context.facts |= {
        "bytes_before": products.weight_bytes(whole),
        "bytes_after": products.weight_bytes(squeezed),
        "method": options.method,
    }
    files.remove(whole)
    return Files(squeezed)


def restore(folder: Path, inputs: Mapping[str, Any]) -> Model:
    """Open the quantized weights."""
    return _open(folder)


def _open(folder: Path, **settings: Any) -> Model:
    return products.open_model(folder, **settings)


def _config(options: Options, dtype: str) -> Any:
    from transformers import BitsAndBytesConfig

    if options.method == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    name = dtype.removeprefix("torch.")
    if name not in ("bfloat16", "float16", "float32"):
        raise StepError(f"{options.method} takes a model in bfloat16, float16 or float32.")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=options.method,
        bnb_4bit_use_double_quant=options.double_quant,
        bnb_4bit_compute_dtype=name,
    )
