"""llm-compressor's forms, written as compressed-tensors, which transformers and vLLM open."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from runner import products
from runner.errors import StepError
from runner.quantizing import resuming, shapes
from runner.quantizing.settings import Options
from runner.quantizing.work import Work

TARGETS = ["Linear"]
ONE_BY_ONE, TOGETHER = "independent", "sequential"
"""How llm-compressor goes through a model: once for each entry of a recipe, or once for all."""


def quantize(work: Work) -> None:
    """Quantize in main memory, with one layer at a time on the device, and write the result.

    On a CPU the bytes are the same each time, also where a run was killed and goes on.
    """
    model = products.open_weights(work.whole, dtype="auto", device_map=None)
    shapes.insist(model, work.options)
    ignored = _ignored(model, work.options.skip)
    _check_layers(model, ignored)
    match work.options.method:
        case "fp8":
            _oneshot(model, work, _fp8(ignored))
        case "w8a8":
            _w8a8(model, work, ignored)
        case _:
            _awq(model, work, ignored)
    model.save_pretrained(work.target)
    (work.target / "recipe.yaml").unlink()  # the step's record says more


def _fp8(ignored: Sequence[str]) -> list[Any]:
    """Weights by channel, activations by token as they come: nothing to calibrate."""
    from llmcompressor.modifiers.quantization import QuantizationModifier

    return [QuantizationModifier(scheme="FP8_DYNAMIC", targets=TARGETS, ignore=ignored)]


def _w8a8(model: Any, work: Work, ignored: Sequence[str]) -> None:
    """SmoothQuant (arXiv:2211.10438), and GPTQ (arXiv:2210.17323) of what it leaves."""
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier, dynamic_mappings

    found = dynamic_mappings.get_layer_mappings_from_model(model)
    rounding = GPTQModifier(scheme="W8A8", targets=TARGETS, ignore=ignored)
    if _knows(model, [(each.smooth_layers, each.balance_layers) for each in found]):
        recipe = [SmoothQuantModifier(mappings=found), rounding]
    else:
        work.note(f"not smoothed: llm-compressor does not know {type(model).__name__}")
        recipe = [rounding]
    _calibrate(model, work, recipe, ONE_BY_ONE)


def _awq(model: Any, work: Work, ignored: Sequence[str]) -> None:
    """AWQ (arXiv:2306.00978): scales that a search in each layer finds, then rounding.

    StepError for a model whose layers llm-compressor does not know.
    """
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier, dynamic_mappings

    found = dynamic_mappings.get_layer_mappings_from_model(model)
    if not _knows(model, [(each.smooth_layer, each.balance_layers) for each in found]):
        raise StepError(
            f"AWQ does not know which layers of {type(model).__name__} to scale.",
            "Take quantize.method=gptq, or w8a8",
        )
    if not work.options.symmetric:
        work.note("asymmetric: it opens in transformers 5.17, and not in 5.23")
    group = {"targets": TARGETS, "weights": _weights(work.options)}
    rounding = QuantizationModifier(config_groups={"group_0": group}, ignore=ignored)
    _calibrate(model, work, [AWQModifier(mappings=found), rounding], TOGETHER)


def _weights(options: Options) -> dict[str, Any]:
    """How weights are held, in the words of compressed-tensors."""
    grouped = options.group_size != -1
    return {
        "num_bits": options.bits,
        "type": "int",
        "symmetric": options.symmetric,
        "strategy": "group" if grouped else "channel",
        "group_size": options.group_size if grouped else None,
    }


def _calibrate(model: Any, work: Work, recipe: Sequence[Any], how: str) -> None:
    """Show all layers the rows, one row at a time: no padding, so nothing but the rows counts."""
    from torch.utils.data import DataLoader

    _leave_unpinned()
    rows: Any = DataLoader(_tensors(work), batch_size=None)  # type: ignore[arg-type]
    with resuming.pieces(model, work, passes=len(recipe) if how == ONE_BY_ONE else 1):
        _oneshot(model, work, recipe, dataset=rows, pipeline=how)


def _oneshot(model: Any, work: Work, recipe: Sequence[Any], **settings: Any) -> None:
    from llmcompressor import oneshot

    tokenizer = products.open_tokenizer(work.whole)  # else it would look for one by itself
    try:
        oneshot(model=model, tokenizer=tokenizer, recipe=list(recipe), **settings)
    except ValueError as error:  # of layers that do not fit what it knows of the architecture
        raise StepError(f"llm-compressor: {error}") from error


def _tensors(work: Work) -> list[Mapping[str, Any]]:
    import torch

    return [{"input_ids": torch.tensor([row])} for row in work.rows]


def _leave_unpinned() -> None:
    """Without an accelerator llm-compressor 0.14 asks to pin memory all the same, and fails."""
    import torch
    from llmcompressor.pipelines.cache import IntermediatesCache

    if not torch.accelerator.is_available():
        IntermediatesCache.pin_memory = lambda *_, **__: None


def _ignored(model: Any, skip: Sequence[str]) -> list[str]:
    """The output layer, and the layers whose names hold a part that is to be skipped."""
    from transformers.quantizers.base import get_keys_to_not_convert

    return [*get_keys_to_not_convert(model), *(f"re:.*{re.escape(part)}" for part in skip)]


def _check_layers(model: Any, ignored: Sequence[str]) -> None:
    if not _has(model, TARGETS, ignored):
        raise StepError(f"llm-compressor finds no layer of {type(model).__name__} to quantize.")


def _knows(model: Any, pairs: Sequence[tuple[str, Sequence[str]]]) -> bool:
    """Whether a layer is there whose outputs can be scaled, and one that takes them in."""
    return any(_has(model, [before]) and _has(model, after) for before, after in pairs)


def _has(model: Any, names: Sequence[str], ignored: Sequence[str] = ()) -> bool:
    """Whether any module is one of those, by name, pattern or class."""
    from compressed_tensors.utils import match_named_modules

    return any(True for _ in match_named_modules(model, list(names), list(ignored)))
