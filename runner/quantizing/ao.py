"""torchao: whole numbers of 8 or 4 bits with scales in floating point, from the weights alone."""

import json
from pathlib import Path
from typing import Any

from runner import products
from runner.memory import shape
from runner.models import form, opening
from runner.quantizing import shapes
from runner.quantizing.settings import Options
from runner.quantizing.work import Work


def quantize(work: Work) -> None:
    """Read the weights as quantized ones and write them as safetensors."""
    from transformers import TorchAoConfig

    config = opening.configuration(form.read(work.whole))
    empty = shape.on_meta(config)
    shapes.insist(empty, work.options)
    said = TorchAoConfig(_form(work.options), modules_to_not_convert=_kept(empty, work.options))
    model = products.open_weights(work.whole, dtype="auto", quantization_config=said)
    work.progress(1, 2, "phases")
    model.config._name_or_path = ""
    model.save_pretrained(work.target)
    for path in work.target.glob("*.safetensors"):
        _order(path)
    work.progress(2, 2, "phases")


def _form(options: Options) -> Any:
    """One scale for each output (8 bits) or for each group of inputs (4 bits, held in 8)."""
    import torch
    from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig
    from torchao.quantization.granularity import PerGroup

    if options.method == "torchao-int8":
        return Int8WeightOnlyConfig()
    assert options.group_size is not None
    return IntxWeightOnlyConfig(
        weight_dtype=torch.int4,  # type: ignore[attr-defined] # its types lack it
        granularity=PerGroup(options.group_size),
    )


def _kept(model: Any, options: Options) -> list[str]:
    """The layers that stay as they are: the output layer and the like, and those to be skipped."""
    from torch.nn import Linear
    from transformers.quantizers.base import get_keys_to_not_convert

    linear = [name for name, module in model.named_modules() if isinstance(module, Linear)]
    skipped = [name for name in linear if any(part in name for part in options.skip)]
    return [*get_keys_to_not_convert(model), *skipped]


def _order(path: Path) -> None:
    """Put what a safetensors file says of itself in order, in place: it was written in any order.

    The file begins with the length of its header, 8 bytes, and the header, padded with spaces.
    """
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= length
        file.seek(8)
        file.write(text.ljust(length))
