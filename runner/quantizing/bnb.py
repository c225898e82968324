"""bitsandbytes: int8 (arXiv:2208.07339), nf4 and fp4 (arXiv:2305.14314), from the weights alone."""

from typing import Any

from runner import products, quantized
from runner.memory import shape
from runner.models import form, opening
from runner.quantizing.work import Work


def quantize(work: Work) -> None:
    """Read the weights as quantized ones and write them, before any forward pass.

    On some CPUs bitsandbytes 0.50 repacks 4-bit weights at their first use; saved after that they
    are garbage.
    """
    found, options = form.read(work.whole), work.options
    config = opening.configuration(found)
    said = quantized.config(options.method, options.double_quantization, opening.dtype_of(config))
    if options.skip:
        said.llm_int8_skip_modules = [*_always_skipped(config), *options.skip]
    model = products.open_weights(work.whole, dtype="auto", quantization_config=said)
    work.progress(1, 2, "phases")
    model.config._name_or_path = ""
    model.save_pretrained(work.target)
    work.progress(2, 2, "phases")


def _always_skipped(config: Any) -> list[str]:
    """The output layer and the like, which naming others would quantize."""
    from transformers.quantizers.base import get_keys_to_not_convert

    return list(get_keys_to_not_convert(shape.on_meta(config)))
