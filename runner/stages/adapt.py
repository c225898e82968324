"""Teach a model by training an adapter, or all its weights, on the trained tokens of a dataset."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner import files, products
from runner.products import Dataset, Model
from runner.stage import (
    Context,
    Facts,
    Need,
    Room,
    never_stale,
    pins_nothing,
    resolves_nothing,
)
from runner.training import kinds, settings, sizes

NEEDS: Mapping[str, Need] = {
    "model": Need(kind="model", consumes=True, restores=True),
    "dataset": Need(kind="dataset"),
    "adapter": Need(kind="files", named=True),
}
GIVES = "model"
VERSION = 3
PARTS = False
HOLDS = True

WHOLE, SETTINGS = "model", "adapt.json"
"""Where a result that is a whole model lies, and how it (or an adapter's base) is opened."""

Options = settings.Options
resolve = resolves_nothing
pins = pins_nothing
check = kinds.check
stale = never_stale


def room(options: Options, inputs: Mapping[str, Facts]) -> Room:
    """What is trained, and with AdamW's two averages in every checkpoint.

    StepError where a layer that is named is not among the model's, if its config is known by now.
    """
    return sizes.room(options, inputs["model"])


def run(options: Options, inputs: Mapping[str, Any], context: Context) -> Model:
    """Train from the newest checkpoint, or from the start."""
    from transformers import set_seed

    from runner.training import loop, methods

    dataset: Dataset = inputs["dataset"]
    source = products.with_template(inputs["model"], dataset.template)
    adapter = inputs["adapter"].folder if "adapter" in inputs else None
    set_seed(options.seed)
    came_in = methods.formats(source.model)
    model = methods.attach(source.model, options, context.note, adapter)
    context.facts |= loop.train(model, source.tokenizer, dataset, options, context)
    model = methods.finish(model, options, came_in, context.note)
    reference = source.reference if hasattr(model, "peft_config") else None
    return Model(model.eval(), source.tokenizer, reference=reference)


def save(product: Model, folder: Path) -> None:
    """Write the adapter alone, or the whole model, and the chat template it was taught with."""
    from runner import quantized
    from runner.training import methods

    model = product.model
    is_adapter = hasattr(model, "peft_config")
    held_in = quantized.description(model.get_base_model()) if is_adapter else None
    said = {"attention": model.config._attn_implementation, "held_in": held_in}
    files.write_json(folder / SETTINGS, said)
    if not is_adapter:
        products.write_model(model, products.untouched(product.tokenizer), folder / WHOLE)
        return
    methods.write(model, folder, product.reference)
    template = product.tokenizer.chat_template
    (folder / products.TEMPLATE).write_text(template or "", encoding="utf-8")


def restore(folder: Path, inputs: Mapping[str, Any]) -> Model:
    """Open the whole model, or put the adapter onto its base again."""
    from runner.training import methods

    said = files.read_json(folder / SETTINGS)
    if (folder / WHOLE).is_dir():
        attention = said["attention"]
        return products.open_model(folder / WHOLE, dtype="auto", attn_implementation=attention)
    template = (folder / products.TEMPLATE).read_text(encoding="utf-8")
    base = products.with_template(inputs["model"], template or None)
    model = methods.read(base.model, folder, said["held_in"])
    return Model(model.eval(), base.tokenizer, reference=base.reference)
