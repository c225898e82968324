"""Layers whose inputs no whole number of groups makes up, told from shapes before any weight."""

from collections.abc import Iterator
from typing import Any

from runner.errors import StepError, listing
from runner.memory import shape
from runner.quantizing import methods
from runner.quantizing.settings import Options


def insist(model: Any, options: Options) -> None:
    """StepError where `fault` finds one."""
    if fact := fault(model, options):
        raise StepError(fact, "Or let such layers be: quantize.skip=[NAME]")


def fault(model: Any, options: Options) -> str | None:
    """Why the groups do not fit the layers, with the sizes that do; None where they fit.

    `model` is a transformers configuration, or a model, which may be on the meta device.
    """
    size, groups = options.group_size, methods.of(options).groups
    if size is None or size < 1 or not groups:
        return None
    widths = dict(_widths(model, options.skip))
    odd = [name for name, width in widths.items() if width % size]
    if not odd:
        return None
    more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
    return (
        f"group_size {size} does not divide the {widths[odd[0]]:,} inputs of {odd[0]}{more};"
        f" {_that_fit(groups, set(widths.values()))}."
    )


def _that_fit(groups: tuple[int, ...], widths: set[int]) -> str:
    """The sizes that divide all widths; -1 is a whole row."""
    found = [size for size in groups if size == -1 or not any(width % size for width in widths)]
    return f"sizes that do: {listing(sorted(map(str, found), key=int))}" if found else "none does"


def _widths(model: Any, skip: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """The inputs of each layer that is quantized, by its name: all but the last."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    whole = model if hasattr(model, "named_modules") else shape.on_meta(model)
    for name, module in whole.named_modules():
        is_inner = isinstance(module, (Linear, Conv1D))
        if not is_inner or module is whole.get_output_embeddings():
            continue
        if not any(part in name for part in skip):
            yield name, _inputs(module)


def _inputs(layer: Any) -> int:
    """Of GPT-2's Conv1D, whose weight lies the other way round, the rows."""
    found = getattr(layer, "in_features", None)
    return int(layer.weight.shape[0] if found is None else found)
