"""Teach a model by training a LoRA adapter: on answers, on preferences or on rewards."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner import products
from runner.options import Fault
from runner.products import Dataset, Model
from runner.recipe import Step
from runner.stage import (
    Context,
    Facts,
    Need,
    Room,
    never_stale,
    pins_nothing,
    writes_text,
)
from runner.training import settings

NEEDS: Mapping[str, Need] = {
    "model": Need(kind="model", consumes=True, restores=True),
    "dataset": Need(kind="dataset"),
}
GIVES = "model"
VERSION = 3
PARTS = False
HOLDS = True

Options = settings.Options
pins = pins_nothing
stale = never_stale


def check(options: Options, inputs: Mapping[str, tuple[Step, ...]]) -> list[Fault]:
    """What does not fit the objective: options of another one, or a dataset of another kind."""
    from runner.training import objectives

    return objectives.check(options, inputs) + writes_text(inputs)


def resolve(options: Options, locked: Facts) -> Options:
    """What the objective takes where it is left out, and what the user's functions say now."""
    from runner.training import objectives

    return objectives.resolve(options)


def room(options: Options, inputs: Mapping[str, Facts]) -> Room:
    """The adapter in float32, and with AdamW's two averages in every checkpoint."""
    model = inputs["model"]
    width = model.get("linear_width", 0) if options.target_modules == ("all-linear",) else 0
    adapter = 4 * options.rank * width
    return Room(kept=adapter, work=3 * adapter * (options.keep_checkpoints + 1), gives=model)


def run(options: Options, inputs: Mapping[str, Any], context: Context) -> Model:
    """Train from the newest checkpoint, or from the start."""
    from transformers import set_seed

    from runner.training import loop, methods, objectives

    dataset: Dataset = inputs["dataset"]
    source = products.with_template(inputs["model"], dataset.template)
    set_seed(options.seed)
    model = methods.attach(objectives.shaped(source.model, source.tokenizer, options), options)
    context.facts |= loop.train(model, source.tokenizer, dataset, options, context)
    return Model(model.eval(), source.tokenizer)


def save(product: Model, folder: Path) -> None:
    """Write the adapter alone, and the chat template that it was taught with."""
    from runner.training import methods

    methods.write(product.model, folder)
    template = product.tokenizer.chat_template
    (folder / products.TEMPLATE).write_text(template or "", encoding="utf-8")


def restore(folder: Path, inputs: Mapping[str, Any]) -> Model:
    """Put the adapter onto its base again."""
    from runner.training import methods, objectives

    template = (folder / products.TEMPLATE).read_text(encoding="utf-8")
    base = products.with_template(inputs["model"], template or None)
    shaped = objectives.reshaped(base.model, base.tokenizer, folder)
    return Model(methods.read(shaped, folder).eval(), base.tokenizer)
